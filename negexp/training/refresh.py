"""What the embeddings decide: the negatives, by embeddings -> index -> sample -> ledger; the batches of an epoch.

Training and `negexp mine` refresh with the same `Refresher`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from negexp.components import build
from negexp.config import BenchConfig, MineConfig, TrainConfig
from negexp.corpus import Corpus
from negexp.embedding import Embeddings
from negexp.index import NeighbourIndex
from negexp.randomness import generator
from negexp.runtime import Runtime
from negexp.sampling import (
    Arguments,
    BatchPlan,
    BatchRound,
    EmbeddingSpace,
    Forbidden,
    Negatives,
    NegativeSampler,
    SamplingRound,
)
from negexp.sampling.lexical_source import mining_source
from negexp.sampling.rescored_source import RescoredSource, Scoring
from negexp.sampling.source import Index, means_by_name
from negexp.tracking.ledger import build_ledger, dropped_statistics, ledger_statistics, replaced_share
from negexp.training.clock import PhaseClock
from negexp.world import World

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]
Present = Callable[[], Embeddings]  # of the training texts by the model as it is, computed when first asked for


@dataclass(frozen=True)
class Moment:
    """When negatives are refreshed.

    step: optimizer steps of the epoch so far. share: share of the epoch's batches so far. validation: the monitored
    value of each finished epoch.
    """

    epoch: int
    step: int = 0
    share: float = 0.0
    validation: Sequence[float] = ()


class Refreshed(NamedTuple):
    """The negatives of all pairs, the row of refreshes.csv without seconds, and the ledger."""

    negatives: Negatives
    statistics: dict[str, Any]
    ledger: pd.DataFrame


class SharedIndex:
    """A neighbour index in which each process searches a share of the queries; all get all results."""

    def __init__(self, index: Index, world: World) -> None:
        self.index, self.world = index, world

    def search(self, queries: np.ndarray, k: int) -> tuple[NDArray[np.float64], Ints]:
        """Return what the index returns."""
        own = np.array(self.world.share(len(queries)), dtype=np.int64)
        shape, found = (len(queries), k), self.index.search(queries[own], k)
        whole = np.empty(shape), np.empty(shape, dtype=np.int64)
        for rows, part in zip(whole, found, strict=True):
            rows[own] = part
            self.world.fill(torch.from_numpy(rows), torch.from_numpy(own))
        return whole

    def statistics(self) -> dict[str, float]:
        """Return the means of what the processes know of their shares of the searches."""
        own = json.dumps(self.index.statistics()).encode()
        return means_by_name([json.loads(part) for part in self.world.gather_bytes(own)])


class Refresher:
    """The candidates of some pairs and the strategy, with `refresh`.

    rescored: scores of texts by a cross-encoder, which take the place of the similarities that mining policies compare;
    None for those of the source.
    """

    def __init__(
        self,
        config: TrainConfig | BenchConfig | MineConfig,
        corpus: Corpus,
        runtime: Runtime,
        clock: PhaseClock,
        split: str = "train",
    ) -> None:
        self.config, self.pairs, self.runtime, self.clock = config, corpus[split], runtime, clock
        self.sampler: NegativeSampler = build("sampler", config.sampler)
        self.arguments = Arguments(self.pairs)
        self.forbidden = Forbidden(self.arguments, config.sampler.exclude)
        self.sampler.check_candidates(self.forbidden)
        sampler = config.sampler
        self.source = mining_source(sampler, corpus.texts, self.arguments) if self.sampler.mines else None
        self.rescored: Scoring | None = None

    def refresh(self, moment: Moment, embeddings: Embeddings, previous: Negatives | None) -> Refreshed:
        """Sample negatives from the embeddings, unless the previous ones stay."""
        with self.clock("sample"):
            return self.sample(self.round(moment, embeddings), moment, previous)

    def sample(self, round_: SamplingRound, moment: Moment, previous: Negatives | None) -> Refreshed:
        """Sample negatives in a round, unless the previous ones stay."""
        sampler, sampled = self.sampler, self.sampler.sampled_epoch(moment.epoch)
        negatives = sampler.sample(round_) if previous is None or sampled == moment.epoch else round_.measured(previous)
        ledger = build_ledger(self.arguments, negatives, round_.space.positive_distance, sampled)
        statistics = {
            "epoch": moment.epoch,
            "step": moment.step,
            "random_rate": sampler.random_rate(round_.progress, round_.validation),
            "sampled_epoch": sampled,
            **ledger_statistics(ledger),
            **dropped_statistics(negatives),
            "missing_share": 1.0 - float(negatives.found.mean()),
            "negatives_replaced": replaced_share(negatives, previous),
            **sampler.statistics(),
            **round_.space.statistics(),
        }
        return Refreshed(negatives, statistics, ledger)

    def round(self, moment: Moment, embeddings: Embeddings) -> SamplingRound:
        """Return the sampling round for these embeddings, with a generator derived from (seed, epoch, step)."""
        options, step, sampled = self.config.sampler, moment.step, self.sampler.sampled_epoch(moment.epoch)
        rng = generator(self.config.seed, moment.epoch, f"negatives {step}" if step else "negatives")
        round_ = SamplingRound(
            self.arguments,
            self.forbidden,
            self.space(embeddings),
            rng,
            num_negatives=options.num_negatives,
            candidates=options.candidates,
        ).mining_from(self.source)
        if self.rescored is not None:
            round_.mining_from(RescoredSource(round_.source, self.arguments, self.rescored))
        return round_.at(sampled + moment.share, moment.validation[:sampled])

    def space(self, embeddings: Embeddings) -> EmbeddingSpace:
        """Return the retrieval embeddings of the pairs, with the indexes over them."""
        candidate = {
            "point": embeddings.retrieval("candidate", self.pairs.point),
            "counter": embeddings.retrieval("candidate", self.pairs.counter),
        }
        if self.pairs.collection is not None:
            candidate["document"] = embeddings.retrieval("candidate", self.pairs.collection.text)
        return EmbeddingSpace(embeddings.retrieval("query", self.pairs.point), candidate, self.index)

    def index(self, vectors: np.ndarray) -> Index:
        """Build a neighbour index."""
        with self.clock("index"):
            device, threads = self.runtime.device, self.runtime.threads
            index: NeighbourIndex = build("index", self.config.index, vectors=vectors, device=device, threads=threads)
            return index if self.runtime.world.size == 1 else SharedIndex(index, self.runtime.world)


class EpochBatches:
    """The batches of each epoch, by the batch plan."""

    def __init__(self, config: TrainConfig | BenchConfig, refresher: Refresher) -> None:
        self.config, self.refresher = config, refresher
        self.plan: BatchPlan = build("batch", config.batch)
        self.plan.check_corpus(refresher.arguments)

    def of(self, epoch: int, embeddings: Present) -> list[Ints]:
        """Return the batches of an epoch, from the embeddings at its start and draws derived from (seed, epoch)."""
        refresher = self.refresher
        with refresher.clock("sample"):
            rng, size = generator(self.config.seed, epoch, "batches"), self.config.trainer.batch_size
            space = partial(self._space, embeddings)
            return self.plan.batches(BatchRound(refresher.arguments, space, size, rng))

    def _space(self, embeddings: Present) -> EmbeddingSpace:
        return self.refresher.space(embeddings())
