"""The experiment: embed -> index -> sample -> train -> evaluate -> commit, every epoch."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from negexp.config import TrainConfig
from negexp.corpus import Corpus
from negexp.embedding import Embeddings, embed
from negexp.evaluation import summarise
from negexp.evaluation.evaluator import evaluate_split, sample_queries
from negexp.evaluation.metrics import Metrics, flatten
from negexp.evaluation.monitor import check_monitor
from negexp.index import NeighbourIndex, build_index
from negexp.model import BuiltModel, TripletCrossEntropy
from negexp.randomness import generator
from negexp.runtime import Runtime
from negexp.sampling import Forbidden, Negatives, NegativeSampler, SamplingRound, build_sampler
from negexp.signals import check_stop
from negexp.tokens import TokenTable, tokenize_corpus
from negexp.tracking import RunFolder, build_ledger, write_evaluation
from negexp.tracking.files import remove_file
from negexp.tracking.ledger import ledger_statistics, replaced_share
from negexp.tracking.run_folder import PHASES
from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.console import epoch_line
from negexp.training.origin import Origin
from negexp.training.profile import StepProfile, phase_table, profile_text
from negexp.training.steps import Trainee, build_trainee, train_epoch

log = logging.getLogger("negexp")


@dataclass
class Progress:
    """What the loop carries from epoch to epoch, beside model and optimizer."""

    COMMITTED: ClassVar = ("history", "best_epoch", "best_value", "untrained")

    history: list[dict[str, Any]] = field(default_factory=list)  # a row of metrics.csv for every committed epoch
    statistics: dict[str, float | None] = field(default_factory=dict)
    negatives: Negatives | None = None
    best_epoch: int = -1
    best_value: float = -math.inf
    untrained: dict[str, Metrics] = field(default_factory=dict)
    earlier_seconds: float = 0.0  # of the processes before this one, up to their last commits

    @classmethod
    def of(cls, commit: Commit, negatives: Negatives) -> Progress:
        """Return the progress that a commit's state holds."""
        committed = {key: commit.value(key) for key in cls.COMMITTED}
        return cls(negatives=negatives, earlier_seconds=commit.value("seconds"), **committed)

    def committed(self) -> dict[str, Any]:
        """Return what a commit's state has to hold."""
        return {key: getattr(self, key) for key in self.COMMITTED}


