"""Run negexp's own phases on a benchmark's setting, with the objects that a training run uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.bench.setting import Setting
from negexp.components import build
from negexp.components.parse import parse_component
from negexp.config import SamplerConfig
from negexp.corpus import Split
from negexp.index import NeighbourIndex
from negexp.randomness import generator
from negexp.runtime import Runtime
from negexp.sampling import Arguments, EmbeddingSpace, Forbidden, Negatives, NegativeSampler, SamplingRound
from negexp.training.batch import BatchBuilder
from negexp.training.checkpoint import CheckpointStore
from negexp.training.loop import Experiment
from negexp.training.steps import TrainingEpoch
from negexp.training.trainee import build_trainee

Ints = NDArray[np.int64]

SHARED_OPTIONS = tuple(one.name for one in fields(SamplerConfig) if one.name != "name")


def sampler_options(setting: Setting, name: str, **keys: Any) -> SamplerConfig:
    """Return the options of a strategy: shared options from the configured strategy, and the given keys."""
    configured = asdict(setting.config.sampler)
    values = {**{key: configured[key] for key in SHARED_OPTIONS}, "name": name, **keys}
    options = parse_component("sampler", values, "sampler")
    assert isinstance(options, SamplerConfig)
    return options


def index_of(setting: Setting, vectors: np.ndarray, backend: str | None = None) -> NeighbourIndex:
    """Build an index over vectors (arguments, dim): the configured index, or `backend` with the same settings."""
    config, runtime = setting.config.index, setting.runtime
    config = config if backend is None else replace(config, name=backend)
    index: NeighbourIndex = build("index", config, vectors=vectors, device=runtime.device, threads=runtime.threads)
    return index


def sample_negatives(
    setting: Setting,
    options: SamplerConfig,
    pairs: Split,
    query: NDArray[np.float32],
    tables: Mapping[str, NDArray[np.float32]],
    backend: str | None = None,
) -> Negatives:
    """Index each table of vectors (pairs, dim), and choose negatives for the points `query` (pairs, dim)."""
    arguments = Arguments(pairs)
    round_ = SamplingRound(
        arguments,
        Forbidden(arguments, options.exclude),
        EmbeddingSpace(query, dict(tables), lambda vectors: index_of(setting, vectors, backend)),
        generator(setting.config.seed, 0, "negatives"),
        num_negatives=options.num_negatives,
        candidates=options.candidates,
    )
    sampler: NegativeSampler = build("sampler", options)
    return sampler.sample(round_)


class TrainedEpoch(NamedTuple):
    """The mean loss of an epoch, and the negatives of its pairs."""

    loss: float
    negatives: Negatives


def run_epoch(setting: Setting, pairs: Split, options: SamplerConfig, runtime: Runtime) -> TrainedEpoch:
    """Embed, index, sample and train on some pairs. The model changes; no file is written."""
    config = replace(setting.config, sampler=options)
    corpus = replace(setting.corpus, splits={**setting.corpus.splits, "train": pairs})
    trainee = build_trainee(setting.built.model, build("loss", config.loss), config.trainer, runtime)
    encoder = replace(setting.encoder, runtime=runtime)
    experiment = Experiment(config, corpus, encoder, trainee, CheckpointStore(Path(), keep=1), [])
    losses, _ = experiment.train(0, experiment.embed("train"))
    assert experiment.progress.negatives is not None
    return TrainedEpoch(losses["loss"], experiment.progress.negatives)


def train_without_negatives(setting: Setting, pairs: Split, batches: Sequence[Ints]) -> float:
    """Train one epoch on the pairs of the given batches; wrong matches come from the batch. Return the mean loss."""
    config, arguments = setting.config, Arguments(pairs)
    trainee = build_trainee(setting.built.model, build("loss", config.loss), config.trainer, setting.runtime)
    builder = BatchBuilder(
        setting.encoder,
        pairs,
        arguments,
        Forbidden(arguments, ["self", "duplicates"]),
        trainee.loss.points_are_candidates,
    )
    epoch = TrainingEpoch(trainee, builder, config.trainer, batches, config.seed, 0)
    none = np.empty((len(pairs), 0), dtype=np.int64)
    epoch.train(Negatives(none, none), None, lambda number, losses: None)
    return epoch.means()["loss"]
