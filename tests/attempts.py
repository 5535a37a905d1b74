"""Attempts at a run, each a process that can be killed: a small server imports everything once and forks an attempt.

A new Python spends seconds on imports, a fork milliseconds, and what is killed is a process like any other. Used by
`test_recovery.py` as `Attempts()`, and run by it as a script.
"""

from __future__ import annotations

import copy
import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    from negexp.config import TrainConfig


class Ended(NamedTuple):
    """How an attempt ended: exit code (negative: the signal that killed it), what it printed, its file operations."""

    code: int
    out: str
    err: str
    operations: list[str]
    seconds: float


class Attempts:
    """The server's other end."""

    def __enter__(self) -> Attempts:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait()

    def __call__(self, folder: Path, *arguments: str, **fault: Any) -> Ended:
        """Run `negexp ARGUMENTS` in a folder, with a fault (see `set_fault`), and return how it ended.

        With `direct=True`, ARGUMENTS are overrides of `train` and the run goes to `run/`, without Hydra around it.
        """
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps([str(folder), arguments, fault]), file=self.server.stdin, flush=True)
        code, seconds = json.loads(self.server.stdout.readline())
        out, err = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        recorded = folder / "operations"  # missing when the kill came before the process started to record
        operations = recorded.read_text().splitlines() if recorded.exists() else []
        return Ended(code, out, err, operations, seconds)


# --- in the server's process --------------------------------------------------------------------------------------


def serve() -> None:
    """Fork an attempt for every line on stdin, and answer with its exit code and seconds."""

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in a shell's background is told to ignore it
    for line in sys.stdin:
        folder, arguments, fault = json.loads(line)
        if fault.get("direct"):
            compose_once(*arguments)
        started = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            attempt(Path(folder), arguments, fault)
        if "after" in fault:
            time.sleep(fault["after"])
            os.kill(pid, fault.get("signal", signal.SIGKILL))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([code, time.perf_counter() - started]), flush=True)


def attempt(folder: Path, arguments: list[str], fault: dict[str, Any]) -> None:
    """Be the attempt: run the command line with its output in files, and never return."""
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    code = 1
    try:
        set_fault(fault)
        code = run_directly(arguments) if fault.get("direct") else run_command_line(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_command_line(arguments: list[str]) -> int:
    from negexp.cli import main

    return main(arguments)


@cache
def compose_once(*overrides: str) -> TrainConfig:
    from conftest import compose_train

    return compose_train(*overrides)


def run_directly(overrides: list[str]) -> int:
    from negexp.cli import _guarded
    from negexp.commands import train

    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
    return _guarded(lambda: print(train.run(compose_once(*overrides), Path("run"), overrides)))


def set_fault(fault: dict[str, Any]) -> None:
    """Arrange what is to go wrong.

    operation=N, error=NAME or signal=S: before the N-th file operation raise that OSError, or send that signal.
    before=TEXT, times=N: the same before the N-th operation that the journal has in these words.
    phase=NAME, signals=[S, ...]: send the signals when that phase begins, its `times`-th time.
    forget=PART: a negative control; do not restore that part.
    """
    from negexp.training.clock import PhaseClock

    set_operation_fault(fault)
    if "phase" in fault:
        enter, seen = PhaseClock.__call__, []

        def clock(self: PhaseClock, phase: str) -> AbstractContextManager[None]:
            seen.append(phase)
            if phase == fault["phase"] and seen.count(phase) == fault.get("times", 1):
                for number in fault["signals"]:
                    os.kill(os.getpid(), number)
            return enter(self, phase)

        PhaseClock.__call__ = clock  # type: ignore[method-assign, assignment]
    if "forget" in fault:
        forget(fault["forget"])


def set_operation_fault(fault: dict[str, Any]) -> None:
    """Count file operations, and fail at one of them."""
    from negexp.tracking import files

    count = named = 0
    # through a descriptor of its own, so that all are there however the process ends
    journal = os.open("operations", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

    def before_operation(operation: str, path: Path) -> None:
        nonlocal count, named
        count += 1
        named += f"{operation} {path.name}" == fault.get("before")
        os.write(journal, f"{operation} {path.name}\n".encode())
        if count == fault.get("operation") or (named and named == fault.get("times", 1)):
            if "error" in fault:
                number = getattr(errno, fault["error"])
                raise OSError(number, os.strerror(number))
            os.kill(os.getpid(), fault.get("signal", signal.SIGKILL))

    files.before_operation = before_operation


def forget(part: str) -> None:
    """Leave one part of a commit unrestored."""
    from negexp.training.loop import Experiment

    restore = Experiment.restore

    def restore_but(self: Experiment, *arguments: Any) -> None:
        weights = {name: value.clone() for name, value in self.trainee.model.state_dict().items()}
        schedule = copy.deepcopy(self.trainee.rate.state_dict())
        restore(self, *arguments)
        if part == "weights":
            self.trainee.model.load_state_dict(weights)
        elif part == "optimizer":
            self.trainee.optimizer.state.clear()
        elif part == "schedule":
            self.trainee.rate.load_state_dict(schedule)
        elif part == "negatives":
            self.progress.negatives = None
        elif part == "best":
            self.progress.best_value = -float("inf")
        else:
            del self.progress.history[0][part]  # a column of metrics.csv

    Experiment.restore = restore_but  # type: ignore[method-assign, assignment]


# --- comparing what attempts came to ------------------------------------------------------------------------------


def contents(run: Path) -> dict[str, object]:
    """Return all that a finished run promises to the bit: every file, seconds taken out where seconds are written."""
    found: dict[str, object] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = str(path.relative_to(run))
        if name in (".lock", "train.log") or path.name == "manifest.json":
            continue
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype=str)
            found[name] = table[[column for column in table if not str(column).startswith("seconds_")]].to_csv()
        elif path.name in ("state.json", "result.json"):
            found[name] = without_seconds(json.loads(path.read_bytes()))
        else:
            found[name] = path.read_bytes()
    return found


def without_seconds(value: Any) -> Any:
    """Return a JSON value without what depends on the clock."""
    if isinstance(value, dict):
        return {key: without_seconds(child) for key, child in value.items() if not key.startswith("seconds")}
    if isinstance(value, list):
        return [without_seconds(child) for child in value]
    return value


def differences(run: Path, reference: Path) -> list[str]:
    """Return the names of the files in which two finished runs differ."""
    ours, theirs = contents(run), contents(reference)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def random_moments(seed: int, longest: float, count: int) -> list[float]:
    """Return the seconds after which attempts are killed."""
    draw = random.Random(seed)
    return [draw.uniform(0, longest) for _ in range(count)]


if __name__ == "__main__":
    serve()
