"""Listeners receive the events of a run. The console, the run folder, the profile and every tracker are listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negexp.config import ListenerConfig
from negexp.evaluation.metrics import Metrics

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunInfo:
    """The state of a run when it starts or continues.

    folder: the run's folder. config: every key with its value. epochs, refreshes: the committed rows of metrics.csv and
    refreshes.csv. untrained: metrics of the model before training, by split. seconds: time spent before this start.
    """

    folder: Path
    config: Mapping[str, Any]
    epochs: list[dict[str, Any]] = field(default_factory=list)
    refreshes: list[dict[str, Any]] = field(default_factory=list)
    untrained: Mapping[str, Metrics] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Refresh:
    """The negatives that were sampled or kept before optimizer step `step` of an epoch.

    statistics: their row of refreshes.csv. ledger: their table, see `negexp.tracking.ledger`.
    """

    epoch: int
    step: int
    statistics: Mapping[str, Any]
    ledger: pd.DataFrame


@dataclass(frozen=True)
class Epoch:
    """A committed epoch: its row of metrics.csv, all rows and refreshes so far, and its metrics by split."""

    number: int
    row: Mapping[str, Any]
    epochs: list[dict[str, Any]]
    refreshes: list[dict[str, Any]]
    scores: Mapping[str, Metrics]


@dataclass(frozen=True)
class RerankerEpoch:
    """A committed epoch of the cross-encoder: its row of reranker.csv, and all rows so far."""

    number: int
    row: Mapping[str, Any]
    epochs: list[dict[str, Any]]


class Listener:
    """The base of all listeners. Every method does nothing. A listener does not change the run.

    A tracker is a listener that the configuration names. It is built from its options.
    """

    Options: type[ListenerConfig] = ListenerConfig

    def started(self, run: RunInfo) -> None:
        """Handle the start of the run, or its continuation after the last commit."""

    def refreshed(self, refresh: Refresh) -> None:
        """Handle new negatives, before training on them. The epoch is not committed yet: a kill may undo it."""

    def step(self, number: int, losses: Mapping[str, Any]) -> None:
        """Handle an optimizer batch: its number in the epoch, and its losses `loss` and `loss_<part>`.

        Losses are tensors on the device. `float()` waits for a GPU.
        """

    def trained(self, epoch: int) -> None:
        """Handle the end of the last step of an epoch."""

    def committed(self, epoch: Epoch) -> None:
        """Handle a committed epoch. It is complete on the disk, and no kill can undo it.

        A continued run does not repeat committed epochs, so a listener receives each epoch once.
        """

    def reranker_started(self, epochs: list[dict[str, Any]]) -> None:
        """Handle the start of the cross-encoder's training, or its continuation after these rows of reranker.csv."""

    def reranker_committed(self, epoch: RerankerEpoch) -> None:
        """Handle a committed epoch of the cross-encoder."""

    def finished(self, result: Mapping[str, Any]) -> None:
        """Handle the end of the run. `result` has the contents of result.json, which is on the disk.

        A kill can come before a tracker has handled it. The same command then calls `started` and `finished` again.
        """

    def stopped(self) -> None:
        """Handle an end of the process before the end of the run: a signal or an error. A kill gives no time for it."""
