"""The experiment: embed -> index -> sample -> train -> evaluate -> commit, every epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from negexp.components import build, flatten
from negexp.config import BenchConfig, TrainConfig
from negexp.corpus import Corpus
from negexp.embedding import Embeddings, TextEncoder
from negexp.evaluation import summarise
from negexp.evaluation.evaluator import evaluate_split, sample_queries, split_scorers
from negexp.evaluation.metrics import Metrics, metric_columns
from negexp.evaluation.monitor import Monitor
from negexp.index import NeighbourIndex
from negexp.model.loss import Loss
from negexp.randomness import generator
from negexp.sampling import Arguments, EmbeddingSpace, Forbidden, Negatives, NegativeSampler, SamplingRound
from negexp.signals import check_stop
from negexp.tracking.ledger import build_ledger, ledger_statistics, replaced_share
from negexp.tracking.listener import Epoch, Listener, Refresh, RunInfo
from negexp.tracking.run_folder import PHASES
from negexp.training.batch import BatchBuilder
from negexp.training.checkpoint import CheckpointStore, Commit
from negexp.training.clock import PhaseClock
from negexp.training.provenance import Provenance
from negexp.training.steps import Trainee, TrainingEpoch

log = logging.getLogger("negexp")

REFRESH_PHASES = ("embed", "index", "sample", "train")


@dataclass
class Progress:
    """The state of the loop between epochs, beside model and optimizer."""

    COMMITTED: ClassVar = ("history", "refreshes", "best_epoch", "best_value", "untrained")
    MISSING_IN_0_1: ClassVar[dict[str, Any]] = {"refreshes": []}  # defaults for commits of version 0.1

    history: list[dict[str, Any]] = field(default_factory=list)  # rows of metrics.csv, one per committed epoch
    refreshes: list[dict[str, Any]] = field(default_factory=list)  # rows of refreshes.csv, one per refresh
    negatives: Negatives | None = None
    best_epoch: int = -1
    best_value: float = -math.inf
    untrained: dict[str, Metrics] = field(default_factory=dict)
    earlier_seconds: float = 0.0  # of earlier processes, up to their last commits

    @classmethod
    def from_commit(cls, commit: Commit, negatives: Negatives) -> Progress:
        """Return the progress stored in a commit."""
        state = {**cls.MISSING_IN_0_1, **commit.state}
        committed = {key: state[key] if key in state else commit.value(key) for key in cls.COMMITTED}
        return cls(negatives=negatives, earlier_seconds=commit.value("seconds"), **committed)

    def committed(self) -> dict[str, Any]:
        """Return the entries for the state of a commit."""
        return {key: getattr(self, key) for key in self.COMMITTED}


class Experiment:
    """One run, with its phases as methods.

    The loop reports events to its listeners. Apart from checkpoints, it writes nothing itself.
    """

    def __init__(
        self,
        config: TrainConfig | BenchConfig,
        corpus: Corpus,
        encoder: TextEncoder,
        trainee: Trainee,
        store: CheckpointStore,
        listeners: Sequence[Listener],
    ) -> None:
        self.config, self.corpus, self.encoder, self.trainee = config, corpus, encoder, trainee
        self.store, self.listeners, self.started = store, listeners, time.perf_counter()
        self.train_split = train = corpus["train"]
        self.sampler: NegativeSampler = build("sampler", config.sampler)
        self.arguments = Arguments(train)
        self.forbidden = Forbidden(self.arguments, config.sampler.exclude)
        self.sampler.check_candidates(self.forbidden)
        self.train_queries = sample_queries(train, config.evaluation.train_queries, config.seed)
        self.loss: Loss = build("loss", config.loss)
        self.builder = BatchBuilder(encoder, train, self.arguments, self.forbidden, self.loss.points_are_candidates)
        self.clock = PhaseClock(encoder.runtime)
        self.progress = Progress()
        self.monitor = Monitor.parse(config.trainer.monitor, corpus["validation"])

    def begin(self, provenance: Provenance) -> None:
        """Start a new run."""
        self.provenance = provenance

    def restore(self, commit: Commit, provenance: Provenance) -> None:
        """Restore the state of the run at a commit: all that the next epochs depend on."""
        self.progress = Progress.from_commit(commit, self.store.restore(commit, self.trainee))
        self.provenance = provenance

    def run(self) -> Progress:
        """Train the remaining epochs, or until validation has not improved for `trainer.patience` epochs."""
        embeddings = None if self.finished() else self.embed("train")
        if embeddings is not None and not self.progress.history:
            # test is only for the comparison with the best epoch: no choice depends on it
            self.progress.untrained = summarise_all(self.evaluate(embeddings, ("validation", "test")))
        self.notify_started()
        while embeddings is not None and not self.finished():
            epoch = len(self.progress.history)
            losses, refreshes = self.train(epoch, embeddings)
            embeddings = self.embed("train")  # for the evaluation, and for the next epoch's refresh
            self.commit(epoch, losses, refreshes, self.evaluate(embeddings))
            check_stop()
        if len(self.progress.history) < self.config.trainer.epochs:
            log.info(f"no better epoch for {self.config.trainer.patience}: stopped")
        return self.progress

    def finished(self) -> bool:
        """Return whether all epochs are done, or early stopping ends the run."""
        done, patience = len(self.progress.history), self.config.trainer.patience
        waited = done - 1 - self.progress.best_epoch
        return done >= self.config.trainer.epochs or (done > 0 and patience is not None and waited >= patience)

    def embed(self, split: str) -> Embeddings:
        """Embed all arguments of a split."""
        with self.clock("embed"):
            return self.encoder.embed(self.corpus[split].texts(), split)

    def train(self, epoch: int, embeddings: Embeddings) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Train one epoch: refresh the negatives, train until the next refresh, and so on.

        Returns
        -------
        The mean losses, and a row of refreshes.csv for each refresh.
        """
        training = TrainingEpoch(self.trainee, self.loss, self.builder, self.config.trainer, self.config.seed, epoch)
        rows: list[dict[str, Any]] = []
        while not training.finished:
            if rows:
                embeddings = self.embed("train")
            row = self.refresh(epoch, training, embeddings)
            assert self.progress.negatives is not None
            with self.clock("train"):
                training.train(self.progress.negatives, self.config.sampler.refresh.steps, self.notify_step)
            rows.append({**row, **self.clock.take(REFRESH_PHASES)})
        for listener in self.listeners:
            listener.trained(epoch)
        return training.means(), rows

    def refresh(self, epoch: int, training: TrainingEpoch, embeddings: Embeddings) -> dict[str, Any]:
        """Sample negatives from the embeddings, unless the previous ones stay; return their statistics."""
        sampled = self.sampler.sampled_epoch(epoch)
        values = [self.monitor.in_row(row) for row in self.progress.history]
        progress = sampled + training.done / len(training.batches)
        previous = self.progress.negatives
        with self.clock("sample"):
            round_ = self.round(epoch, training.steps, embeddings).at(progress, values[:sampled])
            if previous is None or sampled == epoch:
                negatives = self.sampler.sample(round_)
            else:
                negatives = round_.measured(previous)
            self.progress.negatives = negatives
            ledger = build_ledger(self.arguments, negatives, round_.positive_distance, sampled)
            statistics = {
                "epoch": epoch,
                "step": training.steps,
                "random_rate": self.sampler.random_rate(progress, values[:sampled]),
                "sampled_epoch": sampled,
                **ledger_statistics(ledger),
                "missing_share": 1.0 - float(negatives.found.mean()),
                "negatives_replaced": replaced_share(negatives, previous),
                **self.sampler.statistics(),
            }
            for listener in self.listeners:
                listener.refreshed(Refresh(epoch, training.steps, statistics, ledger))
        return statistics

    def round(self, epoch: int, step: int, embeddings: Embeddings) -> SamplingRound:
        """Return the sampling round for these embeddings, with a generator derived from (seed, epoch, step)."""
        train, sampler = self.train_split, self.config.sampler
        candidate = {
            "point": embeddings.retrieval("candidate", train.point),
            "counter": embeddings.retrieval("candidate", train.counter),
        }
        space = EmbeddingSpace(embeddings.retrieval("query", train.point), candidate, self.index)
        rng = generator(self.config.seed, epoch, f"negatives {step}" if step else "negatives")
        return SamplingRound(
            self.arguments,
            self.forbidden,
            space,
            rng,
            num_negatives=sampler.num_negatives,
            candidates=sampler.candidates,
        )

    def index(self, vectors: np.ndarray) -> NeighbourIndex:
        """Build a neighbour index."""
        with self.clock("index"):
            runtime = self.encoder.runtime
            index: NeighbourIndex = build(
                "index", self.config.index, vectors=vectors, device=runtime.device, threads=runtime.threads
            )
            return index

    def evaluate(self, train: Embeddings, splits: Sequence[str] = ("validation",)) -> dict[str, pd.DataFrame]:
        """Return the ranks of the given splits, and of the fixed sample of training queries."""
        embeddings = {split: self.embed(split) for split in splits}
        with self.clock("evaluate"):
            ranks = {split: self.rank(split, vectors) for split, vectors in embeddings.items()}
            if len(self.train_queries):
                ranks["train"] = self.rank("train", train, self.train_queries)
        return ranks

    def rank(self, split: str, embeddings: Embeddings, queries: np.ndarray | None = None) -> pd.DataFrame:
        """Return the ranks of the queries of a split."""
        pairs = self.corpus[split]
        scorers = split_scorers(self.trainee.model, embeddings, pairs)
        return evaluate_split(scorers, pairs, self.train_split, self.config.evaluation, queries, self.encoder.progress)

    def commit(
        self,
        epoch: int,
        losses: dict[str, float],
        refreshes: list[dict[str, Any]],
        ranks: dict[str, pd.DataFrame],
    ) -> None:
        """Write the commit of the epoch, then notify the listeners."""
        progress = self.progress
        scores = summarise_all(ranks)
        value = self.monitor.value(scores["validation"])
        if value > progress.best_value:
            progress.best_epoch, progress.best_value = epoch, value
        assert progress.negatives is not None
        with self.clock("checkpoint"):
            temporary = self.store.begin(epoch, self.trainee, progress.negatives)
        # the row is part of the commit, so the rest of the checkpoint phase counts for the next epoch
        row = epoch_row(refreshes, losses, self.clock.take(PHASES))
        for split, metrics in scores.items():
            row |= metric_columns(metrics, split)
        progress.history.append(row)
        progress.refreshes += refreshes
        with self.clock("checkpoint"):
            seconds = progress.earlier_seconds + time.perf_counter() - self.started
            state = progress.committed() | self.provenance.recorded() | {"seconds": seconds}
            self.store.finish(temporary, {"epoch": epoch, **state})
            for listener in self.listeners:
                listener.committed(Epoch(epoch, row, progress.history, progress.refreshes, scores))

    def notify_started(self) -> None:
        """Notify the listeners that training starts or continues."""
        progress, seconds = self.progress, sum(self.clock.take(PHASES).values())
        config = flatten(asdict(self.config))
        run = RunInfo(self.store.run, config, progress.history, progress.refreshes, progress.untrained, seconds)
        for listener in self.listeners:
            listener.started(run)

    def notify_step(self, number: int, losses: dict[str, Any]) -> None:
        """Notify the listeners of a batch."""
        for listener in self.listeners:
            listener.step(number, losses)


def epoch_row(refreshes: list[dict[str, Any]], losses: dict[str, float], seconds: dict[str, float]) -> dict[str, Any]:
    """Return the row of an epoch: mean statistics of its refreshes, losses, and the sum of the seconds."""
    row: dict[str, Any] = {}
    for name in refreshes[0]:
        values = [refresh[name] for refresh in refreshes if refresh[name] is not None]
        if name in ("epoch", "sampled_epoch"):
            row[name] = values[0]
        elif name.startswith("seconds_"):
            seconds[name] += sum(values)
        elif name != "step":
            row[name] = float(np.mean(values)) if values else None
    return row | losses | seconds


def summarise_all(ranks: dict[str, pd.DataFrame]) -> dict[str, Metrics]:
    """Return the metrics of each split's ranks."""
    return {split: summarise(table) for split, table in ranks.items()}
