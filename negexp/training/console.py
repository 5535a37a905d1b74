"""What a person reads of a run: one line an epoch, and at the end whether training helped."""

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


def before_and_after(result: Mapping[str, Any]) -> str:
    """Return a table of accuracies before training beside those of the best epoch, on validation and on test.

    It is for the protocol and task of the monitor. A split of which `result["untrained"]` has nothing is left out: runs
    of version 0.1 have no test there.
    """
    _, protocol, monitored_stage, task, monitored = result["monitor"].split("/")
    before = {split: scores.get(protocol, {}) for split, scores in result["untrained"].items()}
    splits = [split for split in ("validation", "test") if task in before.get(split, {}).get(monitored_stage, {})]
    best = f"epoch {result['best_epoch']}"
    width = max(10, len(best) + 2)
    lines = [
        (f"{f'{protocol} {task}':<24}" + "".join(f"{split:^{width + 22}}" for split in splits)).rstrip(),
        f"{'':24}" + f"{'untrained':>12}{best:>{width}}{'change':>10}" * len(splits),
    ]
    for stage in result["validation"][protocol]:
        for metric in dict.fromkeys(["accuracy@1", "accuracy@10", monitored]):
            picks = " *" if (stage, metric) == (monitored_stage, monitored) else ""
            line = f"{f'{stage} {metric}{picks}':<24}"
            for split in splits:
                untrained, trained = before[split][stage][task][metric], result[split][protocol][stage][task][metric]
                line += f"{untrained:12.4f}{trained:{width}.4f}{round(trained - untrained, 4) + 0.0:+10.4f}"
            lines.append(line)
    return "\n".join([*lines, "* picks the epoch, on validation (trainer.monitor)"])
