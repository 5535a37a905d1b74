"""From what Hydra composed to a checked configuration, by command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from negexp.config import (
    BenchConfig,
    EvaluateConfig,
    TrainConfig,
    load_run_config,
    parse_bench,
    parse_evaluate,
    parse_report,
    parse_train,
)
from negexp.corpus import check_path
from negexp.evaluation.monitor import check_monitor
from negexp.sampling import build_sampler


def _train_config(config: DictConfig) -> TrainConfig:
    """Parse, and look up what only the parts know: strategies (also other packages'), metrics, files."""
    parsed = parse_train(config)
    build_sampler(parsed.sampler)
    check_monitor(parsed.trainer.monitor)
    check_path(parsed.data)
    return parsed


def _evaluate_config(config: DictConfig) -> EvaluateConfig:
    parsed = parse_evaluate(config)
    if parsed.run is None:
        check_path(parsed.data)
    else:
        load_run_config(Path(parsed.run) / "config.yaml")
    return parsed


def _bench_config(config: DictConfig) -> BenchConfig:
    parsed = parse_bench(config)
    build_sampler(parsed.sampler)
    check_path(parsed.data)
    return parsed


PARSERS: dict[str, Callable[[DictConfig], Any]] = {
    "train": _train_config,
    "evaluate": _evaluate_config,
    "bench": _bench_config,
    "report": parse_report,
}
