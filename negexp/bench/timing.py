"""Time contenders in turns, so that a slow machine slows all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from negexp.progress import progress_bar
from negexp.signals import check_stop


@dataclass(frozen=True)
class Rival:
    """An alternative to negexp: its seconds in each round, and the target for the ratio to negexp's seconds."""

    name: str
    seconds: list[float]
    target: float | None = None

    def ratios(self, negexp_seconds: list[float]) -> list[float]:
        """Return the rival's seconds divided by negexp's seconds, for each round."""
        return [rival / negexp for rival, negexp in zip(self.seconds, negexp_seconds, strict=True)]


@dataclass(frozen=True)
class PhaseResult:
    """The result of one phase: negexp's seconds in each round, its rivals, and a lower bound.

    negexp: how negexp was set up. floor_seconds: the time at the machine's peak rates; `floor` says how it was
    computed. checks: results that were compared. remarks: further measurements, and rivals that are not installed.
    """

    phase: str
    sizes: str
    negexp: str
    seconds: list[float]
    rivals: list[Rival]
    floor_seconds: float | None = None
    floor: str = ""
    checks: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Return negexp's median seconds."""
        return median(self.seconds)


NEGEXP = "negexp"
SHORTEST = 0.2  # seconds: a contender that takes less is called again within its turn


def rivals(seconds: dict[str, list[float]], targets: dict[str, float]) -> list[Rival]:
    """Return all contenders except negexp."""
    return [Rival(name, taken, targets.get(name)) for name, taken in seconds.items() if name != NEGEXP]


class Turns(NamedTuple):
    """The seconds of each contender by round, and the result of its warm-up call."""

    seconds: dict[str, list[float]]
    results: dict[str, Any]


def in_turns(contenders: Mapping[str, Callable[[], object]], repeats: int, phase: str, progress: str) -> Turns:
    """Call all contenders once to warm up, then give each `repeats` turns. The progress bar names the phase.

    A turn is one call, or the mean of as many calls as take `SHORTEST` seconds together.
    """
    turns = Turns({name: [] for name in contenders}, {})
    with _frozen_heap(), progress_bar((repeats + 1) * len(contenders), phase, "turn", progress) as bar:
        for round_ in range(repeats + 1):
            for name, contender in contenders.items():
                check_stop()
                bar.set_description(f"{phase}: {name}")
                gc.collect()
                if round_ == 0:
                    turns.results[name] = contender()
                else:
                    turns.seconds[name].append(_turn(contender))
                bar.update()
    return turns


def _turn(contender: Callable[[], object]) -> float:
    """Return the mean seconds of a call."""
    calls, taken, start = 0, 0.0, time.perf_counter()
    while calls == 0 or taken < SHORTEST:
        contender()
        calls += 1
        taken = time.perf_counter() - start
    return taken / calls


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Keep the garbage collector away from existing objects: visiting them takes a fifth of a second."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
