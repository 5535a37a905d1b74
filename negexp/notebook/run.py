"""`load_run`: what a notebook asks of the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from negexp.errors import InputError
from negexp.tracking.stored_run import StoredRun

if TYPE_CHECKING:
    from negexp.notebook.encoder import Encoder


class Run(StoredRun):
    """A run: `config`, `state`, `metrics`, `negatives(epoch)`, `ranks(split)`, `result`, `best()` and `encoder()`."""

    def encoder(self, device: str = "auto") -> Encoder:
        """Return the run's encoder with the weights of its best epoch; of an unfinished run, the best so far.

        Parameters
        ----------
        device
            `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` or `mps`.

        Raises
        ------
        InputError
            When the run has no commit yet, its files are damaged, or there is no such device.
        """
        from negexp.notebook.encoder import Encoder

        return Encoder.of_run(self, device)

    def __repr__(self) -> str:
        """Return the run in one line, as a notebook shows it."""
        try:
            best, epochs = self.best(), len(self.metrics)
        except InputError as error:  # whoever shows a run gets no traceback
            return f"<run {self.name}, damaged: {error}>"
        reached = "no epoch yet" if best is None else f"best {best.value:.4f} in epoch {best.epoch} ({self.monitor})"
        return f"<run {self.name}, {self.state}: {epochs} epochs, {reached}; {self.folder}>"


def load_run(folder: Path | str) -> Run:
    """Return the run of a folder that `negexp train` wrote, finished or not. Its tables are read when asked for.

    Raises
    ------
    InputError
        When the folder has no config.yaml, or one of a version that this one cannot read.
    """
    return Run.open(folder)
