"""The experiment: embed -> index -> sample -> train -> evaluate -> commit, every epoch."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

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
from negexp.tokens import TokenTable, tokenize
from negexp.tracking import RunFolder, build_ledger, write_evaluation
from negexp.tracking.ledger import ledger_statistics
from negexp.tracking.run_folder import PHASES
from negexp.training.checkpoint import CheckpointStore
from negexp.training.console import epoch_line
from negexp.training.steps import Trainee, build_trainee, train_epoch

log = logging.getLogger("negexp")


@dataclass
class Progress:
    """What the loop carries from epoch to epoch, beside model and optimizer."""

    statistics: dict[str, float | None] = field(default_factory=dict)
    negatives: Negatives | None = None
    ledger: pd.DataFrame | None = None
    best_epoch: int = -1
    best_value: float = -math.inf
    best_validation: Metrics = field(default_factory=dict)
    untrained: dict[str, Metrics] = field(default_factory=dict)


class PhaseClock:
    """Seconds by phase; work that a GPU still has in its queue belongs to the phase that put it there."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
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
        self.runtime, self.folder = runtime, folder
        self.train_split = corpus["train"]
        self.sampler: NegativeSampler = build_sampler(config.sampler)
        self.forbidden = Forbidden(self.train_split.point, self.train_split.counter, config.sampler.exclude)
        self.sampler.check_candidates(self.forbidden)
        self.train_queries = sample_queries(self.train_split, config.evaluation.train_queries, config.seed)
        self.criterion = TripletCrossEntropy(config.loss)
        self.store = CheckpointStore(folder.checkpoints, config.tracker.keep_checkpoints)
        self.clock = PhaseClock(runtime)
        self.progress = Progress()
        check_monitor(config.trainer.monitor, corpus["validation"])

    def run(self) -> Progress:
        """Train all epochs, or until validation has not improved for `trainer.patience` of them."""
        embeddings = self.embed("train")
        self.progress.untrained = summarise_all(self.evaluate(embeddings))
        log.info(epoch_line({}, self.progress.untrained, self.config.trainer.monitor, self.clock.take()))
        for epoch in range(self.config.trainer.epochs):
            self.sample(epoch, embeddings)
            losses = self.train(epoch)
            embeddings = self.embed("train")  # of the model as it stands when the next epoch starts
            ranks = self.evaluate(embeddings)
            self.commit(epoch, losses, ranks)
            if self.out_of_patience(epoch):
                log.info(f"no better epoch for {self.config.trainer.patience}: stopped")
                break
        return self.progress

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
        if self.sampler.refreshes(epoch) or self.progress.negatives is None:
            indexes = self.index({"point": point, "counter": counter}) if self.sampler.mines(epoch) else None
            with self.clock("sample"):
                rng = generator(self.config.seed, epoch, "negatives")
                k, candidates = self.config.sampler.num_negatives, self.config.sampler.candidates
                round_ = SamplingRound(epoch, k, candidates, self.forbidden, rng, indexes, query)
                self.progress.negatives = self.sampler.sample(round_)
        with self.clock("sample"):
            ledger = build_ledger(self.train_split, self.progress.negatives, query, point, counter)
            self.progress.statistics = ledger_statistics(ledger, self.progress.ledger)
            self.progress.ledger = ledger
            if self.config.tracker.ledger:
                self.folder.write_ledger(epoch, ledger)

    def index(self, tables: dict[str, NDArray[np.float32]]) -> dict[str, NeighbourIndex]:
        """Build a neighbour index over each table's retrieval embeddings."""
        with self.clock("index"):
            return {
                source: build_index(vectors, self.config.index, self.runtime.device)
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
            )

    def evaluate(self, train_embeddings: Embeddings) -> dict[str, pd.DataFrame]:
        """Return the ranks on validation, and on the fixed sample of training queries."""
        validation_embeddings = self.embed("validation")
        with self.clock("evaluate"):
            ranks = {"validation": self.rank("validation", validation_embeddings)}
            if len(self.train_queries):
                ranks["train"] = self.rank("train", train_embeddings, self.train_queries)
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
        """Write the checkpoint, the validation ranks when they are the best yet, then the epoch's row and line."""
        scores = summarise_all(ranks)
        value = flatten(scores["validation"], "validation")[f"validation/{self.config.trainer.monitor}"]
        if value > self.progress.best_value:
            self.progress.best_epoch, self.progress.best_value = epoch, value
            self.progress.best_validation = write_evaluation(self.folder.evaluation, "validation", ranks["validation"])
        with self.clock("checkpoint"):
            assert self.progress.negatives is not None
            state = {
                "best_epoch": self.progress.best_epoch,
                "best_value": self.progress.best_value,
                "untrained": self.progress.untrained,
            }
            self.store.commit(epoch, self.progress.best_epoch, self.trainee, self.progress.negatives, state)
        row: dict[str, Any] = {"epoch": epoch, "random_rate": self.sampler.random_rate(epoch)}
        seconds = self.clock.take()
        row |= self.progress.statistics | losses | seconds
        self.folder.append_metrics(row, scores)
        log.info(epoch_line(row, scores, self.config.trainer.monitor, seconds))

    def out_of_patience(self, epoch: int) -> bool:
        """Return whether early stopping is on and due."""
        patience = self.config.trainer.patience
        return patience is not None and epoch - self.progress.best_epoch >= patience


def summarise_all(ranks: dict[str, pd.DataFrame]) -> dict[str, Metrics]:
    """Return the metrics of each split's ranks."""
    return {split: summarise(table) for split, table in ranks.items()}


def train(
    config: TrainConfig, corpus: Corpus, built: BuiltModel, runtime: Runtime, folder: RunFolder
) -> tuple[Progress, Metrics]:
    """Run the experiment, then evaluate test once, with the best epoch.

    Returns
    -------
    What the loop ended with, and the metrics on test. The model holds the best epoch's weights.
    """
    trainee = build_trainee(built.model, config.trainer, runtime)
    tokens = tokenize(corpus.texts, built.tokenizer, config.model.max_length)
    experiment = Experiment(config, corpus, tokens, trainee, runtime, folder)
    folder.create(config)  # not before all checks: what was refused leaves no run behind
    built.save(folder.encoder)
    progress = experiment.run()
    experiment.store.load_model("best", trainee.model)
    ranks = experiment.rank("test", experiment.embed("test"))
    return progress, write_evaluation(folder.evaluation, "test", ranks)
