"""A whole epoch beside a plainly written one."""

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
    """Embed, index, sample and train on some pairs, with the decaying sampler's first rate."""
    config = setting.config
    pairs = setting.train_pairs(config.epoch_pairs)
    sampler = sampler_options(setting, "decay", start_rate=0.8, step=0.02, end_rate=0.0)
    loss = config.loss
    if not isinstance(loss, TripletCrossEntropyOptions):
        raise InputError(f"loss={loss.name}: the plain epoch has loss=triplet_ce; leave the loss as it is")
    model = setting.built.model
    original, state = setting.plain_model(), copy.deepcopy(model.state_dict())

    def ours(runtime: Runtime) -> None:
        model.load_state_dict(state)
        run_epoch(setting, pairs, sampler, runtime)

    def plain() -> None:
        original.load_state_dict(state)
        PlainEpoch(setting, original, pairs, random_rate=0.8, margin=loss.margin).run()

    float32, theirs = "negexp in float32", "plain epoch: three passes, padded as it comes, float32"
    contenders: dict[str, Any] = {NEGEXP: lambda: ours(setting.runtime)}
    if setting.runtime.bfloat16:
        contenders[float32] = lambda: ours(replace(setting.runtime, bfloat16=False))
    contenders[theirs] = plain
    seconds = in_turns(contenders, config.repeats, "epoch", config.progress).seconds
    model.load_state_dict(state)
    arguments = np.concatenate([pairs.point, pairs.counter])
    # a pass to embed, and three times a forward pass to train on points, counters and about as many negatives
    flops = setting.forward_flops(setting.tokens_of(arguments)) * (1 + 3 * 1.5)
    return PhaseResult(
        "epoch",
        f"{len(pairs)} pairs in batches of {config.trainer.batch_size}, decay at rate 0.8, one negative each; "
        "embed, index, sample, train",
        f"{NEGEXP}, {setting.runtime.describe()}",
        seconds[NEGEXP],
        rivals(seconds, {theirs: 4.0}),
        flops / peak[setting.rate],
        f"{flops / 1e9:.0f} GFLOP in the layers' products at {peak[setting.rate] / 1e9:.0f} GFLOP/s; no attention",
    )
