"""`negexp evaluate`: all tasks for a run, or for an encoder as it comes."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import transformers

from negexp.config import EvaluateConfig, load_run_config
from negexp.corpus import Corpus, load_corpus
from negexp.embedding import embed
from negexp.errors import InputError
from negexp.evaluation.evaluator import evaluate_split, scorer_and_classifier
from negexp.evaluation.report_text import left_out, metrics_table
from negexp.evaluation.trec import TrecExport, query_ids
from negexp.model import BuiltModel, build_model, restore_model, zero_shot_config
from negexp.runtime import choose_runtime, memory_errors_name, reproducible
from negexp.tokens import tokenize
from negexp.tracking import RunFolder, write_evaluation
from negexp.tracking.files import write_bytes
from negexp.training import CheckpointStore, load_weights

log = logging.getLogger("negexp")


def run(config: EvaluateConfig, folder: Path, overrides: list[str]) -> None:
    """Rank all candidates of a split, write the results below `output` (or `folder`), and print the table."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = config if config.run is None else _with_run(config, Path(config.run), overrides)
    runtime = choose_runtime(config.device, config.precision or "float32", config.tokens_per_batch, key="")
    corpus = load_corpus(config.data)
    log.info(corpus.summary)
    split = corpus[config.split]
    missing = left_out(split)
    if missing is not None:
        log.info(missing)
    if config.trec:
        query_ids(split)  # refuses ids that occur twice, before the work and not after it
    output = Path(config.output or folder).expanduser()
    written = [output / "evaluation"]
    with reproducible(runtime, deterministic=True), memory_errors_name("tokens_per_batch or model.max_length"):
        built = _model(config, corpus)
        tokens = tokenize(corpus.texts, built.tokenizer, config.model.max_length)
        model = built.model.to(runtime.device)
        embeddings = embed(model, tokens, split.texts(), runtime, config.split, config.progress)
        ranks = evaluate_split(model, embeddings, split, corpus["train"], config.evaluation, progress=config.progress)
        metrics = write_evaluation(output / "evaluation", config.split, ranks)
        if config.trec:
            by = scorer_and_classifier(model, embeddings, split)
            export = TrecExport(split, *by, config.evaluation, config.trec_depth)
            written.append(_write_trec(export, output / "trec", config))
    what = (
        f"run {config.run}" if config.run else f"{config.model.pretrained or 'tiny'} zero-shot (cosine, no re-ranking)"
    )
    files = " and ".join(map(str, written))
    log.info(f"{config.split}, {what}, on {runtime.describe()}\n\n{metrics_table(metrics)}\n\nfiles in {files}")


def _write_trec(export: TrecExport, folder: Path, config: EvaluateConfig) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in export.files(config.split, config.progress):
        write_bytes(folder / name, content)
    return folder


def _with_run(config: EvaluateConfig, run_folder: Path, overrides: list[str]) -> EvaluateConfig:
    """Take model, data, evaluation, precision and `fused` from the run; data.* keys on the command line win."""
    given = {override.lstrip("+~").partition("=")[0].partition(".")[0] for override in overrides}
    if "model" in given:
        raise InputError(f"run={config.run}: the run brings its own model; leave out model, or leave out run")
    trained = load_run_config(RunFolder(run_folder).config)
    return replace(
        config,
        seed=trained.seed,
        precision=config.precision or trained.trainer.precision,
        fused=config.fused or trained.trainer.fused,
        model=trained.model,
        data=config.data if "data" in given else trained.data,
        evaluation=config.evaluation if "evaluation" in given else trained.evaluation,
    )


def _model(config: EvaluateConfig, corpus: Corpus) -> BuiltModel:
    fused = config.fused or "auto"
    if config.run is None:
        vocabulary = [corpus.texts[row] for row in corpus["train"].texts()]
        return build_model(zero_shot_config(config.model), config.seed, vocabulary, heads=False, fused=fused)
    run_folder = RunFolder(Path(config.run))
    weights = CheckpointStore(run_folder.path, keep=1).weights("best")
    built = restore_model(config.model, run_folder.encoder, weights.stat().st_size, fused=fused)
    load_weights(weights, built.model)
    return built
