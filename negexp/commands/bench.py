"""`negexp bench`: every phase beside what one would take instead, with ratios."""

from __future__ import annotations

import logging
from pathlib import Path

import transformers

from negexp.bench import run_benchmarks
from negexp.config import BenchConfig
from negexp.runtime import choose_runtime, explain_out_of_memory, reproducible

log = logging.getLogger("negexp")


def run(config: BenchConfig, folder: Path, overrides: list[str]) -> None:
    """Measure, write bench.json and bench.md into `output` (or `folder`), and print the latter."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    trainer = config.trainer
    runtime = choose_runtime(trainer.device, trainer.precision, trainer.tokens_per_batch, trainer.threads)
    output = Path(config.output or folder).expanduser()
    with (
        reproducible(runtime, trainer.deterministic),
        explain_out_of_memory("search_rows, scale_largest, model.max_length or trainer.batch_size"),
    ):
        text = run_benchmarks(config, runtime, output)
    log.info(f"\n{text}\nfiles in {output}: bench.json, bench.md")
