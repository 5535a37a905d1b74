"""From what Hydra composed to a checked configuration, by command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from negexp.config import (
    BenchConfig,
    EvaluateConfig,
    ReportConfig,
    TrainConfig,
    load_run_config,
    parse_bench,
    parse_evaluate,
    parse_report,
    parse_train,
    with_run,
)
from negexp.corpus import check_path
from negexp.evaluation.monitor import Monitor


def _train_config(config: DictConfig, _: Sequence[str]) -> TrainConfig:
    """Parse, and check that the metric and the corpus exist."""
    parsed = parse_train(config)
    Monitor.parse(parsed.trainer.monitor)
    check_path(parsed.data)
    return parsed


def _evaluate_config(config: DictConfig, overrides: Sequence[str]) -> EvaluateConfig:
    """Parse; what the run brings is looked at too, but joins the configuration only when the command runs."""
    parsed = parse_evaluate(config)
    if parsed.run is None:
        check_path(parsed.data)
    else:
        trained = load_run_config(Path(parsed.run) / "config.yaml")
        check_path(with_run(parsed, trained, overrides).data)
    return parsed


def _bench_config(config: DictConfig, _: Sequence[str]) -> BenchConfig:
    parsed = parse_bench(config)
    check_path(parsed.data)
    return parsed


def _report_config(config: DictConfig, _: Sequence[str]) -> ReportConfig:
    return parse_report(config)


# by command: from the composed configuration, and the overrides that it was composed with
PARSERS: dict[str, Callable[[DictConfig, Sequence[str]], Any]] = {
    "train": _train_config,
    "evaluate": _evaluate_config,
    "bench": _bench_config,
    "report": _report_config,
}
