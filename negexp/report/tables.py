"""The numbers of a comparison as small tables of text, for Markdown and for HTML."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from negexp.evaluation.pools import PROTOCOLS, STAGES
from negexp.report.arms import Arm, Comparison
from negexp.report.compare import QUERY_SUBSETS, CellKey, Numbers, arms_best_first, headline_rows, signed


@dataclass(frozen=True)
class Table:
    """A titled table of text. The first column names the row."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table in Markdown, without its title."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main_table(comparison: Comparison, numbers: Numbers, queries: str) -> Table:
    """Return the headline's metric of each arm, in both protocols and stages, and the seconds of an epoch.

    If a run has a cross-encoder, two columns have the seconds of its training, and the milliseconds that it takes to
    score a pair of texts.
    """
    protocol, stage, task, metric = comparison.monitor
    columns = [
        (one, other) for one in dict.fromkeys([protocol, *PROTOCOLS]) for other in dict.fromkeys([stage, *STAGES])
    ]
    order = arms_best_first(numbers.arms, comparison, queries)["arm"]
    by_name = {arm.name: arm for arm in comparison.arms}
    crossed = any(run.result.reranker_seconds is not None for run in comparison.runs)
    rows = []
    for name in order:
        arm = by_name[name]
        keys = [CellKey(name, one, queries, other, task, metric) for one, other in columns]
        cells = [_cell_text(numbers, key) for key in keys]
        seconds = [f"{_seconds(arm):.1f}", *_reranker_seconds(arm)]
        rows.append([name, str(len(arm.runs)), *cells, *(seconds if crossed else seconds[:1])])
    last = ["seconds an epoch", "seconds, re-ranker", "ms a pair"][: 3 if crossed else 1]
    header = ["arm", "seeds", *(f"{one}, {other}" for one, other in columns), *last]
    title = f"Test {task} {metric} in %, mean ± sd over seeds [95 % interval], {QUERY_SUBSETS[queries]}"
    return Table(title, header, rows)


def seen_table(comparison: Comparison, numbers: Numbers) -> Table | None:
    """Return the headline's metric on queries seen and unseen in training. None when training saw no query."""
    subsets = [subset for subset in QUERY_SUBSETS if (numbers.arms["queries"] == subset).any()]
    if len(subsets) == 1:
        return None
    _, stage, task, metric = comparison.monitor
    sizes = _protocols_and_subsets(numbers)
    header = ["arm"] + [f"{protocol}, {subset} ({size})" for (protocol, subset), size in sizes.items()]
    rows = []
    for arm in comparison.arms:
        keys = [CellKey(arm.name, protocol, subset, stage, task, metric) for protocol, subset in sizes]
        rows.append([arm.name, *(_cell_text(numbers, key) for key in keys)])
    return Table(f"Test {task} {metric} in % ({stage}) by whether training saw a text of the query", header, rows)


def pair_table(comparison: Comparison, numbers: Numbers, queries: str) -> Table | None:
    """Return the tests of the pairs of arms in the headline's cell. None for one arm.

    With many arms, only the pairs of the best arm are tested.
    """
    if numbers.pairs.empty:
        return None
    pairs = headline_rows(numbers.pairs, comparison, queries)
    rows = [
        [
            f"{pair['first']} - {pair['second']}",
            signed(pair["mean"]),
            f"[{signed(pair['low'])}, {signed(pair['high'])}]",
            f"{pair['p']:.3g}",
            f"{pair['p_adjusted']:.3g}",
        ]
        for _, pair in pairs.iterrows()
    ]
    protocol, stage, task, metric = comparison.monitor
    title = f"Pairs of arms: test {task} {metric} in points ({protocol}, {stage}, {QUERY_SUBSETS[queries]})"
    return Table(title, ["difference of", "points", "95 % interval", "p", "p (all pairs)"], rows)


def task_tables(comparison: Comparison, numbers: Numbers) -> list[Table]:
    """Return accuracy@1 of every task by arm: one table for each protocol, stage and subset of queries."""
    tables = []
    for protocol, subset in _protocols_and_subsets(numbers):
        part = numbers.arms[(numbers.arms["protocol"] == protocol) & (numbers.arms["queries"] == subset)]
        for stage in STAGES:
            rows = []
            for task in dict.fromkeys(part["task"]):
                keys = [CellKey(arm.name, protocol, subset, stage, task, "accuracy@1") for arm in comparison.arms]
                rows.append([task, *(_cell_text(numbers, key) for key in keys)])
            title = f"Test accuracy@1 in %, {protocol}, {stage}, {QUERY_SUBSETS[subset]}"
            tables.append(Table(title, ["task", *(arm.name for arm in comparison.arms)], rows))
    return tables


def settings_table(comparison: Comparison) -> Table | None:
    """Return the keys whose values differ between arms. None for one arm."""
    differing = comparison.differing()
    if not differing:
        return None
    rows = [[key, *(json.dumps(value) for value in values)] for key, values in differing.items()]
    return Table("Settings that differ", ["key", *(arm.name for arm in comparison.arms)], rows)


def versions_table(comparison: Comparison) -> Table:
    """Return the versions and devices of the runs, with all values where they differ."""
    found: dict[str, dict[str, None]] = {}
    for run in comparison.runs:
        values = {**run.result.versions, "device": run.result.runtime}
        for name, value in values.items():
            found.setdefault(str(name), {})[str(value)] = None
    return Table("Versions", ["package", "version"], [[name, "; ".join(values)] for name, values in found.items()])


def curves(comparison: Comparison) -> pd.DataFrame:
    """Return the rows of metrics.csv of all runs, with arm and seed."""
    frames = []
    for arm in comparison.arms:
        for run in arm.runs:
            frame = run.epochs.copy()
            frame.insert(0, "arm", arm.name)
            frame.insert(1, "seed", run.seed)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _protocols_and_subsets(numbers: Numbers) -> dict[tuple[str, str], int]:
    """Return the number of queries of each (protocol, subset of queries) that was computed."""
    each = numbers.arms.drop_duplicates(["protocol", "queries"])
    keys = zip(each["protocol"].tolist(), each["queries"].tolist(), strict=True)
    return dict(zip(keys, each["query_count"].tolist(), strict=True))


def _cell_text(numbers: Numbers, key: CellKey) -> str:
    """Return `41.2 ± 0.8 [38.9, 43.5]`, in percent. Empty where the subset has no query."""
    value = numbers.by_cell.get(key)
    if value is None:
        return ""
    deviation = "" if np.isnan(value.sd) else f" ± {100 * value.sd:.1f}"
    interval = "" if np.isnan(value.low) else f" [{100 * value.low:.1f}, {100 * value.high:.1f}]"
    return f"{100 * value.mean:.1f}{deviation}{interval}"


def _seconds(arm: Arm) -> float:
    columns = [column for column in arm.runs[0].epochs if str(column).startswith("seconds_")]
    return float(np.mean([run.epochs[columns].sum(axis=1).mean() for run in arm.runs]))


def _reranker_seconds(arm: Arm) -> list[str]:
    training = [run.result.reranker_seconds for run in arm.runs if run.result.reranker_seconds is not None]
    reading = [1000 * run.result.pair_seconds for run in arm.runs if run.result.pair_seconds is not None]
    return [f"{np.mean(seconds):.1f}" if seconds else "-" for seconds in (training, reading)]
