"""The metric that selects the best epoch. Only this module parses its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from negexp.corpus import Split
from negexp.errors import InputError
from negexp.evaluation.metrics import METRICS, Metrics
from negexp.evaluation.pools import PROTOCOLS, STAGES, TASKS, possible_tasks


class Monitor(NamedTuple):
    """A metric of one protocol, stage and task. Its text is `protocol/stage/task/metric`."""

    protocol: str
    stage: str
    task: str
    metric: str

    @classmethod
    def parse(cls, text: str, validation: Split | None = None) -> Monitor:
        """Return the metric that `trainer.monitor` names.

        Raises
        ------
        InputError
            When there is no such metric, or the validation split lacks the metadata for its task.
        """
        tasks = [task.name for task in (TASKS if validation is None else possible_tasks(validation)[0])]
        allowed = (PROTOCOLS, STAGES, tasks, METRICS)
        parts = text.split("/")
        if len(parts) != 4 or any(part not in choices for part, choices in zip(parts, allowed, strict=True)):
            pattern = "/".join(f"({'|'.join(choices)})" for choices in allowed)
            raise InputError(f"trainer.monitor={text}: must be {pattern}")
        return cls(*parts)

    @classmethod
    def of_result(cls, text: str) -> Monitor:
        """Return the metric that result.json names, with `validation/` before it."""
        return cls.parse(text.removeprefix("validation/"))

    def __str__(self) -> str:
        return "/".join(self)

    def value(self, metrics: Metrics) -> float:
        """Return the metric's value in the metrics of a split."""
        return metrics[self.protocol][self.stage][self.task][self.metric]

    def column(self, split: str) -> str:
        """Return the metric's column in metrics.csv."""
        return f"{split}/{self}"

    def in_row(self, row: Mapping[str, float], split: str = "validation") -> float:
        """Return the metric's value in a row of metrics.csv."""
        return row[self.column(split)]
