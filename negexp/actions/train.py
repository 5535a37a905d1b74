"""`negexp train`: from a configuration to a finished run folder. A run that was stopped continues."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from negexp.config import TrainConfig, config_hash, load_run_config
from negexp.corpus import Corpus, load_corpus
from negexp.errors import InputError
from negexp.evaluation.monitor import Monitor
from negexp.evaluation.report_text import metrics_text, skipped_tasks_text
from negexp.model import BuiltModel, build_model, quiet_transformers, restore_model
from negexp.runtime import Runtime, choose_runtime, explain_out_of_memory, reproducible
from negexp.signals import Stopped, stops_at_steps
from negexp.tracking import RunFolder
from negexp.tracking.guarded import without_result
from negexp.tracking.reading import read_json
from negexp.tracking.resume import RunState, find_run_state, refuse_other_data
from negexp.tracking.run_folder import versions
from negexp.training import CheckpointStore, Commit, Provenance, StartingPoint, TrainingResult, tell_finished, train
from negexp.training.console import before_and_after
from negexp.world import World, current

log = logging.getLogger("negexp")

SHOWN = ("best_epoch", "data", "monitor", "test", "untrained", "validation")  # of result.json, when it is printed
MEMORY_KEYS = (
    "trainer.batch_size, trainer.tokens_per_batch or model.max_length; in a cross-encoder reranker.batch_size or "
    "reranker.max_length"
)


def run(config: TrainConfig, folder: Path, overrides: list[str]) -> str:
    """Train, write everything below `folder`, and print the test table.

    Returns
    -------
    `done`, `continued` (from the last commit of an earlier process) or `skipped` (the folder's run is finished).
    """
    quiet_transformers()
    world = current()
    run_folder = RunFolder(world.own_folder(folder))
    try:
        with stops_at_steps(world.largest if world.size > 1 else None), _locked(run_folder, world):
            state = RunState(world.on_main(lambda: find_run_state(run_folder, config).value))
            if state is RunState.FINISHED:
                world.on_main(lambda: _show_finished(config, run_folder))
                return "skipped"
            return _train(config, run_folder, state, overrides)
    except Stopped:
        log.info(f"stopped; the same command goes on in {folder} (a single run: with hydra.run.dir={folder})")
        raise


def _train(config: TrainConfig, run_folder: RunFolder, state: RunState, overrides: list[str]) -> str:
    started = time.perf_counter()
    trainer = config.trainer
    runtime = choose_runtime(trainer.device, trainer.precision, trainer.tokens_per_batch, trainer.threads)
    corpus = _corpus(config, runtime.world)
    log.info(corpus.summary)
    missing = skipped_tasks_text(corpus["validation"])
    if missing is not None:
        log.info(missing)
    commit = None if state is RunState.NEW else _last_commit(config, run_folder, runtime.world)
    if commit is not None:
        runtime.world.copy(run_folder.encoder)
    provenance = Provenance.current(corpus, runtime)
    if commit is not None:
        provenance = runtime.world.together(partial(provenance.continued_from, commit, run_folder))
    with reproducible(runtime, trainer.deterministic), explain_out_of_memory(MEMORY_KEYS):
        built = runtime.world.together(partial(_model, config, corpus, run_folder, commit))
        log.info(_describe(config, built, runtime))
        trained = train(config, corpus, built, runtime, StartingPoint(run_folder, provenance, commit))
    result = _result(config, corpus, trained)
    result |= {
        "earlier_environments": provenance.earlier_environments,
        "runtime": runtime.describe(),
        "overrides": overrides,
        "seconds": trained.progress.earlier_seconds + time.perf_counter() - started,
    }
    if runtime.world.main:
        run_folder.write_result(result)
        for listener in trained.listeners:
            listener.finished(result)
        _show(result, run_folder)
    return "done" if commit is None else "continued"


@contextmanager
def _locked(run_folder: RunFolder, world: World) -> Iterator[None]:
    """Lock the folder of the run, which the main process writes."""
    with ExitStack() as stack:

        def lock() -> None:
            if world.main:
                stack.enter_context(run_folder.locked())

        world.together(lock)
        yield


def _corpus(config: TrainConfig, world: World) -> Corpus:
    """Return the corpus, which every process reads; refuse processes that read different ones."""
    corpus = world.together(lambda: load_corpus(config.data))
    expected = world.tell(corpus.fingerprint())

    def check() -> None:
        if corpus.fingerprint() != expected:
            raise InputError(f"data.path={config.data.path}: holds other data than in process 0; give all the same")

    world.together(check)
    return corpus


def _last_commit(config: TrainConfig, run_folder: RunFolder, world: World) -> Commit | None:
    """Return the commit to continue from; None when the run was stopped before its first commit."""
    commit = CheckpointStore(run_folder.path, config.checkpoint.keep, world=world).newest()
    if commit is not None:
        log.info(f"going on after epoch {commit.state['epoch']} of {run_folder.path}")
    else:
        world.on_main(lambda: _refuse_without_commit(config, run_folder))
        log.info(f"no commit to go on from in {run_folder.path}: starting at epoch 0")
    return commit


def _refuse_without_commit(config: TrainConfig, run_folder: RunFolder) -> None:
    if run_folder.result.exists():
        raise InputError(
            f"trainer.epochs={config.trainer.epochs}: the finished run in {run_folder.path} has no commit left to go "
            "on from; give another folder"
        )


def _model(config: TrainConfig, corpus: Corpus, run_folder: RunFolder, commit: Commit | None) -> BuiltModel:
    if commit is not None:
        weights = commit.weights.stat().st_size
        return restore_model(config.model, run_folder.encoder, weights, fused=config.trainer.fused)
    texts = [corpus.texts[row] for row in corpus["train"].texts()]
    return build_model(config.model, config.seed, texts, fused=config.trainer.fused)


def _describe(config: TrainConfig, built: BuiltModel, runtime: Runtime) -> str:
    parameters = sum(parameter.numel() for parameter in built.model.parameters()) / 1e6
    neighbours = f"index {config.index.name}" if config.sampler.source == "embeddings" else "neighbours by BM25"
    return (
        f"model {config.model.pretrained or 'tiny'}, {parameters:.1f} M parameters, on {runtime.describe()}; "
        f"sampler {config.sampler.name}, {neighbours}, seed {config.seed}"
    )


def _result(config: TrainConfig, corpus: Corpus, trained: TrainingResult) -> dict[str, Any]:
    progress = trained.progress
    return {
        "config_hash": config_hash(config),
        "data_fingerprint": corpus.fingerprint(),
        "data": corpus.contents,
        "versions": versions(),
        "corpus": corpus.counts,
        "corpus_summary": corpus.summary,
        "best_epoch": progress.best_epoch,
        "monitor": Monitor.parse(config.trainer.monitor).column("validation"),
        "best_value": progress.best_value,
        "untrained": progress.untrained,
        **({} if trained.combination is None else trained.combination.columns()),
        **({} if trained.reranker is None else {"reranker": trained.reranker.result()}),
        **trained.scores,
    }


def _show_finished(config: TrainConfig, run_folder: RunFolder) -> None:
    """Print the result of a finished run; the corpus is read only when its path changed."""
    result = read_json(run_folder.result, run_folder.path)
    missing = [key for key in SHOWN if key not in result]
    if missing:
        raise InputError(f"{run_folder.result}: has no {', '.join(missing)}; another version of negexp wrote it")
    if config.data.path != load_run_config(run_folder.config).data.path:
        refuse_other_data(run_folder, result["data"], load_corpus(config.data).contents)
    log.info(f"{run_folder.path} holds this run, finished; nothing is left to do")
    late = without_result(config.tracker, run_folder)
    if late:
        tell_finished(config, run_folder, late, result)
    _show(result, run_folder)


def _show(result: dict[str, Any], run_folder: RunFolder) -> None:
    table = metrics_text(result["test"], Monitor.of_result(result["monitor"]))
    log.info(
        f"\n{before_and_after(result)}\n\ntest, with epoch {result['best_epoch']}\n\n{table}\n\n"
        f"files in {run_folder.path}: result.json, metrics.csv, evaluation/, negatives/, checkpoints/"
    )
