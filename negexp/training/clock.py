"""Seconds by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from negexp.runtime import Runtime


class PhaseClock:
    """Seconds by phase; a phase within another counts for itself only.

    Work that a GPU still has in its queue belongs to the phase that put it there.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []  # seconds of the phases within each phase that is running

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count what is done within for a phase."""
        start = time.perf_counter()
        self._inner.append(0.0)
        yield
        self.runtime.synchronize()
        whole = time.perf_counter() - start
        self.seconds[phase] += whole - self._inner.pop()
        if self._inner:
            self._inner[-1] += whole

    def take(self, phases: Sequence[str]) -> dict[str, float]:
        """Return `seconds_<phase>` of these phases since they were last taken, and start them anew."""
        return {f"seconds_{phase}": self.seconds.pop(phase, 0.0) for phase in phases}
