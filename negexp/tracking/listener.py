"""What a run tells the outside: the console, the run folder, the profile and every tracker are listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from negexp.config import ListenerConfig
from negexp.evaluation.metrics import Metrics


@dataclass(frozen=True)
class RunInfo:
    """What is known when a run starts, or goes on.

    folder: of the run. config: every key with its value. epochs, refreshes: rows of metrics.csv and refreshes.csv that
    are committed already. untrained: metrics by split of the model before training. seconds: what came before.
    """

    folder: Path
    config: Mapping[str, Any]
    epochs: list[dict[str, Any]] = field(default_factory=list)
    refreshes: list[dict[str, Any]] = field(default_factory=list)
    untrained: Mapping[str, Metrics] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Refresh:
    """Negatives that were sampled, or kept, before optimizer step `step` of an epoch.

    statistics: their row of refreshes.csv. ledger: see `negexp.tracking.ledger`; it is made when it is asked for.
    """

    epoch: int
    step: int
    statistics: Mapping[str, Any]
    ledger: pd.DataFrame


@dataclass(frozen=True)
class Epoch:
    """An epoch that is committed: its row of metrics.csv, all rows so far, all refreshes so far, metrics by split."""

    number: int
    row: Mapping[str, Any]
    epochs: list[dict[str, Any]]
    refreshes: list[dict[str, Any]]
    scores: Mapping[str, Metrics]


class Listener:
    """Base of all listeners: every method does nothing. Nothing that a listener does changes the run.

    A tracker is a listener that a configuration names; it is made from its options.
    """

    Options: type[ListenerConfig] = ListenerConfig

    def started(self, run: RunInfo) -> None:
        """Hear that the run starts, or goes on after its last commit."""

    def refreshed(self, refresh: Refresh) -> None:
        """Hear that negatives are ready; training on them follows. The epoch may still be lost to a kill."""

    def step(self, number: int, losses: Mapping[str, Any]) -> None:
        """Hear of an optimizer batch: its number in the epoch, and its losses, `loss` and `loss_<part>`.

        Losses are tensors on the device; `float()` waits for a GPU.
        """

    def trained(self, epoch: int) -> None:
        """Hear that an epoch's last step was taken."""

    def committed(self, epoch: Epoch) -> None:
        """Hear that an epoch is committed: it is on the disk, whole, and no kill can undo it.

        A run that goes on does not repeat the epochs before, so nothing is heard twice.
        """

    def finished(self, result: Mapping[str, Any]) -> None:
        """Hear that the run is finished, with the contents of result.json."""
