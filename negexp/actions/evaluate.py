"""`negexp evaluate`: all tasks for a run, for a zero-shot encoder, or for BM25."""

from __future__ import annotations

import logging
from pathlib import Path

from negexp.config import EvaluateConfig, with_run
from negexp.corpus import Corpus, load_corpus
from negexp.corpus.overlap import seen_in
from negexp.embedding import TextEncoder
from negexp.evaluation import MatrixScorer, StageScorers
from negexp.evaluation.evaluator import cross_scorers, evaluate_split, split_scorers
from negexp.evaluation.monitor import Monitor
from negexp.evaluation.report_text import metrics_text, skipped_tasks_text
from negexp.evaluation.trec import TrecExport
from negexp.lexical import BM25
from negexp.model import quiet_transformers
from negexp.runtime import Runtime, choose_runtime, explain_out_of_memory, reproducible
from negexp.tokens import tokenize_corpus
from negexp.tracking import write_evaluation
from negexp.tracking.files import write_bytes
from negexp.training import TrainedRun, model_of, training_pairs

log = logging.getLogger("negexp")


def run(config: EvaluateConfig, folder: Path, overrides: list[str]) -> None:
    """Rank all candidates of a split, write the results below `output` (or `folder`), and print the table."""
    quiet_transformers()
    run = None if config.run is None else TrainedRun.read(Path(config.run))
    config = config if run is None else with_run(config, run.config, overrides)
    runtime = choose_runtime(config.device, config.precision or "float32", config.tokens_per_batch, key="")
    corpus = load_corpus(config.data, needed=[config.split])
    log.info(corpus.summary)
    split = corpus[config.split]
    train = corpus["train"]
    if run is not None:
        train = training_pairs(run.commit, run.config.data, config.data, corpus)
        seen = int(seen_in(train, split).sum())
        what = "have a text" if split.collection is None else "have a query"
        log.info(f"{seen} of {len(split)} {config.split} pairs {what} that the run was trained on")
        run.combination(config.evaluation.rerank_weight)  # refuse a wrong weight before anything is embedded
    missing = skipped_tasks_text(split)
    if missing is not None:
        log.info(missing)
    output = Path(config.output or folder).expanduser()
    written = [output / "evaluation"]
    with reproducible(runtime, deterministic=True), explain_out_of_memory("tokens_per_batch or model.max_length"):
        scorers = _scorers(config, corpus, run, runtime)
        ranks = evaluate_split(scorers, split, train, config.evaluation, progress=config.progress)
        metrics = write_evaluation(output / "evaluation", config.split, ranks)
        if config.trec:
            export = TrecExport(split, scorers, config.evaluation, config.trec_depth)
            written.append(_write_trec(export, output / "trec", config))
    monitor = None if run is None else Monitor.parse(run.config.trainer.monitor)
    files = " and ".join(map(str, written))
    what = _describe(config, runtime)
    log.info(f"{config.split}, {what}\n\n{metrics_text(metrics, monitor)}\n\nfiles in {files}")


def _scorers(config: EvaluateConfig, corpus: Corpus, run: TrainedRun | None, runtime: Runtime) -> StageScorers:
    """Return the scorers of the split's texts: by embeddings, or by BM25 with these texts as its documents."""
    split = corpus[config.split]
    if config.model.encoder == "bm25":
        return StageScorers(MatrixScorer(BM25(corpus.texts, split.texts(), config.model.bm25).scores), None)
    built = model_of(config, corpus, run)
    tokens = tokenize_corpus(corpus, built.tokenizer, config.model.max_length, [config.split])
    model = built.model.to(runtime.device)
    embeddings = TextEncoder(model, tokens, runtime, config.progress).embed(split.texts(), config.split, split.point)
    if run is None:
        return split_scorers(model, embeddings)
    reader = run.reader(built, corpus.texts, runtime, config.progress)
    scorers = split_scorers(model, embeddings, second_stage=reader is None)
    scorers = scorers._replace(combination=run.combination(config.evaluation.rerank_weight))
    return scorers if reader is None else cross_scorers(scorers, reader, split, config.evaluation)


def _describe(config: EvaluateConfig, runtime: Runtime) -> str:
    """Return what was evaluated, in words."""
    if config.model.encoder == "bm25":
        bm25 = config.model.bm25
        return f"bm25 (k1={bm25.k1}, b={bm25.b}, {bm25.method}, stop words: {bm25.stop_words}; retrieval only)"
    model = (
        f"run {config.run}" if config.run else f"{config.model.pretrained or 'tiny'} zero-shot (cosine, no re-ranking)"
    )
    return f"{model}, on {runtime.describe()}"


def _write_trec(export: TrecExport, folder: Path, config: EvaluateConfig) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in export.files(config.split, config.progress):
        write_bytes(folder / name, content)
    return folder
