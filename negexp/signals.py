"""Stop cleanly on SIGINT, SIGTERM, and SIGUSR1 or SIGUSR2 (which Slurm sends before the time limit if asked).

A run's files are valid at every moment. So a stop only has to finish the step, release the lock, log a line, and exit
with code 130 or 143.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")  # submitit sends SIGUSR2
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has no SIGUSR1 and SIGUSR2


class Stopped(BaseException):  # not an Exception, like KeyboardInterrupt: `except Exception` must not catch it
    """A signal asked the process to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.name = signal.Signals(number).name
        self.exit_code = 130 if number == signal.SIGINT else 143


Agreement = Callable[[int], int]  # the number of a process's signal, 0 for none -> the largest of all processes


class _Request:
    """The signal that requested a stop and still waits for the next step; whether Ctrl-C was already pressed.

    agree: with several processes, which must stop at the same step.
    """

    number: int | None = None
    interrupted = False
    agree: Agreement | None = None


def check_stop(*, everywhere: bool = False) -> None:
    """Raise `Stopped` if a signal has arrived inside `stops_at_steps`. Called before every step.

    Several processes stop only where all of them make this call in the same order: with `everywhere`.
    """
    number = _Request.number
    if _Request.agree is not None:
        number = (_Request.agree(number or 0) or None) if everywhere else None
    if number is not None:
        raise Stopped(number)


@contextmanager
def stops_at_once() -> Iterator[None]:
    """Make a signal raise `Stopped` wherever the program is.

    The signal may interrupt code of another library whose cleanup then fails and raises its own error. `Stopped` takes
    the place of that error.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise Stopped(number)

    with _handled_by(stop):
        try:
            yield
        except Exception:
            if received:
                raise Stopped(received[0]) from None
            raise


@contextmanager
def stops_at_steps(agree: Agreement | None = None) -> Iterator[None]:
    """Delay signals until the next `check_stop` or the end of the block; a second SIGINT ends the process."""

    def request(number: int, frame: FrameType | None) -> None:
        if _Request.interrupted and number == signal.SIGINT:
            os._exit(130)  # safe at any time: every file is whole or absent, and the system frees the lock
        hint = "; press again to stop at once" if number == signal.SIGINT else ""
        with suppress(OSError):  # the reader is gone, as with `2>&1 | head`
            os.write(2, f"negexp: {signal.Signals(number).name}: stopping at the next step{hint}\n".encode())
        _Request.number = _Request.number or number
        _Request.interrupted |= number == signal.SIGINT

    _Request.agree = agree
    with _handled_by(request):
        try:
            yield
        finally:
            number, _Request.number, _Request.interrupted, _Request.agree = _Request.number, None, False, None
            if number is not None:  # even if the block has ended: its caller must stop too
                raise Stopped(number)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    handled = [number for number in SIGNALS if not _is_ignored(number)]
    before = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _is_ignored(number: int) -> bool:
    """Tell whether a signal is ignored: by the shell, as for a script's background jobs, or by a process of submitit.

    A scheduler that preempts a job sends SIGTERM first. submitit waits for SIGUSR2, and then queues the job again.
    """
    handler = signal.getsignal(number)
    owner, name = str(getattr(handler, "__module__", "")), getattr(handler, "__name__", "")
    return handler is signal.SIG_IGN or (owner.startswith("submitit.") and name == "bypass")
