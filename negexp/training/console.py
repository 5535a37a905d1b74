"""What a person reads while a run trains: one line an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from negexp.evaluation.metrics import Metrics


def epoch_line(
    row: Mapping[str, Any], scores: Mapping[str, Metrics], monitor: str, seconds: Mapping[str, float]
) -> str:
    """Return an epoch's line; with an empty row, that of the model before training.

    Accuracies are those of validation, for the protocol and task of `trainer.monitor`.
    """
    if row:
        text = (
            f"epoch {row['epoch']:3d}  random_rate {row['random_rate']:.2f}  loss {row['loss']:.4f} "
            f"(triplet {row['loss_triplet']:.4f}, positive {row['loss_positive']:.4f}, "
            f"negative {row['loss_negative']:.4f})  mined {row['mined_share']:4.0%}"
        )
    else:
        text = "untrained"
    protocol, _, task, _ = monitor.split("/")
    text += f"  {protocol} {task}"
    for stage, tasks in scores["validation"][protocol].items():
        text += f"  {stage} @1 {tasks[task]['accuracy@1']:.3f} @10 {tasks[task]['accuracy@10']:.3f}"
    return f"{text}  {sum(seconds.values()):.1f} s"
