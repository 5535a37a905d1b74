"""The experiment: embed -> index -> sample -> train -> evaluate -> commit, every epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from negexp.components import flatten
from negexp.config import BenchConfig, EvaluationConfig, TrainConfig
from negexp.corpus import Corpus
from negexp.embedding import Embeddings, TextEncoder
from negexp.evaluation import Combination, StageScorers, summarise
from negexp.evaluation.evaluator import cross_scorers, evaluate_split, sample_queries, split_scorers
from negexp.evaluation.metrics import Metrics, metric_columns
from negexp.evaluation.monitor import Monitor
from negexp.evaluation.weight import choose_combination
from negexp.model import BiEncoder
from negexp.pair_tokens import PairReader
from negexp.sampling import Negatives, batch_statistics
from negexp.signals import check_stop
from negexp.tracking.listener import Epoch, Listener, Refresh, RunInfo
from negexp.tracking.run_folder import PHASES
from negexp.training.batch import BatchBuilder
from negexp.training.checkpoint import CheckpointStore, Commit
from negexp.training.clock import PhaseClock
from negexp.training.drift import Drift
from negexp.training.provenance import Provenance
from negexp.training.refresh import EpochBatches, Moment, Present, Refresher
from negexp.training.sharing import shared_ranks
from negexp.training.steps import TrainingEpoch
from negexp.training.trainee import BiEncoderTrainee

if TYPE_CHECKING:
    import pandas as pd

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
        trainee: BiEncoderTrainee,
        store: CheckpointStore,
        listeners: Sequence[Listener],
    ) -> None:
        self.config, self.corpus, self.encoder, self.trainee = config, corpus, encoder, trainee
        self.store, self.listeners, self.started = store, listeners, time.perf_counter()
        self.train_split = train = corpus["train"]
        self.clock = PhaseClock(encoder.runtime)
        self.refresher = Refresher(config, corpus, encoder.runtime, self.clock)
        self.batches = EpochBatches(config, self.refresher)
        limit = config.sampler.refresh.drift
        self.drift = None if limit is None else Drift(limit, train, encoder, config.seed)
        arguments, forbidden = self.refresher.arguments, self.refresher.forbidden
        points = trainee.loss.points_are_candidates
        self.builder = BatchBuilder(encoder, train, arguments, forbidden, points, config.trainer.chunk_pairs)
        self.train_queries = sample_queries(train, config.evaluation.train_queries, config.seed)
        self.progress = Progress()
        self.combination: Combination | None = None  # of the second stage, if there is one
        self.cross: PairReader | None = None  # the trained cross-encoder, with `model.reranker=cross`
        self.monitor = Monitor.parse(config.trainer.monitor, corpus["validation"])

    def begin(self, provenance: Provenance) -> None:
        """Start a new run."""
        self.provenance = provenance

    def restore(self, commit: Commit, provenance: Provenance) -> None:
        """Restore the state of the run at a commit: all that the next epochs depend on."""
        self.progress = Progress.from_commit(commit, self.store.restore(commit, self.trainee))
        self.provenance = provenance
        if self.drift is not None:
            self.drift.then = self.store.drift(commit)

    def run(self) -> Progress:
        """Train the remaining epochs, or until validation has not improved for `trainer.patience` epochs."""
        embeddings = self.present()
        if not self.progress.history:
            # test is only for the comparison with the best epoch: no choice depends on it
            self.progress.untrained = summarise_all(self.evaluate(embeddings, ("validation", "test")))
        self.notify_started()
        while not self.finished():
            epoch = len(self.progress.history)
            losses, refreshes = self.train(epoch, embeddings)
            embeddings = self.present()  # for the sample of training queries, and for the next epoch
            self.commit(epoch, losses, refreshes, self.evaluate(embeddings))
            check_stop(everywhere=True)
        if len(self.progress.history) < self.config.trainer.epochs:
            log.info(f"no better epoch for {self.config.trainer.patience}: stopped")
        return self.progress

    def finished(self) -> bool:
        """Return whether all epochs are done, or early stopping ends the run."""
        done, patience = len(self.progress.history), self.config.trainer.patience
        waited = done - 1 - self.progress.best_epoch
        return done >= self.config.trainer.epochs or (done > 0 and patience is not None and waited >= patience)

    def embed(self, split: str, model: BiEncoder | None = None) -> Embeddings:
        """Embed all arguments of a split with the model that is trained, or with the given one."""
        encoder = self.encoder if model is None else replace(self.encoder, model=model)
        with self.clock("embed"):
            return encoder.embed(self.corpus[split].texts(), split, self.corpus[split].point)

    def present(self) -> Present:
        """Return a function that returns the embeddings of the training texts by the model as it is at the first call.

        Where nothing asks for them before the model is trained on, they are not computed.
        """
        return cache(lambda: self.embed("train"))

    def train(self, epoch: int, embeddings: Present) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Train one epoch: refresh the negatives, train until the next refresh, and so on.

        Returns
        -------
        The mean losses and the statistics of the batches, and a row of refreshes.csv for each refresh.
        """
        batches = self.batches.of(epoch, embeddings)
        training = TrainingEpoch(self.trainee, self.builder, self.config.trainer, batches, self.config.seed, epoch)
        training.validation = [self.monitor.in_row(row) for row in self.progress.history]
        rows: list[dict[str, Any]] = []
        while not training.finished:
            if rows:
                embeddings = self.present()
            moment = Moment(epoch, training.steps, training.share, training.validation)
            row = self.refresh(moment, embeddings, rows or self.progress.refreshes)
            assert self.progress.negatives is not None
            with self.clock("train"):
                training.train(self.progress.negatives, self.config.sampler.refresh.steps, self.notify_step)
            rows.append({**row, **self.clock.take(REFRESH_PHASES)})
        for listener in self.listeners:
            listener.trained(epoch)
        return training.means() | batch_statistics(batches, self.refresher.arguments), rows

    def refresh(self, moment: Moment, embeddings: Present, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Sample negatives from the embeddings, unless the previous ones stay; return their statistics.

        `rows` holds those of earlier refreshes. Where drift keeps the negatives, the last row is repeated.
        """
        with self.clock("embed"):
            moved = {} if self.drift is None else self.drift.check(self.refresher.sampler.refreshes(moment.epoch))
        if moved.get("refreshed") == 0:
            return rows[-1] | {"epoch": moment.epoch, "step": moment.step, "negatives_replaced": 0.0} | moved
        negatives, statistics, ledger = self.refresher.refresh(moment, embeddings(), self.progress.negatives)
        self.progress.negatives = negatives
        statistics |= moved
        with self.clock("sample"):
            for listener in self.listeners:
                listener.refreshed(Refresh(moment.epoch, moment.step, statistics, ledger))
        return statistics

    def evaluate(self, train: Present, splits: Sequence[str] = ("validation",)) -> dict[str, pd.DataFrame]:
        """Return the ranks of the given splits, and of the fixed sample of training queries.

        `train` returns the training split's embeddings by the model that is trained.
        """
        model = self.trainee.evaluated
        embeddings = {split: self.embed(split, model) for split in splits}
        if len(self.train_queries):
            as_trained = model is self.trainee.model
            embeddings["train"] = train() if as_trained else self.embed("train", model)
        queries = {"train": self.train_queries}
        with self.clock("evaluate"):
            scorers = self.scorers("validation", embeddings["validation"])
            self.combination = choose_combination(scorers, self.corpus["validation"], self.monitor, self.evaluation())
            return {split: self.rank(split, vectors, queries.get(split)) for split, vectors in embeddings.items()}

    def evaluation(self) -> EvaluationConfig:
        """Return the keys of the evaluation; an untrained classifier gets no say, unless a weight is given."""
        evaluation = self.config.evaluation
        trained = self.trainee.rate.steps > 0 and self.config.loss.trains_classifier()
        if evaluation.rerank_weight is None and not trained:
            return replace(evaluation, rerank_weight=1.0)
        return evaluation

    def rank(self, split: str, embeddings: Embeddings, queries: np.ndarray | None = None) -> pd.DataFrame:
        """Return the ranks of the queries of a split; each process ranks a share of them."""
        scorers, progress, pairs = self.scorers(split, embeddings), self.encoder.progress, self.corpus[split]

        def rank(rows: np.ndarray) -> pd.DataFrame:
            return evaluate_split(scorers, pairs, self.train_split, self.config.evaluation, rows, progress)

        queries = np.arange(len(pairs)) if queries is None else queries
        return shared_ranks(rank, queries, pairs.ids, self.encoder.runtime.world)

    def scorers(self, split: str, embeddings: Embeddings) -> StageScorers:
        """Return the scorers of a split, with the combination in force."""
        pairs, second_stage = self.corpus[split], self.config.model.reranker == "pair"
        scorers = split_scorers(self.trainee.evaluated, embeddings, second_stage)
        if self.combination is not None:
            scorers = scorers._replace(combination=self.combination)
        return scorers if self.cross is None else cross_scorers(scorers, self.cross, pairs, self.config.evaluation)

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
            drift = None if self.drift is None else self.drift.then
            temporary = self.store.begin(epoch, self.trainee, progress.negatives, drift)
        # the row is part of the commit, so the rest of the checkpoint phase counts for the next epoch
        row = epoch_row(refreshes, losses, self.clock.take(PHASES))
        row |= {} if self.combination is None else self.combination.columns()
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
    for name in dict.fromkeys(name for refresh in refreshes for name in refresh):
        values = [refresh[name] for refresh in refreshes if refresh.get(name) is not None]
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
