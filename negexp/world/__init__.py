"""The processes of a run: usually one; several where torchrun, or another launcher of torch, started them.

All processes run the same program. Each embeds, searches and ranks a share, and all get the whole. The main process
(rank 0) alone writes the run's folder and speaks to the user.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from negexp.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = TypeVar("Value")


class ToldError(InputError):
    """A wrong input that the main process reports; the other processes end silently with it."""


class LostProcessError(Exception):
    """Another process of the run has ended, so this one cannot go on."""


class World:
    """One process alone: every share is the whole, and every exchange returns what it got."""

    rank, size, local_rank = 0, 1, 0

    @property
    def main(self) -> bool:
        """Return whether this process writes the run's folder."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Return the places in 0 .. count - 1 that are this process's: every `size`-th one."""
        return range(self.rank, count, self.size)

    def gather(self, part: Tensor) -> list[Tensor]:
        """Return the tensors (rows, ...) of all processes, by rank; they may differ in their rows."""
        return [part]

    def gather_rows(self, part: Tensor) -> Tensor:
        """Return the rows of all processes' tensors, by rank, with gradients for the rows of this process.

        Every process computes the same loss from the result. The gradient of its own rows is multiplied by `size`, so
        that `average_gradients` gives the gradient that one process would have.
        """
        return part

    def order(self, place: Tensor) -> Tensor:
        """Return the order that puts the rows of `gather_rows` in their places.

        place: (rows,) of this process's rows. All processes together have each of 0 .. rows - 1 once.
        """
        return place.argsort()

    def fill(self, rows: Tensor, computed: Tensor) -> None:
        """Copy into `rows` (rows, ...) what other processes have computed; `computed` are the places of this one's."""

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return the bytes of all processes, by rank."""
        return [data]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; where a process has none, it counts as zero."""

    def tell(self, value: Any) -> Any:
        """Return the main process's value, which JSON can hold."""
        return value

    def largest(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        return number

    def together(self, work: Callable[[], Value]) -> Value:
        """Do some work in every process. If the input is wrong for one of them, all raise `InputError`."""
        return work()

    def on_main(self, work: Callable[[], Any]) -> Any:
        """Do some work in the main process; return its value, which JSON can hold, or raise its `InputError`."""
        return work()

    def copy(self, folder: Path) -> None:
        """Give a folder of files of the main process to the others, which have it below their `own_folder`."""

    def own_folder(self, folder: Path) -> Path:
        """Return the folder that this process writes: the given one, or a temporary one beside the main process."""
        return folder


class Elsewhere:
    """The temporary folder of a process that is not the main one; it is removed when the process ends."""

    folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def path(cls) -> Path:
        """Return the folder."""
        if cls.folder is None:
            cls.folder = tempfile.TemporaryDirectory(prefix="negexp-rank-")
            atexit.register(cls.folder.cleanup)
        return Path(cls.folder.name)


_world = World()


def current() -> World:
    """Return the world that this process has joined; without `join`, it is alone."""
    return _world


def started() -> tuple[int, int]:
    """Return rank and number of the processes, as torchrun sets them for each process that it starts."""
    try:
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        rank, size = -1, -1
    if not 0 <= rank < size:
        raise InputError(
            f"RANK={os.environ.get('RANK')}, WORLD_SIZE={os.environ.get('WORLD_SIZE')}: are set by torchrun, and these "
            "fit no process; unset them, or start negexp with torchrun"
        )
    return rank, size


def join() -> World:
    """Join the other processes of a run, if a launcher has started several; return the world.

    All but the main process stop logging.

    Raises
    ------
    InputError
        When the variables of torchrun are missing or wrong, or the processes cannot be reached.
    """
    global _world
    _submitit_environment()
    if started()[1] > 1 and _world.size == 1:
        from negexp.world.processes import connect

        _world = connect()
        if not _world.main:
            logging.disable(logging.WARNING)
    return _world


def is_silent(error: InputError) -> bool:
    """Return whether another process reports this error: before they have met, the main one reports all."""
    rank = os.environ.get("RANK", "0")
    return rank != "0" and (_world.size == 1 or isinstance(error, ToldError))


def _submitit_environment() -> None:
    """Set torchrun's variables in a task of a job of submitit that has several tasks."""
    submitit: Any = sys.modules.get("submitit")  # it is imported in each process that it starts
    if submitit is None or "WORLD_SIZE" in os.environ:
        return
    try:
        tasks = submitit.JobEnvironment().num_tasks
    except RuntimeError:  # no job, but the process that submits jobs
        return
    if tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
