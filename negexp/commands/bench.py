"""Time every phase of an epoch beside its alternatives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from negexp.command import Command
from negexp.config import BenchConfig
from negexp.corpus import check_path

log = logging.getLogger("negexp")


def check(config: BenchConfig, overrides: Sequence[str]) -> None:
    """Raise `InputError` unless the corpus exists."""
    check_path(config.data)


def run(config: BenchConfig, folder: Path, overrides: list[str]) -> None:
    """Measure, write bench.json and bench.md into `output` (or `folder`), and print the latter."""
    from negexp.bench import run_benchmarks
    from negexp.model import quiet_transformers
    from negexp.runtime import choose_runtime, explain_out_of_memory, reproducible

    quiet_transformers()
    trainer = config.trainer
    runtime = choose_runtime(trainer.device, trainer.precision, trainer.tokens_per_batch, trainer.threads)
    output = Path(config.output or folder).expanduser()
    with (
        reproducible(runtime, trainer.deterministic),
        explain_out_of_memory("search_rows, scale_largest, model.max_length or trainer.batch_size"),
    ):
        text = run_benchmarks(config, runtime, output)
    log.info(f"\n{text}\nfiles in {output}: bench.json, bench.md")


COMMAND = Command(
    schema=BenchConfig,
    run=run,
    check=check,
    usage=(
        "negexp bench [bench=embed|mine|rerank|epoch|trainer|scale|all] [key=value ...]",
        "negexp bench model=minilm model.retrieval_dim=128 data=arguana data.path=CORPUS",
    ),
    paths=("output", "data.path", "model.pretrained"),
)
