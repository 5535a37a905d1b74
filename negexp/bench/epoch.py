"""A whole epoch beside a plainly written one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from negexp.bench.plain import PlainEpoch
from negexp.bench.setting import Setting
from negexp.bench.timing import OURS, Comparison, in_turns, rivals
from negexp.config import SamplerConfig
from negexp.corpus import Split
from negexp.embedding import embed
from negexp.index import build_index
from negexp.model import BiEncoder, TripletCrossEntropy
from negexp.randomness import generator
from negexp.runtime import Runtime
from negexp.sampling import Forbidden, SamplingRound, build_sampler
from negexp.training.steps import build_trainee, train_epoch


def compare_epoch(setting: Setting, peak: dict[str, float]) -> Comparison:
    """Embed, index, sample and train on some pairs, with the decaying sampler's first rate."""
    config = setting.config
    pairs = setting.train_pairs(config.epoch_pairs)
    sampler = replace(config.sampler, name="decay", start_rate=0.8, step=0.02, end_rate=0.0)
    state = copy.deepcopy(setting.built.model.state_dict())
    model = setting.built.model

    def ours(runtime: Runtime) -> None:
        model.load_state_dict(state)
        our_epoch(setting, model, pairs, sampler, runtime)

    def plain() -> None:
        model.load_state_dict(state)
        PlainEpoch(setting, model, pairs, random_rate=0.8).run()

    float32, theirs = "negexp in float32", "plain epoch: three passes, padded as it comes, float32"
    contenders: dict[str, Any] = {OURS: lambda: ours(setting.runtime)}
    if setting.runtime.bfloat16:
        contenders[float32] = lambda: ours(replace(setting.runtime, bfloat16=False))
    contenders[theirs] = plain
    seconds = in_turns(contenders, config.repeats)
    model.load_state_dict(state)
    arguments = np.concatenate([pairs.point, pairs.counter])
    # a pass to embed, and three times a forward pass to train on points, counters and about as many negatives
    flops = setting.forward_flops(setting.tokens_of(arguments)) * (1 + 3 * 1.5)
    return Comparison(
        "epoch",
        f"{len(pairs)} pairs in batches of {config.trainer.batch_size}, decay at rate 0.8, one negative each; "
        "embed, index, sample, train",
        f"{OURS}, {setting.runtime.describe()}",
        seconds[OURS],
        rivals(seconds, {theirs: 4.0}),
        flops / peak[setting.rate],
        f"{flops / 1e9:.0f} GFLOP in the layers' products at {peak[setting.rate] / 1e9:.0f} GFLOP/s; no attention",
    )


def our_epoch(setting: Setting, model: BiEncoder, pairs: Split, sampler: SamplerConfig, runtime: Runtime) -> None:
    """Run negexp's own phases over some pairs."""
    config = setting.config
    embeddings = embed(model, setting.tokens, pairs.texts(), runtime, "train", "never")
    query = embeddings.retrieval("query", pairs.point)
    tables = {"point": pairs.point, "counter": pairs.counter}
    indexes = {
        name: build_index(embeddings.retrieval("candidate", texts), config.index, runtime.device, runtime.threads)
        for name, texts in tables.items()
    }
    forbidden = Forbidden(pairs.point, pairs.counter, sampler.exclude)
    rng = generator(config.seed, 0, "negatives")
    round_ = SamplingRound(0, sampler.num_negatives, sampler.candidates, forbidden, rng, indexes, query)
    negatives = build_sampler(sampler).sample(round_)
    trainee, criterion = build_trainee(model, config.trainer, runtime), TripletCrossEntropy(config.loss)
    seed = config.seed
    train_epoch(trainee, criterion, setting.tokens, pairs, negatives, config.trainer, runtime, seed, 0, "never")
