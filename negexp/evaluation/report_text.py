"""The text of an evaluation for the terminal."""

from __future__ import annotations

from textwrap import fill

from negexp.corpus.arguments import Split
from negexp.evaluation.metrics import Metrics
from negexp.evaluation.monitor import Monitor
from negexp.evaluation.pools import TASKS, possible_tasks


def metrics_text(metrics: Metrics, monitor: Monitor | None = None) -> str:
    """Return a table of all tasks with notes below it.

    monitor: the metric that compares re-ranking with retrieval; None: there is no such note.
    """
    protocols, notes = list(metrics), []
    if len(protocols) > 1 and all(stages == metrics[protocols[0]] for stages in metrics.values()):
        together = " and ".join(protocols)
        shown = {together: metrics[protocols[0]]}
        notes.append(f"{together} give the same numbers here, so they are shown once.")
    else:
        shown = metrics
    if monitor is not None:
        notes += _below_retrieval(metrics, monitor)
    return "\n".join([metrics_table(shown), *(f"\n{note}" for note in notes)])


def metrics_table(metrics: Metrics) -> str:
    """Return a table of all tasks: pool size, then accuracy@1 and accuracy@10 by protocol and stage."""
    columns = [(protocol, stage) for protocol, stages in metrics.items() for stage in stages]
    width = max(22, *(len(f"{protocol}, {stage}") for protocol, stage in columns))
    first = f"{'':6}{'':>11}" + "".join(f"  {f'{protocol}, {stage}':>{width}}" for protocol, stage in columns)
    second = f"{'task':6}{'candidates':>11}" + f"  {'acc@1':>{width - 8}}{'acc@10':>8}" * len(columns)
    lines = [first, second]
    for task in TASKS:
        cells = [metrics[protocol][stage].get(task.name) for protocol, stage in columns]
        if cells[0] is None:
            continue
        line = f"{task.name:6}{cells[0]['candidates']:11.1f}"
        for cell in cells:
            assert cell is not None
            line += f"  {cell['accuracy@1']:{width - 8}.4f}{cell['accuracy@10']:8.4f}"
        lines.append(line)
    return "\n".join(lines)


def _below_retrieval(metrics: Metrics, monitor: Monitor) -> list[str]:
    """Return a note when re-ranking is worse than retrieval in the monitored task."""
    protocol, _, task, metric = monitor
    stages = metrics.get(protocol, {})
    if task not in stages.get("reranked", {}):
        return []
    retrieval, reranked = (stages[stage][task][metric] for stage in ("retrieval", "reranked"))
    if reranked >= retrieval:
        return []
    note = (
        f"Re-ranked is below retrieval in {protocol} {task} ({metric} {reranked:.4f} against {retrieval:.4f}): "
        "the re-ranker orders the nearest candidates worse than their distances do. Read the retrieval columns; to "
        "train the re-ranker better, give it more epochs or pairs."
    )
    return [fill(note, 100)]


def skipped_tasks_text(split: Split) -> str | None:
    """Return a sentence that names the tasks without their metadata, or None when all tasks are evaluated."""
    missing = possible_tasks(split)[1]
    if not missing:
        return None
    absent = sorted({name for task in missing for name in task.needs() if getattr(split, name) is None})
    return f"tasks skipped because the data has no {', '.join(absent)}: {', '.join(task.name for task in missing)}"
