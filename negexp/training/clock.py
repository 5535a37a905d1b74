"""Measure seconds by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from negexp.runtime import Runtime


class PhaseClock:
    """Seconds by phase. The time of a nested phase does not count for the outer one.

    A phase ends when the GPU has finished its queued work.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []  # for each running phase, the seconds of its nested phases

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Measure a block as part of a phase."""
        start = time.perf_counter()
        self._inner.append(0.0)
        yield
        self.runtime.synchronize()
        whole = time.perf_counter() - start
        self.seconds[phase] += whole - self._inner.pop()
        if self._inner:
            self._inner[-1] += whole

    def take(self, phases: Sequence[str]) -> dict[str, float]:
        """Return `seconds_<phase>` of these phases since the last call, and reset them."""
        return {f"seconds_{phase}": self.seconds.pop(phase, 0.0) for phase in phases}
