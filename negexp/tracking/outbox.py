"""What trackers need to go on, in the run's folder: the id of the run, and the losses of each batch.

The losses of an epoch are written before its commit, so whatever is committed can be told again after a kill.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from negexp.errors import InputError
from negexp.tracking.files import make_folder, write_json
from negexp.tracking.listener import Listener, RunInfo
from negexp.tracking.reading import read_json
from negexp.tracking.run_folder import RunFolder


@dataclass(frozen=True)
class BatchLosses:
    """The losses of the batches of an epoch.

    first: the number of the first batch, counted from the beginning of the run. time: when the epoch was trained, in
    seconds since 1970. losses: name -> its value in each batch; null where it was not finite.
    """

    first: int
    time: float
    losses: dict[str, list[float | None]]

    @property
    def last(self) -> int:
        """Return the number of the last batch. An epoch without recorded batches has one number."""
        return self.first + max([1, *map(len, self.losses.values())]) - 1

    def batches(self) -> list[tuple[int, dict[str, float]]]:
        """Return the number of each batch, and its losses by name."""
        found: dict[int, dict[str, float]] = {}
        for name, values in self.losses.items():
            for number, value in enumerate(values, start=self.first):
                found.setdefault(number, {}).update({} if value is None else {name: value})
        return sorted(found.items())


class Outbox(Listener):
    """Writes `trackers/run.json` and `trackers/epoch-NNN.json`. It is told before the trackers, which read them."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.losses: list[Mapping[str, Any]] = []  # of the batches of the current epoch

    def started(self, run: RunInfo) -> None:
        """Write the id of a new run. An epoch that was trained without a tracker gets a file without losses."""
        make_folder(self.folder.trackers)
        if not (self.folder.trackers / "run.json").exists():
            write_json(self.folder.trackers / "run.json", {"id": uuid.uuid4().hex})
        for epoch in range(len(run.epochs)):
            if not self.folder.batch_losses(epoch).exists():
                self._write(epoch, {})

    def step(self, number: int, losses: Mapping[str, Any]) -> None:
        """Keep the losses of a batch; reading them now would wait for a GPU."""
        self.losses.append(losses)

    def trained(self, epoch: int) -> None:
        """Write the losses of the epoch, which is not committed yet. If a kill undoes it, they are written again."""
        names = self.losses[0] if self.losses else {}
        self._write(epoch, {name: [_finite(losses[name]) for losses in self.losses] for name in names})
        self.losses = []

    def _write(self, epoch: int, losses: dict[str, list[float | None]]) -> None:
        first = read_batch_losses(self.folder, epoch - 1).last + 1 if epoch else 0
        write_json(self.folder.batch_losses(epoch), asdict(BatchLosses(first, time.time(), losses)))


def _finite(loss: Any) -> float | None:
    value = float(loss)
    return value if math.isfinite(value) else None


def read_batch_losses(folder: RunFolder, epoch: int) -> BatchLosses:
    """Return the losses of the batches of an epoch, or raise `InputError`."""
    return BatchLosses(**_read(folder, folder.batch_losses(epoch).name, ("first", "time", "losses")))


def run_id(folder: RunFolder) -> str:
    """Return the id of a run, which it keeps when its folder is moved."""
    return str(_read(folder, "run.json", ("id",))["id"])


def _read(folder: RunFolder, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    path = folder.trackers / name
    values = read_json(path, folder.path)
    if set(values) != set(keys):
        raise InputError(f"{path}: has {', '.join(values) or 'no keys'}, not {', '.join(keys)}; remove {path.parent}")
    return values