class PhaseClock:
    """Seconds by phase; work that a GPU still has in its queue belongs to the phase that put it there."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:  # noqa: D102 - the class says it
        start = time.perf_counter()
        yield
        self.runtime.synchronize()
        self.seconds[phase] += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """Return `seconds_<phase>` since the last call, and start anew."""
        taken = {f"seconds_{phase}": self.seconds[phase] for phase in PHASES}
        self.seconds.clear()
        return taken


class Experiment:
    """One run, with its phases as methods."""

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        tokens: TokenTable,
        trainee: Trainee,
        runtime: Runtime,
        folder: RunFolder,
    ) -> None:
        self.config, self.corpus, self.tokens, self.trainee = config, corpus, tokens, trainee
        self.runtime, self.folder, self.started = runtime, folder, time.perf_counter()
        self.train_split = train = corpus["train"]
        self.sampler: NegativeSampler = build_sampler(config.sampler)
        self.forbidden = Forbidden(train.point_identity, train.counter_identity, config.sampler.exclude)
        self.sampler.check_candidates(self.forbidden)
        self.train_queries = sample_queries(self.train_split, config.evaluation.train_queries, config.seed)
        self.criterion = TripletCrossEntropy(config.loss)
        self.store = CheckpointStore(folder.path, config.checkpoint.keep)
        self.clock = PhaseClock(runtime)
        self.progress = Progress()
        self.profiled = StepProfile(runtime) if config.trainer.profile else None
        check_monitor(config.trainer.monitor, corpus["validation"])

    def begin(self, built: BuiltModel, origin: Origin) -> None:
        """Make the run's folder; not before all checks, so that what was refused leaves no run behind."""
        self.folder.create(self.config, built.save)
        self.origin = origin.with_encoder(self.folder)

    def restore(self, commit: Commit, origin: Origin) -> None:
        """Stand where the run stood at a commit: all that the next epochs depend on, and the files up to there."""
        self.progress = Progress.of(commit, self.store.restore(commit, self.trainee))
        self.origin = origin
        remove_file(self.folder.result)  # a finished run that is given more epochs is unfinished again
        self.folder.save_config(self.config)
        self.folder.write_metrics(self.progress.history)

    def run(self) -> Progress:
        """Train the epochs that are left, or until validation has not improved for `trainer.patience` of them."""
        if not self.over():
            embeddings = self.embed("train")
        if not self.progress.history:
            # of test for the comparison with the best epoch only: nothing is chosen by it
            self.progress.untrained = summarise_all(self.evaluate(embeddings, ("validation", "test")))
            log.info(epoch_line({}, self.progress.untrained, self.config.trainer.monitor, self.clock.take()))
        while not self.over():
            epoch = len(self.progress.history)
            self.sample(epoch, embeddings)
            losses = self.train(epoch)
            embeddings = self.embed("train")  # of the model as it stands when the next epoch starts
            ranks = self.evaluate(embeddings)
            self.commit(epoch, losses, ranks)
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
            return embed(
                self.trainee.model,
                self.tokens,
                self.corpus[split].texts(),
                self.runtime,
                split,
                self.config.tracker.progress,
            )

    def sample(self, epoch: int, embeddings: Embeddings) -> None:
        """Choose the epoch's negatives from the embeddings, unless the last ones stay, and write the ledger."""
        query = embeddings.retrieval("query", self.train_split.point)
        point = embeddings.retrieval("candidate", self.train_split.point)
        counter = embeddings.retrieval("candidate", self.train_split.counter)
        previous = negatives = self.progress.negatives
        if negatives is None or self.sampler.refreshes(epoch):
            indexes = self.index({"point": point, "counter": counter}) if self.sampler.mines(epoch) else None
            with self.clock("sample"):
                rng = generator(self.config.seed, epoch, "negatives")
                k, candidates = self.config.sampler.num_negatives, self.config.sampler.candidates
                round_ = SamplingRound(epoch, k, candidates, self.forbidden, rng, indexes, query)
                negatives = self.sampler.sample(round_)
        with self.clock("sample"):
            sampled = self.sampler.sampled_epoch(epoch)
            ledger = build_ledger(self.train_split, negatives, query, point, counter, sampled)
            self.progress.negatives = negatives
            replaced = {"negatives_replaced": replaced_share(negatives, previous)}
            self.progress.statistics = ledger_statistics(ledger) | replaced
            if self.config.tracker.ledger:
                self.folder.write_ledger(epoch, ledger)

    def index(self, tables: dict[str, NDArray[np.float32]]) -> dict[str, NeighbourIndex]:
        """Build a neighbour index over each table's retrieval embeddings."""
        with self.clock("index"):
            return {
                source: build_index(vectors, self.config.index, self.runtime.device, self.runtime.threads)
                for source, vectors in tables.items()
            }

    def train(self, epoch: int) -> dict[str, float]:
        """Take the epoch's optimizer steps; return its losses."""
        assert self.progress.negatives is not None
        with self.clock("train"):
            return train_epoch(
                self.trainee,
                self.criterion,
                self.tokens,
                self.train_split,
                self.progress.negatives,
                self.config.trainer,
                self.runtime,
                self.config.seed,
                epoch,
                self.config.tracker.progress,
                self.profiled,
            )

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
        return evaluate_split(
            self.trainee.model,
            embeddings,
            self.corpus[split],
            self.train_split,
            self.config.evaluation,
            queries,
            self.config.tracker.progress,
        )

    def commit(self, epoch: int, losses: dict[str, float], ranks: dict[str, pd.DataFrame]) -> None:
        """Write the checkpoint with the epoch's row, then metrics.csv, and say so."""
        progress = self.progress
        scores = summarise_all(ranks)
        value = flatten(scores["validation"], "validation")[f"validation/{self.config.trainer.monitor}"]
        if value > progress.best_value:
            progress.best_epoch, progress.best_value = epoch, value
        assert progress.negatives is not None
        with self.clock("checkpoint"):
            temporary = self.store.begin(epoch, self.trainee, progress.negatives)
        seconds = self.clock.take()  # the row is part of the commit, so the rest of it counts with the next epoch
        sampled = self.sampler.sampled_epoch(epoch)
        row: dict[str, Any] = {"epoch": epoch, "random_rate": self.sampler.random_rate(sampled)}
        row |= {"sampled_epoch": sampled, **progress.statistics, **losses, **seconds}
        for split, metrics in scores.items():
            row |= flatten(metrics, split)
        progress.history.append(row)
        with self.clock("checkpoint"):
            so_far = progress.earlier_seconds + time.perf_counter() - self.started
            state = progress.committed() | self.origin.recorded() | {"seconds": so_far}
            self.store.finish(temporary, {"epoch": epoch, **state})
            self.folder.write_metrics(progress.history)
        log.info(epoch_line(row, scores, self.config.trainer.monitor, seconds))
        if self.profiled is not None:
            phases = phase_table(seconds, self.profiled)
            self.folder.write_profile(phases, self.profiled.operators)
            log.info(f"{profile_text(phases)}; operators in {self.folder.profile}")
            self.profiled = None  # one epoch is enough


def summarise_all(ranks: dict[str, pd.DataFrame]) -> dict[str, Metrics]:
    """Return the metrics of each split's ranks."""
    return {split: summarise(table) for split, table in ranks.items()}


def train(
    config: TrainConfig,
    corpus: Corpus,
    built: BuiltModel,
    runtime: Runtime,
    folder: RunFolder,
    origin: Origin,
    commit: Commit | None,
) -> tuple[Progress, dict[str, Metrics]]:
    """Run the experiment, from a commit where there is one, then evaluate validation and test with the best epoch.

    Returns
    -------
    What the loop ended with, and the metrics of both splits. The model holds the best epoch's weights.
    """
    trainee = build_trainee(built.model, config.trainer, runtime)
    tokens = tokenize_corpus(corpus, built.tokenizer, config.model.max_length)
    experiment = Experiment(config, corpus, tokens, trainee, runtime, folder)
    if commit is None:
        experiment.begin(built, origin)
    else:
        experiment.restore(commit, origin)
    progress = experiment.run()
    load_weights(experiment.store.weights("best"), trainee.model)
    scores = {}
    for split in ("validation", "test"):
        ranks = experiment.rank(split, experiment.embed(split))
        scores[split] = write_evaluation(folder.evaluation, split, ranks)
    return progress, scores
