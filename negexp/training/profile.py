"""The time of an epoch by phase, and of a few of its steps by part and operator."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile, schedule

from negexp.runtime import Runtime
from negexp.tracking import RunFolder
from negexp.tracking.listener import Epoch, Listener, Refresh

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("negexp")

PARTS = ("forward", "backward", "optimizer")  # parts of a step
SKIPPED, WARM_UP, PROFILED = 1, 1, 3  # steps; the first ones allocate memory that later ones reuse


@contextmanager
def part(name: str) -> Iterator[None]:
    """Mark a part of a step for the profiler."""
    with record_function(f"negexp.{name}"):
        yield


class StepProfile:
    """Profiles a few steps of an epoch. Call `step` after each step."""

    def __init__(self, runtime: Runtime) -> None:
        activities = [ProfilerActivity.CPU]
        if runtime.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self.steps, self.own_seconds = 0, 0.0  # own_seconds: the time of the profiling itself
        self._profiler = profile(
            activities=activities,
            schedule=schedule(skip_first=SKIPPED, wait=0, warmup=WARM_UP, active=PROFILED, repeat=1),
            on_trace_ready=self._store_results,
        )
        import pandas as pd

        self.operators = pd.DataFrame(columns=["operator", "calls", "seconds", "self_seconds", "share"])
        self.parts: dict[str, float] = {}

    def start(self) -> None:
        """Start before the first step."""
        self._profiler.start()

    def stop(self) -> None:
        """Stop after the last step."""
        start = time.perf_counter()
        self._profiler.stop()
        self.own_seconds += time.perf_counter() - start

    @property
    def profiled(self) -> int:
        """Return the number of profiled steps so far."""
        return max(0, min(PROFILED, self.steps - SKIPPED - WARM_UP))

    def step(self) -> None:
        """Record the end of a step."""
        self.steps += 1
        start = time.perf_counter()
        self._profiler.step()
        self.own_seconds += time.perf_counter() - start

    def _store_results(self, profiler: profile) -> None:
        rows = []
        for event in profiler.key_averages():
            own = (event.self_cpu_time_total + event.self_device_time_total) / 1e6
            whole = max(event.cpu_time_total, event.device_time_total) / 1e6
            name = str(event.key)
            if name.startswith("negexp."):
                self.parts[name.removeprefix("negexp.")] = whole
            elif not name.startswith("ProfilerStep"):
                rows.append({"operator": name, "calls": event.count, "seconds": whole, "self_seconds": own})
        import pandas as pd

        table = pd.DataFrame(rows, columns=["operator", "calls", "seconds", "self_seconds"])
        table["share"] = table["self_seconds"] / table["self_seconds"].sum()
        self.operators = table.sort_values("self_seconds", ascending=False, kind="stable").reset_index(drop=True)


class ProfileListener(Listener):
    """Profiles the first epoch of a process, and writes profile/ after its commit."""

    def __init__(self, folder: RunFolder, runtime: Runtime) -> None:
        self.folder, self.runtime = folder, runtime
        self.running: StepProfile | None = None
        self.done = False

    def refreshed(self, refresh: Refresh) -> None:
        """Start after the first refresh of the negatives."""
        if not self.done and self.running is None:
            self.running = StepProfile(self.runtime)
            self.running.start()

    def step(self, number: int, losses: Mapping[str, Any]) -> None:
        """Count a step."""
        if self.running is not None and not self.done:
            self.running.step()

    def trained(self, epoch: int) -> None:
        """Stop after the first epoch."""
        if self.running is not None and not self.done:
            self.running.stop()
            self.done = True

    def committed(self, epoch: Epoch) -> None:
        """Write and log the profile of the epoch."""
        if self.running is None:
            return
        seconds = {name: value for name, value in epoch.row.items() if name.startswith("seconds_")}
        phases = phase_table(seconds, self.running)
        self.folder.write_profile(phases, self.running.operators)
        log.info(f"{profile_text(phases)}; operators in {self.folder.profile}")
        self.running = None


def phase_table(seconds: dict[str, float], profiled: StepProfile) -> pd.DataFrame:
    """Return the phases of the epoch (phase, seconds, share); `train` is divided into the parts of a step.

    `train/other` is the rest of the train phase. The time of the profiling itself is left out. Without a profiled step
    (in a very short epoch), `train` stays one phase.
    """
    import pandas as pd

    rows = {name.removeprefix("seconds_"): value for name, value in seconds.items()}
    rows["train"] -= profiled.own_seconds
    inside = {name: profiled.parts.get(name, 0.0) for name in PARTS}
    if profiled.parts and profiled.profiled:
        whole, scale = rows.pop("train"), profiled.steps / profiled.profiled
        scale = min(scale, whole / sum(inside.values()))  # profiled steps are a little slower
        split = {f"train/{name}": value * scale for name, value in inside.items()}
        rows |= split | {"train/other": max(0.0, whole - sum(split.values()))}
    table = pd.DataFrame({"phase": list(rows), "seconds": list(rows.values())})
    table["share"] = table["seconds"] / table["seconds"].sum()
    return table


def outside_passes(table: pd.DataFrame) -> float:
    """Return the share of an epoch outside forward and backward passes; embedding counts as a forward pass."""
    inside = table["phase"].isin(["embed", "train", "train/forward", "train/backward"])
    return float(table.loc[~inside, "share"].sum())


def profile_text(table: pd.DataFrame) -> str:
    """Return the phases as a table for the log, with the share of the epoch outside forward and backward passes."""
    lines = table.to_string(index=False, float_format="{:.4f}".format)
    return f"{lines}\noutside forward and backward passes: {outside_passes(table):.1%}"
