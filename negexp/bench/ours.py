"""negexp's own phases, put together as the training loop does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from negexp.bench.setting import Setting
from negexp.config import SamplerConfig
from negexp.corpus import Split
from negexp.embedding import embed
from negexp.index import NeighbourIndex, build_index
from negexp.model import TripletCrossEntropy
from negexp.randomness import generator
from negexp.runtime import Runtime
from negexp.sampling import Forbidden, Negatives, SamplingRound, build_sampler
from negexp.training.steps import build_trainee, train_epoch


def index_of(setting: Setting, vectors: np.ndarray, backend: str | None = None) -> NeighbourIndex:
    """Build an index over vectors (arguments, dim): the configured one, or another `backend` with its settings."""
    config = setting.config.index
    config = config if backend is None else replace(config, name=backend)
    return build_index(vectors, config, setting.runtime.device, setting.runtime.threads)


def sample_negatives(
    setting: Setting,
    sampler: SamplerConfig,
    pairs: Split,
    query: NDArray[np.float32],
    tables: Mapping[str, NDArray[np.float32]],
    backend: str | None = None,
) -> Negatives:
    """Index each table's vectors (pairs, dim), and choose the negatives of the points' vectors `query` (pairs, dim)."""
    forbidden = Forbidden(pairs.point_identity, pairs.counter_identity, sampler.exclude)
    indexes = {source: index_of(setting, vectors, backend) for source, vectors in tables.items()}
    rng = generator(setting.config.seed, 0, "negatives")
    round_ = SamplingRound(0, sampler.num_negatives, sampler.candidates, forbidden, rng, indexes, query)
    return build_sampler(sampler).sample(round_)


def run_epoch(setting: Setting, pairs: Split, sampler: SamplerConfig, runtime: Runtime) -> None:
    """Embed, index, sample and train on some pairs; the model is trained."""
    config, model = setting.config, setting.built.model
    embeddings = embed(model, setting.tokens, pairs.texts(), runtime, "train", "never")
    tables = {
        source: embeddings.retrieval("candidate", texts)
        for source, texts in (("point", pairs.point), ("counter", pairs.counter))
    }
    negatives = sample_negatives(setting, sampler, pairs, embeddings.retrieval("query", pairs.point), tables)
    trainee, criterion = build_trainee(model, config.trainer, runtime), TripletCrossEntropy(config.loss)
    seed = config.seed
    train_epoch(trainee, criterion, setting.tokens, pairs, negatives, config.trainer, runtime, seed, 0, "never")
