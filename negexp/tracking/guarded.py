"""A tracker that may fail: a service that is down must not stop a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from negexp.tracking.listener import Epoch, Listener, Refresh, RunInfo

log = logging.getLogger("negexp")


class Guarded(Listener):
    """Passes everything on to a tracker. After the tracker's first exception it logs a warning and stops calling it."""

    def __init__(self, tracker: Listener, name: str) -> None:
        self.tracker, self.name, self.failed = tracker, name, False

    def started(self, run: RunInfo) -> None:
        """Pass it on."""
        self._call(self.tracker.started, run)

    def refreshed(self, refresh: Refresh) -> None:
        """Pass it on."""
        self._call(self.tracker.refreshed, refresh)

    def step(self, number: int, losses: Mapping[str, Any]) -> None:
        """Pass it on."""
        self._call(self.tracker.step, number, losses)

    def trained(self, epoch: int) -> None:
        """Pass it on."""
        self._call(self.tracker.trained, epoch)

    def committed(self, epoch: Epoch) -> None:
        """Pass it on."""
        self._call(self.tracker.committed, epoch)

    def finished(self, result: Mapping[str, Any]) -> None:
        """Pass it on."""
        self._call(self.tracker.finished, result)

    def _call(self, method: Callable[..., None], *arguments: Any) -> None:
        if self.failed:
            return
        try:
            method(*arguments)
        except Exception as error:  # whatever another library raises
            self.failed = True
            log.warning(
                f"tracker {self.name}: {type(error).__name__} in {method.__name__} ({error}); "
                "the run continues without this tracker",
                exc_info=log.isEnabledFor(logging.DEBUG),
            )
