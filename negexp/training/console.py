"""Log lines of a run: one per epoch, and at the end a comparison with the untrained model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from negexp.evaluation.metrics import Metrics
from negexp.evaluation.monitor import Monitor
from negexp.tracking.listener import Epoch, Listener, RerankerEpoch, RunInfo

log = logging.getLogger("negexp")

STAGES = {"retrieval": "retrieval", "reranked": "re-ranking"}  # in words


class Console(Listener):
    """Logs a line before training, and a line per epoch."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def started(self, run: RunInfo) -> None:
        """Log the metrics of the untrained model, unless the run continues: then an earlier process has logged them."""
        if not run.epochs:
            log.info(f"untrained  {_accuracies(run.untrained, self.monitor)}  {run.seconds:.1f} s")

    def committed(self, epoch: Epoch) -> None:
        """Log the line of the epoch."""
        log.info(epoch_line(epoch.row, epoch.scores, self.monitor))

    def reranker_committed(self, epoch: RerankerEpoch) -> None:
        """Log the line of an epoch of the cross-encoder."""
        row, monitor = epoch.row, self.monitor._replace(stage="reranked")
        log.info(
            f"cross-encoder epoch {epoch.number}  loss {row['loss']:.4f}  "
            f"weight of retrieval {row['rerank_weight']:.1f}  {monitor} {monitor.in_row(row):.3f}  "
            f"{_seconds(row):.1f} s"
        )


def epoch_line(row: Mapping[str, Any], scores: Mapping[str, Metrics], monitor: Monitor) -> str:
    """Return the line of an epoch: losses, and accuracies and the monitored metric on validation, of its task."""
    names = [str(name) for name in row if str(name).startswith("loss_")]
    parts = ", ".join(f"{name.removeprefix('loss_')} {row[name]:.4f}" for name in names)
    mined = "" if row["mined_share"] is None else f"  mined {row['mined_share']:4.0%}"
    mined += "" if row.get("index_recall") is None else f"  index recall {row['index_recall']:.3f}"
    return (
        f"epoch {row['epoch']:3d}  random_rate {row['random_rate']:.2f}  loss {row['loss']:.4f}"
        f"{f' ({parts})' if parts else ''}{mined}{_drift(row)}  {_accuracies(scores, monitor)}  {_seconds(row):.1f} s"
    )


def _drift(row: Mapping[str, Any]) -> str:
    """Return how far the embeddings moved, and whether negatives stayed; nothing without `sampler.refresh.drift`."""
    drift = "" if row.get("drift") is None else f"  drift {row['drift']:.4f}"
    refreshed = row.get("refreshed", 1)
    if refreshed == 1:
        return drift
    return drift + (f"  refreshed {refreshed:.0%}" if refreshed else "  negatives kept")


def _seconds(row: Mapping[str, Any]) -> float:
    """Return the seconds of all phases of an epoch."""
    return float(sum(value for name, value in row.items() if str(name).startswith("seconds_")))


def _accuracies(scores: Mapping[str, Metrics], monitor: Monitor) -> str:
    text = f"{monitor.protocol} {monitor.task}"
    for stage, tasks in scores["validation"][monitor.protocol].items():
        names = dict.fromkeys(["accuracy@1", "accuracy@10", monitor.metric])
        values = [f"{name.removeprefix('accuracy')} {tasks[monitor.task][name]:.3f}" for name in names]
        text += f"  {stage} {' '.join(values)}"
    return text


def before_and_after(result: Mapping[str, Any]) -> str:
    """Return a table that compares the untrained model with the best epoch, on validation and test.

    It has the protocol and task of the monitor. A split without untrained metrics is left out: runs of version 0.1 have
    none for test.
    """
    protocol, monitored_stage, task, monitored = Monitor.of_result(result["monitor"])
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
                trained = result[split][protocol][stage][task][metric]
                if stage not in before[split]:  # a cross-encoder has no untrained state
                    line += f"{'':12}{trained:{width}.4f}{'':10}"
                    continue
                untrained = before[split][stage][task][metric]
                line += f"{untrained:12.4f}{trained:{width}.4f}{round(trained - untrained, 4) + 0.0:+10.4f}"
            lines.append(line.rstrip())
    return "\n".join([*lines, "* picks the epoch, on validation (trainer.monitor)", verdict(result)])


def verdict(result: Mapping[str, Any]) -> str:
    """Return a sentence for each stage: whether training improved the monitored metric, on validation and on test.

    Where re-ranking keeps the retrieval order, it gets no sentence.
    """
    protocol, _, task, metric = Monitor.of_result(result["monitor"])
    sentences = []
    for stage, tasks in result["validation"][protocol].items():
        if stage == "reranked" and result.get("rerank_weight") == 1:
            continue
        changes: dict[str, list[str]] = {}  # what training did -> the splits on which it did that
        for split in ("validation", "test"):
            before = result["untrained"].get(split, {}).get(protocol, {}).get(stage, {}).get(task)
            if before is not None:
                change = round(result[split][protocol][stage][task][metric] - before[metric], 4)
                what = "improved" if change > 0 else "worsened" if change < 0 else "did not change"
                changes.setdefault(what, []).append(split)
        if task in tasks and changes:
            parts = [f"{what} {STAGES[stage]} on {' and '.join(splits)}" for what, splits in changes.items()]
            sentences.append(f"Training {', and '.join(parts)} ({metric}).")
    return "\n".join(sentences)
