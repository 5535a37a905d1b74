"""Read finished runs from their folders. A run that cannot be used is skipped, and the reason is kept."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from negexp.config import TrainConfig
from negexp.errors import InputError
from negexp.evaluation.metrics import NDCG, RANK_COLUMNS, Metrics, metric_columns, summarise
from negexp.tracking.run_folder import PHASES, RunFolder
from negexp.tracking.stored_run import StoredRun

TEXT_COLUMNS = ["query", "protocol", "stage", "task", "first"]
RESULT_KEYS = ("data_fingerprint", "versions", "untrained", "test", "overrides", "corpus_summary")
NEGATIVES = ("negative_distance", "positive_distance", "nearer_share", "neighbour_rank", "negatives_replaced")
SHARES = ("gold_copy_share", "debate_share", "theme_share")
EPOCH_COLUMNS = ("epoch", "random_rate", *NEGATIVES, *SHARES, *(f"seconds_{phase}" for phase in PHASES))


@dataclass(frozen=True)
class RunResult:
    """The values of result.json that a report uses.

    untrained, test: metrics of the validation split before training, and of the test split. runtime: device, threads
    and precision. reranker_seconds: training of the cross-encoder and its choice on validation; None without one.
    pair_seconds: what it takes to score a pair of texts with it; None where that is not known.
    """

    data_fingerprint: str
    corpus_summary: str
    overrides: list[str]
    versions: dict[str, str]
    untrained: Metrics
    test: Metrics
    runtime: str
    reranker_seconds: float | None
    pair_seconds: float | None

    @classmethod
    def of(cls, values: dict[str, Any]) -> RunResult:
        """Take the values from the contents of result.json, which `_find_wrong_type` has checked."""
        reranker = values.get("reranker", {})
        read = reranker.get("pairs_read", 0)
        return cls(
            values["data_fingerprint"],
            values["corpus_summary"],
            values["overrides"],
            values["versions"],
            values["untrained"]["validation"],
            values["test"],
            str(values.get("runtime", "")),
            reranker.get("seconds"),
            reranker["seconds_read"] / read if read else None,
        )


@dataclass(frozen=True)
class Run:
    """One finished run: its configuration, result, epochs (one row each) and the ranks of the test queries."""

    folder: Path
    config: TrainConfig
    result: RunResult
    epochs: pd.DataFrame
    ranks: pd.DataFrame

    @property
    def seed(self) -> int:
        """Return the run's seed."""
        return self.config.seed

    @cached_property
    def cells(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """Return the ranks of each (protocol, stage, task), in the order of the split."""
        parts = self.ranks.groupby(["protocol", "stage", "task"], sort=False, observed=True)
        return {(str(key[0]), str(key[1]), str(key[2])): part for key, part in parts}


@dataclass(frozen=True)
class Skipped:
    """A run folder that the report does not use, and the reason."""

    folder: Path
    reason: str


def find_runs(patterns: str, none_yet: bool = False) -> list[Path]:
    """Return all run folders at or below the given folders and globs, sorted. Commas separate folders and globs.

    A name may contain a comma, as the job folders of a sweep do. So the longest part that exists is taken as one name.
    With `none_yet`, folders without a run are accepted.

    Raises
    ------
    InputError
        When a folder or glob matches nothing, or no run is found.
    """
    pieces, found = patterns.split(","), []
    if "" in (piece.strip() for piece in pieces):
        raise InputError(f"runs={patterns}: has an empty part; remove the comma, or write . for the current folder")
    while pieces:
        for end in range(len(pieces), 0, -1):
            paths = _expand(",".join(pieces[:end]))
            if paths:
                break
        else:
            raise InputError(f"runs={pieces[0]}: no such folder; give folders that `negexp train` wrote, or globs")
        found += [run for path in paths for run in _runs_below(path)]
        pieces = pieces[end:]
    if not found and not none_yet:
        raise InputError(f"runs={patterns}: contains no run; the folder of a run has a config.yaml")
    return sorted(set(found))


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], list[Skipped]]:
    """Read every folder. Return the runs that can be reported, and the folders that cannot."""
    runs, skipped = [], []
    for folder in folders:
        try:
            runs.append(_read_run(folder))
        except _UnusableError as error:
            skipped.append(Skipped(folder, str(error)))
    return runs, skipped


