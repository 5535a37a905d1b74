"""What a person reads of an evaluation in the terminal."""

from __future__ import annotations

from negexp.corpus.arguments import Split
from negexp.evaluation.metrics import Metrics
from negexp.evaluation.pools import TASKS, possible_tasks


def metrics_table(metrics: Metrics) -> str:
    """Return a table of all tasks: pool size, then accuracy@1 and @10 by protocol and stage."""
    columns = [(protocol, stage) for protocol, stages in metrics.items() for stage in stages]
    first = f"{'':6}{'':>11}" + "".join(f"  {protocol + ', ' + stage:>22}" for protocol, stage in columns)
    second = f"{'task':6}{'candidates':>11}" + f"  {'acc@1':>14}{'acc@10':>8}" * len(columns)
    lines = [first, second]
    for task in TASKS:
        cells = [metrics[protocol][stage].get(task.name) for protocol, stage in columns]
        if cells[0] is None:
            continue
        line = f"{task.name:6}{cells[0]['candidates']:11.1f}"
        for cell in cells:
            assert cell is not None
            line += f"  {cell['accuracy@1']:14.4f}{cell['accuracy@10']:8.4f}"
        lines.append(line)
    return "\n".join(lines)


def left_out(split: Split) -> str | None:
    """Return a sentence on the tasks that the split's metadata does not allow, or None when all are evaluated."""
    missing = possible_tasks(split)[1]
    if not missing:
        return None
    absent = sorted({name for task in missing for name in task.needs() if getattr(split, name) is None})
    return f"left out, for want of {', '.join(absent)}: {', '.join(task.name for task in missing)}"
