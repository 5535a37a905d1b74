"""Train the cross-encoder: a second stage of the run, after the bi-encoder's last epoch."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from negexp.config import MiningConfig, TrainConfig
from negexp.embedding import Embeddings
from negexp.errors import InputError
from negexp.evaluation import METRICS, Combination
from negexp.evaluation.evaluator import split_scorers
from negexp.evaluation.metrics import rank_metrics
from negexp.evaluation.second_stage import Ranked, Shortlist
from negexp.evaluation.weight import choose_weight, monitored_lists
from negexp.model import BiEncoder, BuiltModel, build_cross_encoder
from negexp.model.encoder_check import check_positions
from negexp.pair_tokens import PairCache, PairReader
from negexp.progress import progress_bar
from negexp.randomness import derive, generator
from negexp.sampling import SamplingRound
from negexp.sampling.mining.nearest import Nearest
from negexp.signals import check_stop
from negexp.tracking import RunFolder
from negexp.tracking.files import remove_folder, sha256
from negexp.tracking.listener import RerankerEpoch
from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.lists import TrainingLists
from negexp.training.loop import Experiment
from negexp.training.trainee import build_trainee

log = logging.getLogger("negexp")

PHASES = ("embed", "index", "mine", "train", "evaluate", "checkpoint")


class TrainedReranker(NamedTuple):
    """The cross-encoder of its best epoch, with the combination chosen for it, and the rows of reranker.csv."""

    reader: PairReader
    combination: Combination
    rows: list[dict[str, Any]]
    best_epoch: int

    def result(self) -> dict[str, Any]:
        """Return the entry of result.json.

        The evaluation after training scored `pairs_read` in `seconds_read`; with all weight on retrieval none.
        """
        seconds = {name: sum(row[name] for row in self.rows) for name in self.rows[0] if name.startswith("seconds_")}
        whole = sum(seconds.values())
        read = {f"{name}_read": value for name, value in vars(self.reader.reading).items()}
        return {"best_epoch": self.best_epoch, "epochs": len(self.rows), "seconds": whole, **seconds, **read}


@dataclass
class Progress:
    """The state between epochs, beside model and optimizer."""

    history: list[dict[str, Any]] = field(default_factory=list)  # rows of reranker.csv
    best_epoch: int = -1
    best_value: float = -math.inf


class Reranking:
    """The second stage of a run. Its first stage is finished, and its best epoch's weights are loaded."""

    def __init__(self, experiment: Experiment, built: BuiltModel, folder: RunFolder, keep: int) -> None:
        assert isinstance(experiment.config, TrainConfig)
        self.experiment, self.folder, self.config = experiment, folder, experiment.config
        self.settings, self.store = (
            self.config.reranker,
            CheckpointStore(folder.path, keep, folder.reranker.name, experiment.encoder.runtime.world),
        )
        self.trainer = self.settings.trainer(self.config.trainer)
        self.bi_encoder: BiEncoder = experiment.trainee.evaluated
        self.bi_encoder_digest = sha256(experiment.store.weights("best"))
        runtime = experiment.encoder.runtime
        model = build_cross_encoder(self.bi_encoder, self.config.model, self.config.seed)
        self.trainee = build_trainee(model, torch.nn.Identity(), self.trainer, runtime)
        texts, length, progress = experiment.corpus.texts, self.settings.max_length, self.config.tracker.progress
        self.reader = PairReader(model, texts, built.tokenizer, length, runtime, progress)
        self.progress = Progress()

    def run(self) -> TrainedReranker:
        """Train the remaining epochs; return the best one."""
        self.restore()
        for listener in self.experiment.listeners:
            listener.reranker_started(self.progress.history)
        self.experiment.clock.take(PHASES)  # what the first stage has left
        if len(self.progress.history) < self.settings.epochs:
            with self.experiment.clock("mine"):
                embeddings = self.experiment.embed("train", self.bi_encoder)
                validation = self.experiment.embed("validation", self.bi_encoder)
                lists = self.lists(embeddings)
            for epoch in range(len(self.progress.history), self.settings.epochs):
                loss = self.train(epoch, lists)
                scores, combination = self.evaluate(validation)
                self.commit(epoch, lists, {"loss": loss, **combination.columns()}, scores)
                check_stop(everywhere=True)
        load_weights(self.store.weights("best"), self.trainee.model)
        self.reader.reading.restart()
        best = self.progress.best_epoch
        chosen = Combination.of_row(self.progress.history[best])
        assert chosen is not None, "every row has it"
        return TrainedReranker(self.reader, chosen, self.progress.history, best)

    def restore(self) -> None:
        """Continue after the last commit, unless it belongs to other weights of the bi-encoder: then start again."""
        commit = self.store.newest()
        if commit is not None and commit.value("bi_encoder") != self.bi_encoder_digest:
            log.info("the bi-encoder has another best epoch now, so the cross-encoder is trained again")
            remove_folder(self.folder.reranker)
            commit = None
        if commit is not None:
            self.store.restore(commit, self.trainee)
            self.progress = Progress(*(commit.value(key) for key in vars(self.progress)))
            self.experiment.progress.earlier_seconds = commit.value("seconds")

    def lists(self, embeddings: Embeddings) -> TrainingLists:
        """Return the nearest allowed arguments of all training pairs in the trained bi-encoder's own space.

        They come from all that the evaluation ranks, whatever the strategy chose from.
        """
        refresher, settings, seed = self.experiment.refresher, self.settings, self.config.seed
        round_ = SamplingRound(
            refresher.arguments,
            refresher.forbidden,
            refresher.space(embeddings),
            generator(seed, 0, "re-ranker lists"),
            num_negatives=settings.depth,
            candidates="auto",
        )
        nearest = round_.mine(np.arange(refresher.arguments.pairs), Nearest(MiningConfig("nearest")))
        return TrainingLists(self.reader, refresher.arguments, nearest, settings.negatives, seed)

    def train(self, epoch: int, lists: TrainingLists) -> float:
        """Train on the list of every pair once, in an order drawn from (seed, epoch); return the mean loss."""
        seed, size, pairs = self.config.seed, self.settings.batch_size, lists.arguments.pairs
        order = generator(seed, epoch, "re-ranker batches").permutation(pairs)
        batches = np.array_split(order, range(size, pairs, size))
        rank = self.reader.runtime.world.rank
        torch.manual_seed(derive(seed, epoch, f"re-ranker dropout {rank}" if rank else "re-ranker dropout"))
        self.trainee.model.train()
        negatives, total, all_batches = lists.draw(epoch), 0.0, len(batches) * self.settings.epochs
        title = f"cross-encoder epoch {epoch}"
        with (
            self.experiment.clock("train"),
            progress_bar(len(batches), title, "batch", self.reader.progress) as bar,
        ):
            for number, batch in enumerate(batches, start=epoch * len(batches)):
                check_stop(everywhere=True)
                loss = lists.loss(batch, negatives)
                loss.backward()
                self.trainee.step(number / all_batches, (number + 1) / all_batches)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise InputError(
                        f"cross-encoder, epoch {epoch}: the loss is {value:g}; the last commit is intact. Lower "
                        f"reranker.lr={self.settings.lr:g}"
                    )
                total += value * len(batch)
                bar.update()
        return total / pairs

    def evaluate(self, validation: Embeddings) -> tuple[dict[str, float], Combination]:
        """Re-rank the validation queries of the monitored protocol and task, and choose the combination.

        Returns
        -------
        The metrics of both stages by column name, and the combination.
        """
        experiment, evaluation = self.experiment, self.config.evaluation
        split, monitor = experiment.corpus["validation"], experiment.monitor
        with experiment.clock("evaluate"):
            scorers = split_scorers(self.bi_encoder, validation, second_stage=False)
            cache = PairCache(self.reader)
            cache.prepare(lambda ask: monitored_lists(scorers._replace(classify=ask), split, monitor, evaluation))
            nearest = monitored_lists(scorers._replace(classify=cache), split, monitor, evaluation)
            combination = choose_weight(nearest, monitor.metric, evaluation.rerank_weight)
            ranked: dict[str, Shortlist | Ranked] = {"retrieval": nearest, "reranked": nearest.reranked(combination)}
        scores = {}
        for stage, one in ranked.items():
            values = rank_metrics(one.rank, one.ndcg)
            for metric in METRICS:
                scores[monitor._replace(stage=stage, metric=metric).column("validation")] = values[metric]
        return scores, combination

    def commit(self, epoch: int, lists: TrainingLists, row: dict[str, Any], scores: dict[str, float]) -> None:
        """Write the commit of the epoch, then notify the listeners."""
        progress, experiment = self.progress, self.experiment
        value = experiment.monitor._replace(stage="reranked").in_row(scores)
        if value > progress.best_value:
            progress.best_epoch, progress.best_value = epoch, value
        with experiment.clock("checkpoint"):
            temporary = self.store.begin(epoch, self.trainee, lists.draw(epoch))
        # the row is part of the commit, so the rest of the checkpoint phase counts for the next epoch
        row = {"epoch": epoch, **row, **experiment.clock.take(PHASES), **scores}
        progress.history.append(row)
        with experiment.clock("checkpoint"):
            seconds = experiment.progress.earlier_seconds + time.perf_counter() - experiment.started
            state = {**vars(progress), "bi_encoder": self.bi_encoder_digest, "seconds": seconds}
            self.store.finish(temporary, {"epoch": epoch, **state})
            for listener in experiment.listeners:
                listener.reranker_committed(RerankerEpoch(epoch, row, progress.history))


def check_cross_encoder(config: TrainConfig, built: BuiltModel) -> None:
    """Raise `InputError` when the encoder has too few positions for point and candidate together."""
    encoder: Any = built.model.tower("query").encoder
    check_positions(encoder, config.reranker.max_length, "reranker.max_length")


def reranker_commit(folder: RunFolder, bi_encoder: Commit) -> Commit:
    """Return the commit of a run's best cross-encoder, or raise `InputError` if it belongs to other weights."""
    commit = CheckpointStore(folder.path, 1, folder.reranker.name).commit("best")
    if commit.value("bi_encoder") != sha256(bi_encoder.weights):
        raise InputError(f"{commit.folder}: was trained after another epoch; let the same `negexp train` line finish")
    return commit
