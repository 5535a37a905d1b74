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
    """What the loop carries from epoch to epoch, beside model and optimizer."""

    COMMITTED: ClassVar = ("history", "refreshes", "best_epoch", "best_value", "untrained")
    LATER: ClassVar[dict[str, Any]] = {"refreshes": []}  # not in the commits of version 0.1

    history: list[dict[str, Any]] = field(default_factory=list)  # a row of metrics.csv for every committed epoch
    refreshes: list[dict[str, Any]] = field(default_factory=list)  # a row of refreshes.csv for each of their refreshes
    negatives: Negatives | None = None
    best_epoch: int = -1
    best_value: float = -math.inf
    untrained: dict[str, Metrics] = field(default_factory=dict)
    earlier_seconds: float = 0.0  # of the processes before this one, up to their last commits

    @classmethod
    def of(cls, commit: Commit, negatives: Negatives) -> Progress:
        """Return the progress that a commit's state holds."""
        state = {**cls.LATER, **commit.state}
        committed = {key: state[key] if key in state else commit.value(key) for key in cls.COMMITTED}
        return cls(negatives=negatives, earlier_seconds=commit.value("seconds"), **committed)

    def committed(self) -> dict[str, Any]:
        """Return what a commit's state has to hold."""
        return {key: getattr(self, key) for key in self.COMMITTED}


class Experiment:
    """One run, with its phases as methods.

    listeners hear what happens; the loop itself knows neither files nor the console.
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

    def begin(self, origin: Provenance) -> None:
        """Stand at the beginning."""
        self.origin = origin

    def restore(self, commit: Commit, origin: Provenance) -> None:
        """Stand where the run stood at a commit: all that the next epochs depend on."""
        self.progress, self.origin = Progress.of(commit, self.store.restore(commit, self.trainee)), origin

    def run(self) -> Progress:
        """Train the epochs that are left, or until validation has not improved for `trainer.patience` of them."""
        embeddings = None if self.over() else self.embed("train")
        if embeddings is not None and not self.progress.history:
            # of test for the comparison with the best epoch only: nothing is chosen by it
            self.progress.untrained = summarise_all(self.evaluate(embeddings, ("validation", "test")))
        self.tell_started()
        while embeddings is not None and not self.over():
            epoch = len(self.progress.history)
            losses, refreshes = self.train(epoch, embeddings)
            embeddings = self.embed("train")  # of the model as it stands when the next epoch starts
            self.commit(epoch, losses, refreshes, self.evaluate(embeddings))
            check_stop()
        if len(self.progress.history) < self.config.trainer.epochs:
            log.info(f"no better epoch for {self.config.trainer.patience}: stopped")
        return self.progress

    def over(self) -> bool:
        """Return whether all epochs are done, or early stopping is on and due."""
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
        steps = TrainingEpoch(self.trainee, self.loss, self.builder, self.config.trainer, self.config.seed, epoch)
        rows: list[dict[str, Any]] = []
        while not steps.over:
            if rows:
                embeddings = self.embed("train")
            row = self.refresh(epoch, steps, embeddings)
            assert self.progress.negatives is not None
            with self.clock("train"):
                steps.train(self.progress.negatives, self.config.sampler.refresh.steps, self.tell_step)
            rows.append({**row, **self.clock.take(REFRESH_PHASES)})
        for listener in self.listeners:
            listener.trained(epoch)
        return steps.means(), rows

    def refresh(self, epoch: int, steps: TrainingEpoch, embeddings: Embeddings) -> dict[str, Any]:
        """Sample negatives from the embeddings, unless the last ones stay; return their statistics."""
        sampled = self.sampler.sampled_epoch(epoch)
        values = [self.monitor.in_row(row) for row in self.progress.history]
        progress = sampled + steps.done / len(steps.batches)
        previous = self.progress.negatives
        with self.clock("sample"):
            round_ = self.round(epoch, steps.steps, embeddings).at(progress, values[:sampled])
            if previous is None or sampled == epoch:
                negatives = self.sampler.sample(round_)
            else:
                negatives = round_.measured(previous)
            self.progress.negatives = negatives
            ledger = build_ledger(self.arguments, negatives, round_.positive_distance, sampled)
            statistics = {
                "epoch": epoch,
                "step": steps.steps,
                "random_rate": self.sampler.random_rate(progress, values[:sampled]),
                "sampled_epoch": sampled,
                **ledger_statistics(ledger),
                "negatives_replaced": replaced_share(negatives, previous),
                **self.sampler.statistics(),
            }
            for listener in self.listeners:
                listener.refreshed(Refresh(epoch, steps.steps, statistics, ledger))
        return statistics

    def round(self, epoch: int, step: int, embeddings: Embeddings) -> SamplingRound:
        """Return what the strategy sees of the embeddings; the generator is of (seed, epoch, step)."""
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
        """Return the ranks on the given splits, and on the fixed sample of training queries."""
        embeddings = {split: self.embed(split) for split in splits}
        with self.clock("evaluate"):
            ranks = {split: self.rank(split, vectors) for split, vectors in embeddings.items()}
            if len(self.train_queries):
                ranks["train"] = self.rank("train", train, self.train_queries)
        return ranks

    def rank(self, split: str, embeddings: Embeddings, queries: np.ndarray | None = None) -> pd.DataFrame:
        """Return per-query ranks on a split."""
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
        """Write the checkpoint with the epoch's rows, then tell the listeners."""
        progress = self.progress
        scores = summarise_all(ranks)
        value = self.monitor.value(scores["validation"])
        if value > progress.best_value:
            progress.best_epoch, progress.best_value = epoch, value
        assert progress.negatives is not None
        with self.clock("checkpoint"):
            temporary = self.store.begin(epoch, self.trainee, progress.negatives)
        # the row is part of the commit, so what is left of the commit counts with the next epoch
        row = epoch_row(refreshes, losses, self.clock.take(PHASES))
        for split, metrics in scores.items():
            row |= metric_columns(metrics, split)
        progress.history.append(row)
        progress.refreshes += refreshes
        with self.clock("checkpoint"):
            so_far = progress.earlier_seconds + time.perf_counter() - self.started
            state = progress.committed() | self.origin.recorded() | {"seconds": so_far}
            self.store.finish(temporary, {"epoch": epoch, **state})
            for listener in self.listeners:
                listener.committed(Epoch(epoch, row, progress.history, progress.refreshes, scores))

    def tell_started(self) -> None:
        """Tell the listeners that training starts, or goes on."""
        progress, seconds = self.progress, sum(self.clock.take(PHASES).values())
        config = flatten(asdict(self.config))
        run = RunInfo(self.store.run, config, progress.history, progress.refreshes, progress.untrained, seconds)
        for listener in self.listeners:
            listener.started(run)

    def tell_step(self, number: int, losses: dict[str, Any]) -> None:
        """Tell the listeners of a batch."""
        for listener in self.listeners:
            listener.step(number, losses)


def epoch_row(refreshes: list[dict[str, Any]], losses: dict[str, float], seconds: dict[str, float]) -> dict[str, Any]:
    """Return an epoch's row: the mean statistics of its refreshes, its losses, the sum of its seconds."""
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
