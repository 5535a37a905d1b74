"""Timing contenders in turns, so that what slows the machine slows all of them."""

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
    """What stands beside negexp's own way: its seconds in each round, and the ratio that was aimed at."""

    name: str
    seconds: list[float]
    target: float | None = None

    def ratios(self, ours: list[float]) -> list[float]:
        """Return, round by round, how many times longer it took than negexp."""
        return [theirs / own for theirs, own in zip(self.seconds, ours, strict=True)]


@dataclass(frozen=True)
class PhaseResult:
    """One phase: negexp's seconds in each round, its rivals, and what bounds it.

    floor_seconds: what the machine's peak rates would allow, `floor` says how it was computed. checks: what was found
    to be equal. remarks: what was left out, and why.
    """

    phase: str
    sizes: str
    ours: str
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


def rivals(seconds: dict[str, list[float]], targets: dict[str, float]) -> list[Rival]:
    """Return all contenders but negexp itself."""
    return [Rival(name, taken, targets.get(name)) for name, taken in seconds.items() if name != NEGEXP]


class Turns(NamedTuple):
    """What contenders took, by round, and what each returned when it warmed up."""

    seconds: dict[str, list[float]]
    first: dict[str, Any]


def in_turns(contenders: Mapping[str, Callable[[], object]], repeats: int, phase: str, progress: str) -> Turns:
    """Call all contenders once to warm up, then `repeats` times in turns, with a bar that names the phase."""
    turns = Turns({name: [] for name in contenders}, {})
    with _frozen_heap(), progress_bar((repeats + 1) * len(contenders), phase, "call", progress) as bar:
        for round_ in range(repeats + 1):
            for name, contender in contenders.items():
                check_stop()
                bar.set_description(f"{phase}: {name}")
                gc.collect()
                start = time.perf_counter()
                result = contender()
                taken = time.perf_counter() - start
                if round_ == 0:
                    turns.first[name] = result
                else:
                    turns.seconds[name].append(taken)
                bar.update()
    return turns


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Spare collections within the objects that are there already: going through them takes a fifth of a second."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
