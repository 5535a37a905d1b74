"""From a configuration and a run's folder to a trained model and its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import build
from negexp.config import TrainConfig
from negexp.corpus import Corpus
from negexp.embedding import TextEncoder
from negexp.evaluation.metrics import Metrics
from negexp.evaluation.monitor import Monitor
from negexp.model import BuiltModel
from negexp.runtime import Runtime
from negexp.tokens import tokenize_corpus
from negexp.tracking import RunFolder, write_evaluation
from negexp.tracking.files import remove_file
from negexp.tracking.listener import Listener
from negexp.tracking.recorder import Recorder
from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.console import Console
from negexp.training.loop import Experiment, Progress
from negexp.training.profile import ProfileListener
from negexp.training.provenance import Provenance
from negexp.training.steps import build_trainee


@dataclass(frozen=True)
class Start:
    """Where a run stands: its folder, what it began with, and the commit to go on from, None at the beginning."""

    folder: RunFolder
    origin: Provenance
    commit: Commit | None


@dataclass(frozen=True)
class Trained:
    """What the loop ended with, the metrics of validation and test with the best epoch, and who is to hear of it."""

    progress: Progress
    scores: dict[str, Metrics]
    listeners: Sequence[Listener]


def train(config: TrainConfig, corpus: Corpus, built: BuiltModel, runtime: Runtime, start: Start) -> Trained:
    """Run the experiment, from a commit where there is one, then evaluate validation and test with the best epoch.

    The model holds the best epoch's weights afterwards.
    """
    folder = start.folder
    trainee = build_trainee(built.model, config.trainer, runtime)
    tokens = tokenize_corpus(corpus, built.tokenizer, config.model.max_length)
    encoder = TextEncoder(trainee.model, tokens, runtime, config.tracker.progress)
    store, listeners = CheckpointStore(folder.path, config.checkpoint.keep), _listeners(config, runtime, folder)
    experiment = Experiment(config, corpus, encoder, trainee, store, listeners)
    if start.commit is None:  # not before all checks, so that a refused run leaves nothing behind
        folder.create(config, built.save)
        experiment.begin(start.origin.with_encoder(folder))
    else:
        experiment.restore(start.commit, start.origin)
        remove_file(folder.result)  # a finished run that is given more epochs is unfinished again
        folder.save_config(config)
    progress = experiment.run()
    load_weights(store.weights("best"), trainee.model)
    scores = {}
    for split in ("validation", "test"):
        ranks = experiment.rank(split, experiment.embed(split))
        scores[split] = write_evaluation(folder.evaluation, split, ranks)
    return Trained(progress, scores, listeners)


def _listeners(config: TrainConfig, runtime: Runtime, folder: RunFolder) -> list[Listener]:
    """Return the run's own listeners and the trackers; files first, so that a tracker finds what it is told of."""
    console = Console(Monitor.parse(config.trainer.monitor))
    listeners: list[Listener] = [Recorder(folder, config.tracker.ledger), console]
    if config.trainer.profile:
        listeners.append(ProfileListener(folder, runtime))
    return listeners + [build("tracker", options) for options in config.tracker.listeners.values()]
