"""Trackers that may fail: a service that is down must not stop a run. What it missed, it can be told later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from negexp.components import build
from negexp.config import TrackerConfig
from negexp.tracking.files import make_folder, sha256, write_json
from negexp.tracking.listener import Epoch, Listener, Refresh, RerankerEpoch, RunInfo
from negexp.tracking.outbox import Outbox
from negexp.tracking.reading import read_json
from negexp.tracking.run_folder import RunFolder

log = logging.getLogger("negexp")


def build_trackers(config: TrackerConfig, folder: RunFolder, names: Collection[str]) -> list[Listener]:
    """Return the trackers of these names, and before them the outbox from which they are told again."""
    trackers = [Guarded(build("tracker", config.listeners[name]), name, folder) for name in names]
    return [Outbox(folder), *trackers] if trackers else []


def without_result(config: TrackerConfig, folder: RunFolder) -> list[str]:
    """Return the names of the trackers that have not been told of the result of a finished run."""
    if not config.listeners:
        return []
    told, result = _told(folder), sha256(folder.result)
    return [name for name in config.listeners if told.get(name) != result]


class Guarded(Listener):
    """Passes everything on to a tracker. After the tracker's first exception it logs a warning and stops calling it.

    `trackers/told.json` has the SHA-256 of the result.json that each tracker has handled.
    """

    def __init__(self, tracker: Listener, name: str, folder: RunFolder) -> None:
        self.tracker, self.name, self.folder = tracker, name, folder
        self.heard = self.failed = False  # of the start

    def started(self, run: RunInfo) -> None:
        """Pass it on."""
        self.heard = True
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

    def reranker_started(self, epochs: list[dict[str, Any]]) -> None:
        """Pass it on."""
        self._call(self.tracker.reranker_started, epochs)

    def reranker_committed(self, epoch: RerankerEpoch) -> None:
        """Pass it on."""
        self._call(self.tracker.reranker_committed, epoch)

    def finished(self, result: Mapping[str, Any]) -> None:
        """Pass it on, and record that the tracker has handled it."""
        self._call(self.tracker.finished, result)
        if not self.failed:
            make_folder(self.folder.trackers)
            write_json(_file(self.folder), _told(self.folder) | {self.name: sha256(self.folder.result)})

    def stopped(self) -> None:
        """Pass it on, unless the run was stopped before it started."""
        if self.heard:
            self._call(self.tracker.stopped)

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


def _file(folder: RunFolder) -> Path:
    return folder.trackers / "told.json"


def _told(folder: RunFolder) -> dict[str, Any]:
    path = _file(folder)
    return read_json(path, folder.path) if path.exists() else {}
