"""The list of benchmarks, and the function that runs the chosen ones."""

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
from negexp.bench.trainer import compare_epochs, compare_epochs_with_mining
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
    "trainer": (compare_epochs, compare_epochs_with_mining),
}


def run_benchmarks(config: BenchConfig, runtime: Runtime, folder: Path) -> str:
    """Run the benchmarks that `config.bench` names, write bench.json and bench.md, and return the text of bench.md."""
    make_folder(folder)
    setting, machine = Setting.load(config, runtime), describe_machine(runtime)
    results: list[PhaseResult] = []
    text = ""
    for name, benchmarks in BENCHMARKS.items():
        for benchmark in benchmarks if config.bench in (name, "all") else ():
            log.info(f"{name}: {benchmark.__name__.replace('_', ' ')}")
            results.append(benchmark(setting, machine.peak))
            text = _write(folder, as_json(machine, results, []), as_markdown(machine, results, []))
    if config.bench in ("scale", "all"):
        growths = measure_growth(setting)
        plot_growth(growths, folder / "scale.png")
        text = _write(folder, as_json(machine, results, growths), as_markdown(machine, results, growths))
    return text


def _write(folder: Path, values: object, text: str) -> str:
    write_json(folder / "bench.json", values)
    write_bytes(folder / "bench.md", text.encode())
    return text
