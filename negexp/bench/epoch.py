"""Compare a whole epoch with a plainly written one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from negexp.bench.phases import run_epoch, sampler_options
from negexp.bench.plain import PlainEpoch
from negexp.bench.setting import Setting
from negexp.bench.timing import NEGEXP, PhaseResult, in_turns, rivals
from negexp.errors import InputError
from negexp.losses.triplet_ce import TripletCrossEntropyOptions
from negexp.runtime import Runtime


def compare_epoch(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Embed, index, sample and train on some pairs, with the first random rate of the decay strategy."""
    config = setting.config
    pairs = setting.train_pairs(config.epoch_pairs)
    sampler = sampler_options(setting, "decay", start_rate=0.8, step=0.02, end_rate=0.0)
    loss = config.loss
    if not isinstance(loss, TripletCrossEntropyOptions):
        raise InputError(f"loss={loss.name}: the plain epoch supports only loss=triplet_ce; remove the key")
    model = setting.built.model
    original, state = setting.plain_model(), copy.deepcopy(model.state_dict())

    def negexp_epoch(runtime: Runtime) -> None:
        model.load_state_dict(state)
        run_epoch(setting, pairs, sampler, runtime)

    def plain_epoch() -> None:
        original.load_state_dict(state)
        PlainEpoch(setting, original, pairs, random_rate=0.8, margin=loss.margin).run()

    float32, plain = "negexp in float32", "plain epoch: three passes, unsorted batches, float32"
    contenders: dict[str, Any] = {NEGEXP: lambda: negexp_epoch(setting.runtime)}
    if setting.runtime.bfloat16:
        contenders[float32] = lambda: negexp_epoch(replace(setting.runtime, bfloat16=False))
    contenders[plain] = plain_epoch
    seconds = in_turns(contenders, config.repeats, "epoch", config.progress).seconds
    model.load_state_dict(state)
    arguments = np.concatenate([pairs.point, pairs.counter])
    # embedding costs one forward pass over points and counters; training costs three, negatives included
    flops = setting.forward_flops(setting.tokens_of(arguments)) * (1 + 3 * 1.5)
    return PhaseResult(
        "epoch",
        f"{len(pairs)} pairs in batches of {config.trainer.batch_size}, decay at rate 0.8, one negative each; "
        "embed, index, sample, train",
        f"{NEGEXP}, {setting.runtime.describe()}",
        seconds[NEGEXP],
        rivals(seconds, {plain: 4.0}),
        flops / peak[setting.rate],
        f"{flops / 1e9:.0f} GFLOP of the layers (without attention) at {peak[setting.rate] / 1e9:.0f} GFLOP/s",
    )
