"""Train a bi-encoder, re-mining its negatives every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from negexp.command import Command
from negexp.config import TrainConfig
from negexp.corpus import check_path
from negexp.errors import InputError
from negexp.evaluation import STAGES
from negexp.evaluation.monitor import Monitor


def check(config: TrainConfig, overrides: Sequence[str]) -> None:
    """Raise `InputError` unless the monitored metric and the corpus exist."""
    monitor = Monitor.parse(config.trainer.monitor)
    if config.model.reranker == "cross" and monitor.stage != STAGES[0]:
        raise InputError(
            f"trainer.monitor={monitor}: model.reranker=cross re-ranks only after the last epoch, so this cannot pick "
            f"one; use trainer.monitor={monitor._replace(stage=STAGES[0])}"
        )
    check_path(config.data)


def run(config: TrainConfig, folder: Path, overrides: list[str]) -> str:
    """Train into `folder`, or continue the run there; return `done`, `continued` or `skipped`."""
    from negexp.actions import train

    return train.run(config, folder, overrides)


COMMAND = Command(
    schema=TrainConfig,
    run=run,
    check=check,
    usage=("negexp train [group=option ...] [key=value ...] [-m] [--cfg job] [--info defaults]",),
    paths=("data.path", "model.pretrained"),
    processes=lambda config: config.trainer.processes,
    after_sweep="report",
)
