"""TensorBoard: event files in the run's folder. Each epoch is one file, so telling an epoch again replaces the file."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from negexp.tracking.files import remove_file, write_bytes
from negexp.tracking.tracker import Points, TrackedRun, Tracker, own_folder

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

log = logging.getLogger("negexp")

PREFIX = "events.out.tfevents."  # TensorBoard reads the files of a folder in the order of their names


class TensorBoard(Tracker):
    """Writes `tensorboard/`: scalars, images, and the run's parameters for the tab HPARAMS."""

    def open(self, run: TrackedRun) -> int:
        """Write the parameters; return the number of epochs that have a file."""
        from torch.utils.tensorboard.summary import hparams

        self.path = own_folder(run, "tensorboard")
        known = {key: value if isinstance(value, int | float) else str(value) for key, value in run.parameters.items()}
        shown = [f"result/{split}/{run.monitor}" for split in ("validation", "test")]
        experiment, start, self.end = hparams(known, dict.fromkeys(shown, 0.0))
        self._write(_name(0, "begin", 0), [_event(time(), 0, summary) for summary in (experiment, start)])
        log.info(f"tracker tensorboard: tensorboard --logdir {run.folder.path}")
        return next(epoch for epoch in count() if not self._files("epoch", epoch))

    def log(self, points: Points) -> None:
        """Write a file, with the batches at their numbers and the other values at the epoch."""
        name = _name(points.number, points.kind, points.epoch)
        # a run that has got more epochs has another result, and trains its cross-encoder again
        for earlier in self._files(points.kind, "*" if points.kind == "result" else points.epoch):
            if earlier.name != name:
                remove_file(earlier)
        events = [_scalars(points.time, number, losses) for number, losses in points.batches]
        events.append(_scalars(points.time, points.epoch, points.values))
        if points.kind == "result":
            events.append(_images(points.time, points.epoch, points.figures))
            events.append(_event(points.time, points.epoch, self.end))
        self._write(name, events)

    def _files(self, kind: str, epoch: int | str) -> list[Path]:
        return list(self.path.glob(f"{PREFIX}*-{kind}-{epoch}"))

    def _write(self, name: str, events: Iterable[Event]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        file = io.BytesIO()
        records = RecordWriter(file)
        for event in (Event(file_version="brain.Event:2"), *events):
            records.write(event.SerializeToString())
        write_bytes(self.path / name, file.getvalue())


def _name(number: int, kind: str, epoch: int) -> str:
    return f"{PREFIX}{number:09d}-{kind}-{epoch}"


def _event(seconds: float, step: int, summary: Any) -> Event:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=seconds, step=step, summary=summary)


def _scalars(seconds: float, step: int, values: dict[str, float]) -> Event:
    from tensorboard.compat.proto.summary_pb2 import Summary

    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return _event(seconds, step, Summary(value=scalars))


def _images(seconds: float, step: int, figures: Mapping[str, bytes]) -> Event:
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = []
    for tag, png in figures.items():
        width, height = struct.unpack(">II", png[16:24])  # where a PNG has its size
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)  # 4: RGBA
        values.append(Summary.Value(tag=tag, image=image))
    return _event(seconds, step, Summary(value=values))
