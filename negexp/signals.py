"""SIGINT, SIGTERM and SIGUSR1 (which Slurm sends ahead of the time limit): stop where nothing is half done.

A run's state is valid at every moment, so stopping is a matter of manners: finish the step, release the lock, say so,
and exit with 130 or 143.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has no SIGUSR1


class Stopped(BaseException):  # like KeyboardInterrupt: no error, and nothing that handles those may eat it
    """A signal asked the process to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.exit_code = 130 if number == signal.SIGINT else 143


class _Request:
    """The signal that asked to stop, until a step looks, and whether Ctrl-C was pressed already."""

    number: int | None = None
    interrupted = False


def check_stop() -> None:
    """Raise `Stopped` when a signal has come within `stops_at_steps`; called before every step."""
    if _Request.number is not None:
        raise Stopped(_Request.number)


@contextmanager
def stops_at_once() -> Iterator[None]:
    """Let a signal raise `Stopped` wherever the program is."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled_by(stop):
        yield


@contextmanager
def stops_at_steps() -> Iterator[None]:
    """Let a signal wait for the next `check_stop`, at the latest for the end; a second SIGINT ends the process."""

    def request(number: int, frame: FrameType | None) -> None:
        if _Request.interrupted and number == signal.SIGINT:
            os._exit(130)  # whatever is being done: every file is whole or absent, and the system frees the lock
        hint = "; once more to stop at once" if number == signal.SIGINT else ""
        with suppress(OSError):  # `2>&1 | head`: nobody reads it
            os.write(2, f"negexp: {signal.Signals(number).name}: stopping at the next step{hint}\n".encode())
        _Request.number = _Request.number or number
        _Request.interrupted |= number == signal.SIGINT

    with _handled_by(request):
        try:
            yield
        finally:
            number, _Request.number, _Request.interrupted = _Request.number, None, False
            if number is not None:  # also when the work ended otherwise: what called it shall stop too
                raise Stopped(number)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    # what the shell told the process to ignore, as in a script's background jobs, it goes on ignoring
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
