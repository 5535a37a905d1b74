"""`negexp train`: from a configuration to a finished run folder."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import transformers

from negexp.config import TrainConfig, config_hash
from negexp.corpus import load_corpus
from negexp.evaluation.metrics import flatten
from negexp.evaluation.report_text import left_out, metrics_table
from negexp.model import build_model
from negexp.runtime import choose_runtime, memory_errors_name, reproducible
from negexp.sampling import build_sampler
from negexp.tokens import tokenize
from negexp.tracking import RunFolder
from negexp.tracking.run_folder import versions
from negexp.training import train
from negexp.training.steps import build_trainee

log = logging.getLogger("negexp")

MEMORY_KEYS = "trainer.batch_size, trainer.tokens_per_batch or model.max_length"


def run(config: TrainConfig, folder: Path, overrides: list[str]) -> None:
    """Train as configured, write everything below `folder`, and print the test table."""
    started = time.perf_counter()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    build_sampler(config.sampler)  # a name that nobody registered costs no time
    trainer = config.trainer
    runtime = choose_runtime(trainer.device, trainer.precision, trainer.tokens_per_batch)
    corpus = load_corpus(config.data)
    log.info(corpus.summary)
    missing = left_out(corpus["validation"])
    if missing is not None:
        log.info(missing)
    with reproducible(runtime, trainer.deterministic), memory_errors_name(MEMORY_KEYS):
        built = build_model(config.model, config.seed, [corpus.texts[row] for row in corpus["train"].texts()])
        run_folder = RunFolder(folder)
        run_folder.create(config)
        built.tokenizer.save_pretrained(run_folder.encoder)
        built.encoder_config.save_pretrained(run_folder.encoder)
        trainee = build_trainee(built.model, trainer, runtime)
        parameters = sum(parameter.numel() for parameter in built.model.parameters()) / 1e6
        log.info(
            f"model {config.model.pretrained or 'tiny'}, {parameters:.1f} M parameters, on {runtime.describe()}; "
            f"sampler {config.sampler.name}, index {config.index.name}, seed {config.seed}"
        )
        tokens = tokenize(corpus.texts, built.tokenizer, config.model.max_length)
        progress, test = train(config, corpus, tokens, trainee, runtime, run_folder)
    run_folder.write_result(
        {
            "config_hash": config_hash(config),
            "data_fingerprint": corpus.fingerprint(),
            "versions": versions(),
            "runtime": runtime.describe(),
            "overrides": overrides,
            "corpus": corpus.counts,
            "corpus_summary": corpus.summary,
            "best_epoch": progress.best_epoch,
            "monitor": f"validation/{trainer.monitor}",
            "best_value": progress.best_value,
            "untrained": progress.untrained,
            "validation": progress.best_validation,
            "test": test,
            "seconds": time.perf_counter() - started,
        }
    )
    untrained = flatten(progress.untrained["validation"], "validation")[f"validation/{trainer.monitor}"]
    log.info(
        f"test, with epoch {progress.best_epoch} (best validation {trainer.monitor}: {progress.best_value:.4f}, "
        f"untrained {untrained:.4f})\n\n{metrics_table(test)}\n\n"
        f"files in {folder}: result.json, metrics.csv, evaluation/, negatives/, checkpoints/"
    )
