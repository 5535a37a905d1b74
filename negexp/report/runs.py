"""Finished runs, read from their folders; whatever cannot be used is left out with a reason."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from negexp.config import TrainConfig, load_run_config
from negexp.errors import InputError
from negexp.evaluation.metrics import Metrics, flatten, summarise
from negexp.tracking import RunFolder
from negexp.tracking.reading import read_csv, read_json, read_parquet
from negexp.tracking.run_folder import PHASES

TEXT = ["query", "protocol", "stage", "task", "first"]
RANKS = [*TEXT, "rank", "candidates", "group", "seen_in_training"]
RESULT = ("data_fingerprint", "versions", "untrained", "test", "overrides", "corpus_summary")
NEGATIVES = ("negative_distance", "positive_distance", "nearer_share", "neighbour_rank", "negatives_replaced")
SHARES = ("gold_copy_share", "debate_share", "theme_share")
EPOCH = ("epoch", "random_rate", *NEGATIVES, *SHARES, *(f"seconds_{phase}" for phase in PHASES))


@dataclass(frozen=True)
class Run:
    """One finished run: its configuration, result, epochs (a row each) and the ranks of the test queries."""

    folder: Path
    config: TrainConfig
    result: dict[str, Any]
    epochs: pd.DataFrame
    ranks: pd.DataFrame

    @property
    def seed(self) -> int:
        """Return the run's seed."""
        return self.config.seed

    @cached_property
    def cells(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """Return (protocol, stage, task) -> the ranks of its queries, in the order of the split."""
        parts = self.ranks.groupby(["protocol", "stage", "task"], sort=False, observed=True)
        return {(str(key[0]), str(key[1]), str(key[2])): part for key, part in parts}


@dataclass(frozen=True)
class Skipped:
    """A run folder that the report leaves out, and why."""

    folder: Path
    reason: str


def find_runs(patterns: str) -> list[Path]:
    """Return the run folders that comma-separated folders and globs hold, themselves or anywhere below, in order.

    A comma may be part of a name, as in a sweep's job folders: the longest stretch that exists is taken.

    Raises
    ------
    InputError
        When a folder or glob matches nothing, or when no run is found.
    """
    pieces, found = patterns.split(","), []
    if "" in (piece.strip() for piece in pieces):
        raise InputError(f"runs={patterns}: names an empty folder; take the comma out, or write . for this one")
    while pieces:
        for end in range(len(pieces), 0, -1):
            paths = _expand(",".join(pieces[:end]))
            if paths:
                break
        else:
            raise InputError(f"runs={pieces[0]}: no such folder; give folders that `negexp train` wrote, or globs")
        found += [run for path in paths for run in _runs_below(path)]
        pieces = pieces[end:]
    if not found:
        raise InputError(f"runs={patterns}: holds no run; a run's folder has a config.yaml")
    return sorted(set(found))


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], list[Skipped]]:
    """Read every folder; return the runs that can be reported, and those that cannot."""
    runs, skipped = [], []
    for folder in folders:
        try:
            runs.append(_read_run(folder))
        except _UnusableError as error:
            skipped.append(Skipped(folder, str(error)))
    return runs, skipped


class _UnusableError(Exception):
    """Why a run folder is left out."""


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():  # a name may hold the characters of a glob
        return [path]
    return [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_dir()]


def _runs_below(path: Path) -> list[Path]:
    found = []
    for folder, below, files in os.walk(path):
        if "config.yaml" in files:
            found.append(Path(folder).resolve())
            below.clear()  # what a run holds is no run
    return found


def _read_run(folder: Path) -> Run:
    paths = RunFolder(folder)
    if not paths.result.exists():
        raise _UnusableError("unfinished: it has no result.json")
    try:
        config = load_run_config(paths.config)
    except InputError as error:
        raise _UnusableError(f"damaged, or written by another version: {error}") from None
    try:
        result = read_json(paths.result, folder)
        epochs = read_csv(paths.metrics, folder)
        ranks = read_parquet(paths.evaluation / "test-ranks.parquet", folder, RANKS)
    except InputError as error:
        raise _UnusableError(f"damaged: {error}") from None
    missing = [key for key in RESULT if key not in result]
    missing += [f"metrics.csv's {column}" for column in EPOCH if column not in epochs]
    missing += [f"test-ranks.parquet's {column}" for column in RANKS if column not in ranks]
    if missing:
        raise _UnusableError(f"written by another version: it has no {', '.join(missing)}")
    wrong = _wrong_types(result, epochs, ranks)
    if wrong is not None:
        raise _UnusableError(f"damaged: {wrong} is not what a run writes there")
    if not _agree(result["test"], summarise(ranks)):
        raise _UnusableError("damaged: evaluation/test-ranks.parquet does not give the test metrics of result.json")
    ranks = ranks[RANKS].astype(dict.fromkeys(TEXT, "category"))  # so that a hundred runs fit in memory
    return Run(folder, config, result, epochs, ranks)


def _wrong_types(result: dict[str, Any], epochs: pd.DataFrame, ranks: pd.DataFrame) -> str | None:
    """Return the name of a value that is not of the kind a run writes; a folder may come from a stranger."""
    for key in ("data_fingerprint", "corpus_summary"):
        if not isinstance(result[key], str):
            return f"result.json's {key}"
    overrides, known = result["overrides"], result["versions"]
    if not isinstance(overrides, list) or not all(isinstance(one, str) for one in overrides):
        return "result.json's overrides"
    if not isinstance(known, dict) or not all(isinstance(one, str) for one in known.values()):
        return "result.json's versions"
    scores = [str(column) for column in epochs if str(column).startswith("validation/")]
    try:
        untrained = flatten(result["untrained"]["validation"], "validation")
        float(sum(untrained[column] for column in scores))
    except (AttributeError, KeyError, TypeError):
        return "result.json's untrained"
    for column in [*EPOCH, *scores]:
        if not pd.api.types.is_numeric_dtype(epochs[column]):
            return f"metrics.csv's {column}"
    for column in RANKS:
        kinds = {"seen_in_training": pd.api.types.is_bool_dtype, **dict.fromkeys(TEXT, pd.api.types.is_string_dtype)}
        if not kinds.get(column, pd.api.types.is_integer_dtype)(ranks[column]):
            return f"test-ranks.parquet's {column}"
    return None if len(epochs) and len(ranks) else "an empty table"


def _agree(stored: Metrics, computed: Metrics) -> bool:
    try:
        wanted, found = flatten(stored, ""), flatten(computed, "")
        sizes = [
            stored[protocol][stage][task]["queries"] == values["queries"]
            for protocol, stages in computed.items()
            for stage, tasks in stages.items()
            for task, values in tasks.items()
        ]
        return (
            all(sizes) and wanted.keys() == found.keys() and all(abs(wanted[key] - found[key]) < 1e-9 for key in found)
        )
    except (AttributeError, KeyError, TypeError):
        return False
