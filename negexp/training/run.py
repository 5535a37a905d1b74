"""Train as configured in a run folder, then evaluate the best epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from negexp.components import build
from negexp.config import TrainConfig
from negexp.corpus import Corpus
from negexp.embedding import TextEncoder
from negexp.evaluation import Combination
from negexp.evaluation.metrics import Metrics, summarise
from negexp.evaluation.monitor import Monitor
from negexp.model import BuiltModel
from negexp.runtime import Runtime
from negexp.tokens import tokenize_corpus
from negexp.tracking import RunFolder, write_evaluation
from negexp.tracking.files import remove_file
from negexp.tracking.guarded import build_trackers
from negexp.tracking.listener import Listener
from negexp.tracking.recorder import Recorder
from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.console import Console
from negexp.training.loop import Experiment, Progress
from negexp.training.profile import ProfileListener
from negexp.training.provenance import Provenance
from negexp.training.reranking import Reranking, TrainedReranker, check_cross_encoder
from negexp.training.trainee import build_trainee


@dataclass(frozen=True)
class StartingPoint:
    """Where a run starts: its folder, its provenance, and the commit to continue from (None for a new run)."""

    folder: RunFolder
    provenance: Provenance
    commit: Commit | None


@dataclass(frozen=True)
class TrainingResult:
    """The final progress of the loop, the metrics of validation and test with the best epoch, and the listeners.

    combination: how re-ranking combined its scores, chosen with the best epoch; None without a second stage. reranker:
    the cross-encoder, with `model.reranker=cross`.
    """

    progress: Progress
    scores: dict[str, Metrics]
    combination: Combination | None
    reranker: TrainedReranker | None
    listeners: Sequence[Listener]


def train(
    config: TrainConfig, corpus: Corpus, built: BuiltModel, runtime: Runtime, start: StartingPoint
) -> TrainingResult:
    """Train, from a commit if there is one, then evaluate the best epoch on validation and test.

    Afterwards, the model holds the weights of the best epoch.
    """
    folder = start.folder
    if config.model.reranker == "cross":
        check_cross_encoder(config, built)
    trainee = build_trainee(built.model, build("loss", config.loss), config.trainer, runtime)
    tokens = tokenize_corpus(corpus, built.tokenizer, config.model.max_length)
    encoder = TextEncoder(trainee.model, tokens, runtime, config.tracker.progress)
    world = runtime.world
    store = CheckpointStore(folder.path, config.checkpoint.keep, world=world)
    listeners = world.together(lambda: _listeners(config, runtime, folder) if world.main else [])
    experiment = Experiment(config, corpus, encoder, trainee, store, listeners)
    if start.commit is None:  # after all checks, so that a refused run leaves no files
        world.on_main(lambda: folder.create(config, built.save))
        experiment.begin(start.provenance.with_encoder(folder) if world.main else start.provenance)
    else:
        experiment.restore(start.commit, start.provenance)
        if world.main:
            remove_file(folder.result)  # a finished run with more epochs to train is unfinished again
            folder.save_config(config)
    with _stop_told(listeners):
        progress = experiment.run()
        load_weights(store.weights("best"), trainee.evaluated)
        experiment.combination = Combination.of_row(progress.history[progress.best_epoch])
        reranker = None
        if config.model.reranker == "cross":
            reranker = Reranking(experiment, built, folder, config.checkpoint.keep).run()
            experiment.cross, experiment.combination = reranker.reader, reranker.combination
        scores = {}
        for split in ("validation", "test"):
            ranks = experiment.rank(split, experiment.embed(split, trainee.evaluated))
            scores[split] = write_evaluation(folder.evaluation, split, ranks) if world.main else summarise(ranks)
        return TrainingResult(progress, scores, experiment.combination, reranker, listeners)


@contextmanager
def _stop_told(listeners: Sequence[Listener]) -> Iterator[None]:
    """Notify the listeners when a signal or an error ends the run."""
    try:
        yield
    except BaseException:
        for listener in listeners:
            listener.stopped()
        raise


def _listeners(config: TrainConfig, runtime: Runtime, folder: RunFolder) -> list[Listener]:
    """Return the run's own listeners, then the trackers. The recorder is first, so that trackers find its files."""
    console = Console(Monitor.parse(config.trainer.monitor))
    listeners: list[Listener] = [Recorder(folder, config.tracker.ledger), console]
    if config.trainer.profile:
        listeners.append(ProfileListener(folder, runtime))
    return listeners + build_trackers(config.tracker, folder, config.tracker.listeners)
