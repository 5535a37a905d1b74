"""Weights & Biases. Online, the server knows the last step; offline, a run that goes on is written anew."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from negexp.components import option
from negexp.tracking.files import remove_folder
from negexp.tracking.tracker import Points, ProjectOptions, TrackedRun, Tracker, group_of, own_folder

log = logging.getLogger("negexp")

MODES = ("online", "offline", "disabled")


@dataclass
class WandbOptions(ProjectOptions):
    """The keys of the tracker `wandb`."""

    entity: str | None = option("the user or team; null: your default")
    mode: str | None = option("null: WANDB_MODE, else online", choices=MODES)
    system: bool = option("true: W&B also records the machine, and how busy it is")


class Wandb(Tracker):
    """Tells a run with the id of the run's folder; its own files are in `wandb/` of that folder."""

    Options = WandbOptions
    options: WandbOptions

    def open(self, run: TrackedRun) -> int:
        """Start the run, or continue it. W&B counts steps and not epochs, so it is told everything and `log` skips."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
        import wandb

        path, offline = own_folder(run, "wandb"), self._mode() == "offline"
        if offline:  # a kill loses what W&B has not written yet, and it cannot add to an offline run
            for earlier in path.glob(f"offline-run-*-{run.id}"):
                remove_folder(earlier)
        self.run = wandb.init(
            entity=self.options.entity,
            project=self.options.project,
            id=run.id,
            name=run.name,
            group=group_of(run, self.options),
            dir=run.folder.path,
            config=run.parameters,
            mode=self._mode(),
            resume=None if offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, save_code=False, x_disable_machine_info=not self.options.system
            ),
        )
        self.defined = {"batch", "epoch", "reranker/epoch"}  # the axes
        self.next = 0 if offline else self.run.step
        place = f"wandb sync {self.run.settings.sync_dir}" if offline else self.run.url
        log.info(f"tracker wandb: {place}")
        return 0

    def log(self, points: Points) -> None:
        """Tell of a row for each batch, in order; the result is the summary, and its figures are a row."""
        if points.kind == "result":
            if points.figures and points.number >= self.next:
                self.run.log(self._images(points.figures), step=points.number)
            self.run.summary.update(points.values)
            return
        self._define("batch", {name for _, losses in points.batches for name in losses})
        self._define("reranker/epoch" if points.kind == "reranker" else "epoch", set(points.values))
        for number, row in points.rows():
            if number >= self.next:
                self.run.log(row, step=number)

    def close(self, finished: bool) -> None:
        """End the process's part of the run."""
        self.run.finish(exit_code=0 if finished else 1)

    def _define(self, axis: str, names: set[str]) -> None:
        """Choose the axis of metrics. W&B would also fill in the axis in rows without it."""
        for name in sorted(names - self.defined):
            self.run.define_metric(name, step_metric=axis, step_sync=False)
        self.defined |= names

    def _images(self, figures: Mapping[str, bytes]) -> dict[str, Any]:
        import wandb
        from PIL import Image

        return {name: wandb.Image(Image.open(io.BytesIO(png)), file_type="png") for name, png in figures.items()}

    def _mode(self) -> str:
        return self.options.mode or os.environ.get("WANDB_MODE") or "online"
