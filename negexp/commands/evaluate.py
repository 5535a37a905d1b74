"""Rank all candidates of the eight tasks for a run, for a zero-shot encoder, or for BM25."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from negexp.command import Command
from negexp.config import EvaluateConfig, completed_by_run, load_run_config, with_run
from negexp.corpus import check_path


def check(config: EvaluateConfig, overrides: Sequence[str]) -> None:
    """Raise `InputError` unless the corpus exists: with a run its own, where the command line names no other."""
    if config.run is not None:
        config = with_run(config, load_run_config(Path(config.run).expanduser() / "config.yaml"), overrides)
    check_path(config.data)


def run(config: EvaluateConfig, folder: Path, overrides: list[str]) -> None:
    """Write the ranks and metrics of a split below `output` (or `folder`)."""
    from negexp.actions import evaluate

    evaluate.run(config, folder, overrides)


COMMAND = Command(
    schema=EvaluateConfig,
    run=run,
    check=check,
    complete=completed_by_run,
    completed=("data",),
    usage=(
        "negexp evaluate run=DIR [split=test] [output=DIR] [data.KEY=...] [evaluation.KEY=...]",
        "negexp evaluate model=minilm data=arguana data.path=CORPUS [split=validation]",
        "negexp evaluate model=bm25 [data=arguana data.path=CORPUS] [model.bm25.k1=1.2] [model.bm25.b=0.75]",
    ),
    paths=("run", "output", "data.path", "model.pretrained"),
)
