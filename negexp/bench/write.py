"""Write the results of the benchmarks as bench.json and bench.md."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from negexp.bench.machine import Machine
from negexp.bench.scale import PREDICTED_SIZES, Growth
from negexp.bench.timing import PhaseResult


def as_json(machine: Machine, results: list[PhaseResult], growths: list[Growth]) -> dict[str, Any]:
    """Return all measurements, as bench.json holds them."""
    return {
        "machine": asdict(machine),
        "phases": [_phase_values(one) for one in results],
        "scale": [asdict(growth) | _fit(growth) for growth in growths],
    }


def as_markdown(machine: Machine, results: list[PhaseResult], growths: list[Growth]) -> str:
    """Return the text of bench.md: the machine, the tables, and each phase's time beside its lower bound."""
    parts = [_machine(machine)]
    if results:
        parts += [_table(results), *(_notes(one) for one in results)]
    if growths:
        parts.append(_scale(growths))
    return "\n\n".join(parts) + "\n"


def _phase_values(result: PhaseResult) -> dict[str, Any]:
    """Return the values of a phase, with negexp's set-up under its key in bench.json, `ours`."""
    values = {"ours" if key == "negexp" else key: value for key, value in asdict(result).items()}
    ratios = {rival.name: rival.ratios(result.seconds) for rival in result.rivals}
    return values | {"median_seconds": result.median, "ratios": ratios}


def _machine(machine: Machine) -> str:
    peak, memory = machine.peak, machine.memory_bytes
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items() if version)
    return (
        f"{machine.processor} ({', '.join(machine.instructions) or 'no vector instructions known'}), "
        f"{machine.cores} cores, {(memory or 0) / 2**30:.0f} GiB; {machine.runtime}. Measured peak: "
        f"{peak['float32_flops'] / 1e9:.0f} GFLOP/s in float32, {peak['bfloat16_flops'] / 1e9:.0f} in bfloat16, "
        f"{peak['copy_bytes'] / 1e9:.0f} GB/s. Python {machine.python}, {versions}."
    )


def _table(results: list[PhaseResult]) -> str:
    lines = [
        "| phase | rival | negexp, s | rival, s | ratio (lowest to highest) | target |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in results:
        for rival in one.rivals:
            ratios = rival.ratios(one.seconds)
            target = "-" if rival.target is None else f"{rival.target:g}x, {_verdict(median(ratios), rival.target)}"
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            lines.append(
                f"| {one.phase} | {rival.name} | {_seconds(one.median)} | {_seconds(median(rival.seconds))} | "
                f"**{median(ratios):.2f}x** ({spread}) | {target} |"
            )
    return "\n".join(lines)


def _verdict(ratio: float, target: float) -> str:
    return "reached" if ratio >= target else "missed"


def _notes(one: PhaseResult) -> str:
    lines = [f"* **{one.phase}** ({one.sizes}): {one.negexp}, median of {len(one.seconds)} rounds after a warm-up."]
    if one.floor_seconds is not None:
        share = one.median / one.floor_seconds
        lines.append(
            f"  Lower bound: {_seconds(one.floor_seconds)} s ({one.floor}); negexp takes {share:.1f} times as long."
        )
    lines += [f"  {remark[0].upper()}{remark[1:]}." for remark in [*one.checks, *one.remarks]]
    return "\n".join(lines)


def _scale(growths: list[Growth]) -> str:
    lines = ["| phase | arguments | seconds | peak memory, MiB |", "| --- | --- | --- | --- |"]
    for growth in growths:
        for arguments, seconds, size in zip(growth.arguments, growth.seconds, growth.peak_bytes, strict=True):
            lines.append(f"| {growth.phase} | {arguments} | {_seconds(seconds)} | {_mebibytes(size)} |")
        for arguments in PREDICTED_SIZES:
            seconds, predicted = growth.predict(arguments)
            lines.append(f"| {growth.phase}, predicted | {arguments} | {seconds:.3g} | {_mebibytes(predicted)} |")
    fits = [f"{growth.phase} grows with n^{growth.exponent():.2f}" for growth in growths]
    note = f"At the largest sizes, {' and '.join(fits)} (scale.png). Predictions add a linear and a quadratic part."
    return "\n".join(lines) + f"\n\n{note}"


def _fit(growth: Growth) -> dict[str, Any]:
    predicted = {str(n): dict(zip(("seconds", "bytes"), growth.predict(n), strict=True)) for n in PREDICTED_SIZES}
    return {"exponent": growth.exponent(), "predicted": predicted}


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g}"


def _mebibytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 2**20:.0f}"
