"""Features of the processor."""

from __future__ import annotations

import platform
from functools import cache


@cache
def has_instructions(*names: str) -> bool:
    """Return whether the processor has any of these instruction sets, named as in Linux's /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return False
    return not set(names).isdisjoint(flags)


@cache
def processor_name() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def fast_bfloat16() -> bool:
    """Return whether matrix products are faster in bfloat16 than in float32."""
    return has_instructions("amx_bf16", "avx512_bf16")
