"""A tracker of whole epochs: it is told of what is committed, and again after a kill, so that nothing gets lost.

A tool gets each point once although it is told twice: it says how many epochs it has, and what it is told again carries
the same numbers, times and values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from negexp.components import option
from negexp.config import ListenerConfig
from negexp.errors import InputError
from negexp.evaluation.metrics import metric_columns
from negexp.modules import is_installed
from negexp.tracking.files import make_folder
from negexp.tracking.listener import Epoch, Listener, RerankerEpoch, RunInfo
from negexp.tracking.outbox import read_batch_losses, run_id
from negexp.tracking.run_folder import RunFolder

ALWAYS = ("epoch", "best_epoch", "best_value", "seconds")  # in the rows and in the result, whatever `metrics` says


@dataclass
class TrackerOptions(ListenerConfig):
    """The keys that negexp's own trackers share. Tracker, Python package and extra have the same name."""

    metrics: list[str] = option(
        'columns of metrics.csv and of the result that it gets, by patterns with * and ?; ["*"]: all, []: the epoch'
    )
    batches: bool = option("true: it also gets the losses of each batch")
    figures: bool = option("true: with the result it also gets figures of the epochs: learning curves and negatives")

    def check(self) -> None:
        """Raise `InputError` unless the package is installed. It is not imported."""
        if not is_installed(self.name):  # W&B's folder `wandb/` in the present one is no package
            raise InputError(
                f"name={self.name}: the package {self.name} is not installed; pip install 'negexp[{self.name}]'"
            )


@dataclass
class ProjectOptions(TrackerOptions):
    """The keys of trackers that keep the runs of many folders in one place."""

    project: str = option("the project, or experiment, that holds the run")
    group: str | None = option("null: the name of the folder above the run's; it is one for all jobs of a sweep")


class TrackedRun(NamedTuple):
    """A run as a tool sees it. name: that of its folder. parameters: every key but those of trackers."""

    id: str
    name: str
    folder: RunFolder
    parameters: dict[str, Any]
    monitor: str


@dataclass(frozen=True)
class Points:
    """What a tool is told at once.

    kind: `epoch`, `reranker` (an epoch of the cross-encoder) or `result`. epoch: its number; of a result, the best one.
    number: the place among all that the run tells, counted in batches. An epoch has the place of its last batch.
    time: in seconds since 1970. values, batches: the values, and those of each batch by its number. figures: PNG files
    by name, which begins with `figures/`.
    """

    kind: str
    epoch: int
    number: int
    time: float
    values: dict[str, float]
    batches: list[tuple[int, dict[str, float]]]
    figures: Mapping[str, bytes] = field(default_factory=dict)

    def rows(self) -> list[tuple[int, dict[str, float]]]:
        """Return everything in the order of the numbers, a row for each: the last batch shares one with its epoch."""
        rows = {number: {"batch": float(number), **losses} for number, losses in self.batches}
        rows[self.number] = rows.get(self.number, {}) | self.values
        return sorted(rows.items())


class Tracker(Listener, ABC):
    """Tells another tool of a run. A subclass implements `open`, `log` and `close`."""

    Options: type[TrackerOptions] = TrackerOptions

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def open(self, run: TrackedRun) -> int:
        """Start the run in the tool, or continue it; return how many of its first epochs the tool has completely."""

    @abstractmethod
    def log(self, points: Points) -> None:
        """Tell the tool. What it has already must not be doubled."""

    def close(self, finished: bool) -> None:
        """Let go of the tool; `finished` says whether the run has its result, or is to be continued."""

    def started(self, run: RunInfo) -> None:
        """Open the tool, and tell it of the committed epochs that it does not have."""
        self.folder = RunFolder(run.folder)
        keys = {key: value for key, value in run.config.items() if not key.startswith("tracker.")}
        name, self.monitor = run.folder.resolve().name, str(run.config["trainer.monitor"])
        told = self.open(TrackedRun(run_id(self.folder), name, self.folder, keys, self.monitor))
        for row in run.epochs[told:]:
            self.log(self._epoch(row))
        self.epochs = run.epochs

    def committed(self, epoch: Epoch) -> None:
        """Tell of the epoch and its batches."""
        self.log(self._epoch(epoch.row))
        self.epochs = epoch.epochs

    def reranker_started(self, epochs: list[dict[str, Any]]) -> None:
        """Tell of the committed epochs of the cross-encoder."""
        for end in range(len(epochs)):
            self.log(self._reranker(epochs[: end + 1]))

    def reranker_committed(self, epoch: RerankerEpoch) -> None:
        """Tell of the epoch of the cross-encoder."""
        self.log(self._reranker(epoch.epochs))

    def finished(self, result: Mapping[str, Any]) -> None:
        """Tell of the result, under names that begin with `result/`, and of the figures."""
        values = {key: result[key] for key in ("best_epoch", "best_value", "seconds") if key in result}
        for split in ("validation", "test"):
            values |= metric_columns(result[split], split)
        for split, metrics in result["untrained"].items():
            values |= metric_columns(metrics, f"untrained/{split}")
        last = read_batch_losses(self.folder, len(self.epochs) - 1)
        number = last.last + 1 + result.get("reranker", {}).get("epochs", 0)
        named = {f"result/{name}": value for name, value in self._chosen(values).items()}
        figures = self._figures(result) if self.options.figures else {}
        self.log(Points("result", result["best_epoch"], number, last.time, named, [], figures))
        self.close(finished=True)

    def stopped(self) -> None:
        """Let go of the tool; the run is to be continued."""
        self.close(finished=False)

    def _figures(self, result: Mapping[str, Any]) -> dict[str, bytes]:
        from negexp.tracking.curves import run_figures  # imports matplotlib

        figures = run_figures(self.epochs, result["untrained"]["validation"], self.monitor)
        return {f"figures/{name}": png for name, png in figures.items()}

    def _epoch(self, row: Mapping[str, Any]) -> Points:
        epoch = int(row["epoch"])
        recorded = read_batch_losses(self.folder, epoch)
        batches = recorded.batches() if self.options.batches else []
        named = [(number, {f"batch/{name}": loss for name, loss in losses.items()}) for number, losses in batches]
        return Points("epoch", epoch, recorded.last, recorded.time, self._chosen(row), named)

    def _reranker(self, rows: list[dict[str, Any]]) -> Points:
        """Return the last of the rows. Its time is that of the last epoch, and the seconds of the rows after it."""
        last, epoch = read_batch_losses(self.folder, len(self.epochs) - 1), int(rows[-1]["epoch"])
        seconds = sum(value for row in rows for name, value in row.items() if name.startswith("seconds_"))
        values = {f"reranker/{name}": value for name, value in self._chosen(rows[-1]).items()}
        return Points("reranker", epoch, last.last + 1 + epoch, last.time + seconds, values, [])

    def _chosen(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Return the numbers of a row that `metrics` names."""
        patterns = self.options.metrics
        return {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and math.isfinite(value)
            if name in ALWAYS or any(fnmatchcase(name, pattern) for pattern in patterns)
        }


def group_of(run: TrackedRun, options: ProjectOptions) -> str:
    """Return the group of a run."""
    return options.group or run.folder.path.resolve().parent.name


def own_folder(run: TrackedRun, name: str) -> Path:
    """Make a folder for the tool's files in the run's folder, and return it; a link there is refused."""
    path = run.folder.path / name
    if path.is_symlink():
        raise InputError(f"{path}: is a link; nothing is written outside of a run's folder")
    make_folder(path)
    return path
