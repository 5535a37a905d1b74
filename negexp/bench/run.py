"""Which benchmarks there are, and running those that were asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from negexp.bench.embed import compare_embedding
from negexp.bench.epoch import compare_epoch
from negexp.bench.machine import describe_machine
from negexp.bench.mine import compare_backends, compare_hard_negatives, compare_large_search, compare_mining
from negexp.bench.rerank import compare_reranking
from negexp.bench.scale import measure_growth, plot_growth
from negexp.bench.setting import Setting
from negexp.bench.timing import PhaseResult
from negexp.bench.write import as_json, as_markdown
from negexp.config import BenchConfig
from negexp.runtime import Runtime
from negexp.tracking.files import make_folder, write_bytes, write_json

log = logging.getLogger("negexp")

Benchmark = Callable[[Setting, dict[str, float]], PhaseResult]

BENCHMARKS: dict[str, tuple[Benchmark, ...]] = {
    "embed": (compare_embedding,),
    "mine": (compare_mining, compare_backends, compare_large_search, compare_hard_negatives),
    "rerank": (compare_reranking,),
    "epoch": (compare_epoch,),
}


def run_benchmarks(config: BenchConfig, runtime: Runtime, folder: Path) -> str:
    """Run what `config.bench` names, write bench.json and bench.md after each, and return the latter."""
    make_folder(folder)
    setting, machine = Setting.load(config, runtime), describe_machine(runtime)
    comparisons: list[PhaseResult] = []
    text = ""
    for name, compares in BENCHMARKS.items():
        for compare in compares if config.bench in (name, "all") else ():
            log.info(f"{name}: {compare.__name__.replace('_', ' ')}")
            comparisons.append(compare(setting, machine["peak"]))
            text = _write(folder, as_json(machine, comparisons, []), as_markdown(machine, comparisons, []))
    if config.bench in ("scale", "all"):
        growths = measure_growth(setting)
        plot_growth(growths, folder / "scale.png")
        text = _write(folder, as_json(machine, comparisons, growths), as_markdown(machine, comparisons, growths))
    return text


def _write(folder: Path, values: object, text: str) -> str:
    write_json(folder / "bench.json", values)
    write_bytes(folder / "bench.md", text.encode())
    return text
