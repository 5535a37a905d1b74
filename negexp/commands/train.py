"""`negexp train`: from a configuration to a finished run folder."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import transformers

from negexp.config import TrainConfig, config_hash
from negexp.corpus import Corpus, load_corpus
from negexp.evaluation.metrics import Metrics, flatten
from negexp.evaluation.report_text import left_out, metrics_table
from negexp.model import build_model
from negexp.runtime import choose_runtime, memory_errors_name, reproducible
from negexp.sampling import build_sampler
from negexp.tracking import RunFolder
from negexp.tracking.run_folder import versions
from negexp.training import Progress, train

log = logging.getLogger("negexp")

MEMORY_KEYS = "trainer.batch_size, trainer.tokens_per_batch or model.max_length"


def run(config: TrainConfig, folder: Path, overrides: list[str]) -> None:
    """Train as configured, write everything below `folder`, and print the test table."""
    started = time.perf_counter()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    trainer = config.trainer
    build_sampler(config.sampler)  # a name that nobody registered costs no time
    runtime = choose_runtime(trainer.device, trainer.precision, trainer.tokens_per_batch)
    run_folder = RunFolder(folder)
    run_folder.refuse_a_run()
    corpus = load_corpus(config.data)
    log.info(corpus.summary)
    missing = left_out(corpus["validation"])
    if missing is not None:
        log.info(missing)
    with reproducible(runtime, trainer.deterministic), memory_errors_name(MEMORY_KEYS):
        built = build_model(config.model, config.seed, [corpus.texts[row] for row in corpus["train"].texts()])
        parameters = sum(parameter.numel() for parameter in built.model.parameters()) / 1e6
        log.info(
            f"model {config.model.pretrained or 'tiny'}, {parameters:.1f} M parameters, on {runtime.describe()}; "
            f"sampler {config.sampler.name}, index {config.index.name}, seed {config.seed}"
        )
        progress, test = train(config, corpus, built, runtime, run_folder)
    result = _result(config, corpus, progress, test)
    result |= {"runtime": runtime.describe(), "overrides": overrides, "seconds": time.perf_counter() - started}
    run_folder.write_result(result)
    untrained = flatten(progress.untrained["validation"], "validation")[f"validation/{trainer.monitor}"]
    log.info(
        f"test, with epoch {progress.best_epoch} (best validation {trainer.monitor}: {progress.best_value:.4f}, "
        f"untrained {untrained:.4f})\n\n{metrics_table(test)}\n\n"
        f"files in {folder}: result.json, metrics.csv, evaluation/, negatives/, checkpoints/"
    )


def _result(config: TrainConfig, corpus: Corpus, progress: Progress, test: Metrics) -> dict[str, Any]:
    return {
        "config_hash": config_hash(config),
        "data_fingerprint": corpus.fingerprint(),
        "versions": versions(),
        "corpus": corpus.counts,
        "corpus_summary": corpus.summary,
        "best_epoch": progress.best_epoch,
        "monitor": f"validation/{config.trainer.monitor}",
        "best_value": progress.best_value,
        "untrained": progress.untrained,
        "validation": progress.best_validation,
        "test": test,
    }
