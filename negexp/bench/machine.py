"""The machine: its description, and the peak rates that bound every phase."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch

from negexp.processor import has_instructions, processor_name
from negexp.progress import progress_bar
from negexp.runtime import Runtime

PACKAGES = (
    "torch",
    "transformers",
    "scikit-learn",
    "numpy",
    "sentence-transformers",
    "faiss-cpu",
    "datasets",
    "accelerate",
)
# Rows, inner and columns of the product that measures a device's rate: a layer's on a CPU; a GPU needs a large one.
PRODUCT = {"cpu": (4096, 1536, 384), "mps": (4096, 4096, 4096), "cuda": (8192, 8192, 8192)}
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


@dataclass(frozen=True)
class Machine:
    """The machine and the runtime of a benchmark; None where a value is not known. peak: see `peak_rates`."""

    processor: str
    instructions: list[str]
    cores: int | None
    memory_bytes: int | None
    system: str
    device: str
    runtime: str
    threads: int
    precision: str
    python: str
    versions: dict[str, str | None]
    peak: dict[str, float]


def describe_machine(runtime: Runtime) -> Machine:
    """Return the machine with its measured peak rates."""
    return Machine(
        processor=processor_name(),
        instructions=[name for name in INSTRUCTIONS if has_instructions(name)],
        cores=os.cpu_count(),
        memory_bytes=_memory_bytes(),
        system=platform.platform(),
        device=str(runtime.device),
        runtime=runtime.describe(),
        threads=runtime.threads,
        precision="bfloat16 autocast" if runtime.bfloat16 else "float32",
        python=platform.python_version(),
        versions={name: _version(name) for name in PACKAGES},
        peak=peak_rates(runtime),
    )


def peak_rates(runtime: Runtime) -> dict[str, float]:
    """Return measured operations per second (`float32_flops`, `bfloat16_flops`) and bytes per second (`copy_bytes`)."""
    rates, (rows, inner, columns) = {}, PRODUCT[runtime.device.type]
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(rows, inner, device=runtime.device).to(dtype)
        b = torch.randn(inner, columns, device=runtime.device).to(dtype)
        seconds = _best(lambda: a @ b, runtime)  # noqa: B023
        rates[f"{str(dtype).removeprefix('torch.')}_flops"] = 2 * rows * inner * columns / seconds
    source = torch.ones(2**26, device=runtime.device)
    target = torch.empty_like(source)
    rates["copy_bytes"] = 2 * source.numel() * 4 / _best(lambda: target.copy_(source), runtime)
    return rates


class ResourceUse(NamedTuple):
    """The seconds of a piece of work, and the peak growth of the process in bytes; None where it cannot be measured."""

    seconds: float
    peak_bytes: int | None


def measure(work: Callable[[], object]) -> ResourceUse:
    """Do the work once and measure it."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # glibc keeps freed memory
    before = _reset_peak()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return ResourceUse(seconds, None if before is None else _status("VmHWM") - before)


def measure_all(work: Mapping[str, Callable[[], object]], phase: str, progress: str) -> dict[str, ResourceUse]:
    """Do each piece of work once and measure it. The progress bar names it."""
    uses = {}
    with progress_bar(len(work), phase, "call", progress) as bar:
        for name, one in work.items():
            bar.set_description(f"{phase}: {name}")
            uses[name] = measure(one)
            bar.update()
    return uses


def _best(work: Callable[[], object], runtime: Runtime) -> float:
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        work()
        runtime.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _reset_peak() -> int | None:
    """Reset the peak memory that Linux records for this process, and return the present memory."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return _status("VmHWM")
    except OSError:
        return None


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
