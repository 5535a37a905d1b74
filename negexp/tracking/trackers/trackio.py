"""trackio: a run in its local store, where the last number says what it has been told."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from negexp.tracking.tracker import Points, ProjectOptions, TrackedRun, Tracker, group_of

log = logging.getLogger("negexp")


class Trackio(Tracker):
    """Tells a run that is named by the run's folder and the beginning of its id."""

    Options = ProjectOptions
    options: ProjectOptions

    def open(self, run: TrackedRun) -> int:
        """Start the run, or continue it. trackio counts rows and not epochs: it is told everything, and `log` skips."""
        import trackio

        name = f"{run.name}-{run.id[:8]}"  # trackio finds a run by its name
        with redirect_stdout(io.StringIO()):
            self.run = trackio.init(
                project=self.options.project,
                name=name,
                group=group_of(run, self.options),
                config=run.parameters,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.next = self.run._next_step  # trackio's pinned range is that for which this is tested
        log.info(f"tracker trackio: {name}; trackio show --project {self.options.project}")
        return 0

    def log(self, points: Points) -> None:
        """Tell of a row for each batch, in order, and of one for the result, with its figures."""
        for number, row in points.rows():
            if number >= self.next:
                self.run.log(row | self._images(points.figures), step=number)

    def _images(self, figures: Mapping[str, bytes]) -> dict[str, Any]:
        import trackio
        from PIL import Image

        return {name: trackio.Image(Image.open(io.BytesIO(png))) for name, png in figures.items()}

    def close(self, finished: bool) -> None:
        """Wait until trackio has stored everything."""
        import trackio

        with redirect_stdout(io.StringIO()):
            trackio.finish()