class _UnusableError(Exception):
    """The reason why a run folder is not used."""


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():  # a folder name may contain glob characters
        return [path]
    return [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_dir()]


def _runs_below(path: Path) -> list[Path]:
    found = []
    for folder, below, files in os.walk(path):
        if "config.yaml" in files:
            found.append(Path(folder).resolve())
            below.clear()  # folders inside a run are not runs
    return found


def _read_run(folder: Path) -> Run:
    if not RunFolder(folder).result.exists():
        raise _UnusableError("unfinished: it has no result.json")
    try:
        run = StoredRun.open(folder)
    except InputError as error:
        raise _UnusableError(f"damaged, or written by another version: {error}") from None
    try:
        values, epochs, ranks = run.result, run.metrics, run.ranks("test")
    except InputError as error:
        raise _UnusableError(f"damaged: {error}") from None
    missing = [key for key in RESULT_KEYS if key not in values]
    missing += [f"metrics.csv's {column}" for column in EPOCH_COLUMNS if column not in epochs]
    missing += [f"test-ranks.parquet's {column}" for column in RANK_COLUMNS if column not in ranks]
    if missing:
        raise _UnusableError(f"written by another version: it has no {', '.join(missing)}")
    wrong = _find_wrong_type(values, epochs, ranks)
    if wrong is not None:
        raise _UnusableError(f"damaged: {wrong} has the wrong type")
    if not _same_metrics(values["test"], summarise(ranks)):
        raise _UnusableError("damaged: evaluation/test-ranks.parquet does not give the test metrics of result.json")
    ranks = ranks.astype(dict.fromkeys(TEXT_COLUMNS, "category"))  # a hundred runs must fit in memory
    return Run(folder, run.config, RunResult.of(values), epochs, ranks)


def _find_wrong_type(result: dict[str, Any], epochs: pd.DataFrame, ranks: pd.DataFrame) -> str | None:
    """Return the name of a value whose type is not the one that a run writes. The folder may come from a stranger."""
    for key in ("data_fingerprint", "corpus_summary"):
        if not isinstance(result[key], str):
            return f"result.json's {key}"
    overrides, known = result["overrides"], result["versions"]
    if not isinstance(overrides, list) or not all(isinstance(one, str) for one in overrides):
        return "result.json's overrides"
    if not isinstance(known, dict) or not all(isinstance(one, str) for one in known.values()):
        return "result.json's versions"
    reranker = result.get("reranker", {"seconds": 0.0})
    if not isinstance(reranker, dict):
        return "result.json's reranker"
    needed = ("seconds", "pairs_read", "seconds_read") if "pairs_read" in reranker else ("seconds",)
    if not all(isinstance(reranker.get(key), int | float) for key in needed):
        return "result.json's reranker"
    scores = [str(column) for column in epochs if str(column).startswith("validation/")]
    try:
        untrained = metric_columns(result["untrained"]["validation"], "validation")
        float(sum(untrained[column] for column in scores))
    except (AttributeError, KeyError, TypeError):
        return "result.json's untrained"
    for column in [*EPOCH_COLUMNS, *scores]:
        if not pd.api.types.is_numeric_dtype(epochs[column]):
            return f"metrics.csv's {column}"
    kinds = dict.fromkeys(TEXT_COLUMNS, pd.api.types.is_string_dtype)
    kinds["seen_in_training"] = pd.api.types.is_bool_dtype
    for column in RANK_COLUMNS:
        if not kinds.get(column, pd.api.types.is_integer_dtype)(ranks[column]):
            return f"test-ranks.parquet's {column}"
    if NDCG in ranks and not pd.api.types.is_float_dtype(ranks[NDCG]):
        return f"test-ranks.parquet's {NDCG}"
    return None if len(epochs) and len(ranks) else "an empty table"


def _same_metrics(stored: Metrics, computed: Metrics) -> bool:
    """Return whether two nested metrics have the same keys, numbers of queries and values."""
    try:
        first, second = metric_columns(stored, ""), metric_columns(computed, "")
        same_sizes = all(
            stored[protocol][stage][task]["queries"] == values["queries"]
            for protocol, stages in computed.items()
            for stage, tasks in stages.items()
            for task, values in tasks.items()
        )
        same_keys = first.keys() == second.keys()
        return same_sizes and same_keys and all(abs(first[key] - second[key]) < 1e-9 for key in second)
    except (AttributeError, KeyError, TypeError):
        return False
