"""The machine: what it is called, and the rates that bound every phase."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch

from negexp.processor import has_instructions
from negexp.progress import progress_bar
from negexp.runtime import Runtime

PACKAGES = ("torch", "transformers", "scikit-learn", "numpy", "sentence-transformers", "faiss-cpu", "datasets")
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def describe_machine(runtime: Runtime) -> dict[str, Any]:
    """Return processor, memory, versions, threads, precision and measured peak rates."""
    return {
        "processor": _processor(),
        "instructions": [name for name in INSTRUCTIONS if has_instructions(name)],
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "system": platform.platform(),
        "device": str(runtime.device),
        "runtime": runtime.describe(),
        "threads": runtime.threads,
        "precision": "bfloat16 autocast" if runtime.bfloat16 else "float32",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "peak": peak_rates(runtime),
    }


def peak_rates(runtime: Runtime) -> dict[str, float]:
    """Return measured floating-point operations a second by precision, and bytes a second of a copy."""
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(4096, 1536, device=runtime.device).to(dtype)
        b = torch.randn(1536, 384, device=runtime.device).to(dtype)
        rates[f"{str(dtype).removeprefix('torch.')}_flops"] = 2 * 4096 * 1536 * 384 / _best(lambda: a @ b, runtime)  # noqa: B023
    source = torch.ones(2**26, device=runtime.device)
    target = torch.empty_like(source)
    rates["copy_bytes"] = 2 * source.numel() * 4 / _best(lambda: target.copy_(source), runtime)
    return rates


class ResourceUse(NamedTuple):
    """What a piece of work took: seconds, and by how many bytes the process grew at most, None where nothing tells."""

    seconds: float
    peak_bytes: int | None


def measure(work: Callable[[], object]) -> ResourceUse:
    """Do some work once and say what it took."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # glibc keeps what was freed
    before = _reset_peak()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return ResourceUse(seconds, None if before is None else _status("VmHWM") - before)


def measure_all(work: Mapping[str, Callable[[], object]], phase: str, progress: str) -> dict[str, ResourceUse]:
    """Do each work once, with a bar that names it, and say what each took."""
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
    """Let Linux count the process's peak memory anew, and return it as it stands."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return _status("VmHWM")
    except OSError:
        return None


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


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
