"""The metric that picks the best epoch, by name."""

from __future__ import annotations

from negexp.corpus import Split
from negexp.errors import InputError
from negexp.evaluation.metrics import METRICS
from negexp.evaluation.pools import PROTOCOLS, TASKS, possible_tasks
from negexp.evaluation.ranking import STAGES


def check_monitor(monitor: str, validation: Split | None = None) -> None:
    """Raise `InputError` when `trainer.monitor` names no metric, or none that this validation split can have."""
    tasks = [task.name for task in (TASKS if validation is None else possible_tasks(validation)[0])]
    allowed = (PROTOCOLS, STAGES, tasks, METRICS)
    parts = monitor.split("/")
    if len(parts) != 4 or any(part not in choices for part, choices in zip(parts, allowed, strict=True)):
        wanted = "/".join(f"({'|'.join(choices)})" for choices in allowed)
        raise InputError(f"trainer.monitor={monitor}: must be {wanted}")
