"""What the processor is good at."""

from __future__ import annotations

from functools import cache


@cache
def has_instructions(*names: str) -> bool:
    """Return whether the processor has one of these instruction sets, by their names in Linux's /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return False
    return not set(names).isdisjoint(flags)


def fast_bfloat16() -> bool:
    """Return whether products of bfloat16 matrices are faster than those of float32 ones."""
    return has_instructions("amx_bf16", "avx512_bf16")
