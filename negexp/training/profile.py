"""Where an epoch's time goes: by phase, and for a few of its steps by part and by operator."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile, schedule

from negexp.runtime import Runtime
from negexp.tracking import RunFolder
from negexp.tracking.listener import Epoch, Listener, Refresh

log = logging.getLogger("negexp")

PARTS = ("forward", "backward", "optimizer")  # of a step
SKIPPED, WARM_UP, PROFILED = 1, 1, 3  # steps; the first ones allocate what later ones find


@contextmanager
def part(name: str) -> Iterator[None]:
    """Mark what a part of a step does, for a profiler that may be running."""
    with record_function(f"negexp.{name}"):
        yield


class StepProfile:
    """Profiles a few steps; `step` is to be called after each one of an epoch."""

    def __init__(self, runtime: Runtime) -> None:
        activities = [ProfilerActivity.CPU]
        if runtime.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self.steps, self.own_seconds = 0, 0.0  # the latter: what profiling itself took
        self._profiler = profile(
            activities=activities,
            schedule=schedule(skip_first=SKIPPED, wait=0, warmup=WARM_UP, active=PROFILED, repeat=1),
            on_trace_ready=self._keep,
        )
        self.operators = pd.DataFrame(columns=["operator", "calls", "seconds", "self_seconds", "share"])
        self.parts: dict[str, float] = {}

    def start(self) -> None:
        """Start; the steps follow."""
        self._profiler.start()

    def stop(self) -> None:
        """Stop after the last step."""
        start = time.perf_counter()
        self._profiler.stop()
        self.own_seconds += time.perf_counter() - start

    @property
    def profiled(self) -> int:
        """Return how many of the steps so far were profiled."""
        return max(0, min(PROFILED, self.steps - SKIPPED - WARM_UP))

    def step(self) -> None:
        """Say that a step has ended."""
        self.steps += 1
        start = time.perf_counter()
        self._profiler.step()
        self.own_seconds += time.perf_counter() - start

    def _keep(self, profiler: profile) -> None:
        rows = []
        for event in profiler.key_averages():
            own = (event.self_cpu_time_total + event.self_device_time_total) / 1e6
            whole = max(event.cpu_time_total, event.device_time_total) / 1e6
            name = str(event.key)
            if name.startswith("negexp."):
                self.parts[name.removeprefix("negexp.")] = whole
            elif not name.startswith("ProfilerStep"):
                rows.append({"operator": name, "calls": event.count, "seconds": whole, "self_seconds": own})
        table = pd.DataFrame(rows, columns=["operator", "calls", "seconds", "self_seconds"])
        table["share"] = table["self_seconds"] / table["self_seconds"].sum()
        self.operators = table.sort_values("self_seconds", ascending=False, kind="stable").reset_index(drop=True)


class ProfileListener(Listener):
    """Profiles the first epoch of a process, and writes profile/ once it is committed."""

    def __init__(self, folder: RunFolder, runtime: Runtime) -> None:
        self.folder, self.runtime = folder, runtime
        self.running: StepProfile | None = None
        self.done = False

    def refreshed(self, refresh: Refresh) -> None:
        """Start, once the first negatives are there."""
        if not self.done and self.running is None:
            self.running = StepProfile(self.runtime)
            self.running.start()

    def step(self, number: int, losses: Mapping[str, Any]) -> None:
        """Count a step."""
        if self.running is not None and not self.done:
            self.running.step()

    def trained(self, epoch: int) -> None:
        """Stop: one epoch is enough."""
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
    """Return the epoch's phases, the train phase by the parts of its steps: phase, seconds, share of the epoch.

    `train/other` is what steps do beside their parts, and what lies between them; what profiling itself took is left
    out. Without a profiled step (an epoch of very few) `train` stays one phase.
    """
    rows = {name.removeprefix("seconds_"): value for name, value in seconds.items()}
    rows["train"] -= profiled.own_seconds
    inside = {name: profiled.parts.get(name, 0.0) for name in PARTS}
    if profiled.parts and profiled.profiled:
        whole, as_often = rows.pop("train"), profiled.steps / profiled.profiled
        as_often = min(as_often, whole / sum(inside.values()))  # profiled steps take a little longer
        split = {f"train/{name}": value * as_often for name, value in inside.items()}
        rows |= split | {"train/other": max(0.0, whole - sum(split.values()))}
    table = pd.DataFrame({"phase": list(rows), "seconds": list(rows.values())})
    table["share"] = table["seconds"] / table["seconds"].sum()
    return table


def outside_passes(table: pd.DataFrame) -> float:
    """Return the share of an epoch outside of the model's forward and backward passes; embedding is one of these."""
    inside = table["phase"].isin(["embed", "train", "train/forward", "train/backward"])
    return float(table.loc[~inside, "share"].sum())


def profile_text(table: pd.DataFrame) -> str:
    """Return the phases as a table for the log, and how much of the epoch lay outside of the model's passes."""
    lines = table.to_string(index=False, float_format="{:.4f}".format)
    return f"{lines}\noutside of forward and backward passes: {outside_passes(table):.1%}"
