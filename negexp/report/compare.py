"""The numbers of a comparison: each arm with intervals, each pair of arms with a test, and the headline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pandas as pd

from negexp.evaluation.metrics import METRICS, table_metrics
from negexp.evaluation.pools import PROTOCOLS, STAGES
from negexp.evaluation.power import needed_to_see, would_be_seen
from negexp.evaluation.statistics import Study
from negexp.report.arms import Arm, Comparison
from negexp.report.runs import Run

Cell = tuple[str, str, str]  # stage, task, metric
FEW_GROUPS = 20
ONE_POINT = 0.01
# With more arms than this, only the headline's cell is tested, the table shows the best arm's pairs, and the headline
# names only this many of the other arms.
MANY_ARMS = 10
QUERY_SUBSETS = {"all": "all queries", "unseen": "queries unseen in training", "seen": "queries seen in training"}


class CellKey(NamedTuple):
    """The row of an arm in one protocol, subset of queries, stage, task and metric."""

    arm: str
    protocol: str
    queries: str
    stage: str
    task: str
    metric: str


class CellValue(NamedTuple):
    """A mean over queries and seeds, its standard deviation over seeds and its 95 % interval, as shares."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Numbers:
    """Two long tables: one row per arm (or pair of arms), protocol, subset of queries, stage, task and metric."""

    arms: pd.DataFrame
    pairs: pd.DataFrame
    headline: list[str]
    queries: str  # the subset of the headline: `unseen` where training saw some queries, else `all`

    @cached_property
    def by_cell(self) -> dict[CellKey, CellValue]:
        """Return the values of the table of arms by their keys."""
        keys = self.arms[list(CellKey._fields)].itertuples(index=False, name=None)
        values = self.arms[list(CellValue._fields)].itertuples(index=False, name=None)
        return {CellKey(*key): CellValue(*value) for key, value in zip(keys, values, strict=True)}


def compute(comparison: Comparison) -> Numbers:
    """Return all numbers of a comparison, as shares, not points.

    Pairs of arms are tested in accuracy@1 and in the monitored metric. With more than `MANY_ARMS` arms, only the
    headline's cell is tested, and the table holds only the pairs of the best arm. p-values are always adjusted for all
    pairs.
    """
    arms, pairs = [], []
    leaks = bool(comparison.runs[0].ranks["seen_in_training"].any())
    for protocol, subset in product(PROTOCOLS, QUERY_SUBSETS if leaks else ("all",)):
        study, cells, queries = _study(comparison, protocol, subset)
        if not queries:
            continue
        common = {"protocol": protocol, "queries": subset}
        here = []
        for number, arm in enumerate(comparison.arms):
            estimate = study.estimate(number)
            frame = _cell_rows(cells, arm=arm.name, **common)
            counts = {"seeds": len(arm.runs), "query_count": queries, "group_count": study.groups}
            here.append(frame.assign(**estimate._asdict(), **counts))
        arms += here
        tested = _tested_cells(comparison, cells, protocol)
        if not tested:
            continue
        shown = [arm.name for arm in comparison.arms]
        if _has_many_arms(comparison):
            shown = arms_best_first(pd.concat(here), comparison, subset)["arm"].tolist()[:1]
        part = Study([values[..., tested] for values in study.arms], study.group)
        for (first, one), (second, other) in combinations(enumerate(comparison.arms), 2):
            if one.name in shown or other.name in shown:
                frame = _cell_rows([cells[place] for place in tested], first=one.name, second=other.name, **common)
                pairs.append(frame.assign(**part.difference(first, second)._asdict(), query_count=queries))
    arm_table = pd.concat(arms, ignore_index=True)
    pair_table = pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame()
    subset = "unseen" if leaks else "all"
    if not (arm_table["queries"] == subset).any():
        subset = "all"  # training saw every query
    return Numbers(arm_table, pair_table, _headline(comparison, arm_table, pair_table, subset), subset)


def headline_rows(table: pd.DataFrame, comparison: Comparison, queries: str) -> pd.DataFrame:
    """Return the rows of the cell (protocol, stage, task, metric) that the headline reports."""
    protocol, stage, task, metric = comparison.monitor
    chosen = (table["protocol"] == protocol) & (table["stage"] == stage) & (table["task"] == task)
    return table[chosen & (table["metric"] == metric) & (table["queries"] == queries)]


def arms_best_first(arms: pd.DataFrame, comparison: Comparison, queries: str) -> pd.DataFrame:
    """Return the arms' rows of the headline's cell, the highest mean first. Arms that tie keep their order.

    `Study` rounds the means, so equal arms have equal means everywhere.
    """
    return headline_rows(arms, comparison, queries).sort_values("mean", ascending=False, kind="stable")


def _has_many_arms(comparison: Comparison) -> bool:
    return len(comparison.arms) > MANY_ARMS


def _study(comparison: Comparison, protocol: str, subset: str) -> tuple[Study, list[Cell], int]:
    """Return the arms' values on the same queries, the cells of these values, and the number of queries."""
    run = comparison.runs[0]
    tasks = list(dict.fromkeys(task for _, _, task in run.cells))
    one = run.cells[protocol, STAGES[0], tasks[0]]  # every stage and task has the same queries
    seen = one["seen_in_training"].to_numpy()
    keep = {"all": np.ones(len(one), dtype=bool), "seen": seen, "unseen": ~seen}[subset]
    cells = list(product(STAGES, tasks, METRICS))
    arms = [np.stack([_query_values(run, protocol, tasks)[keep] for run in arm.runs]) for arm in comparison.arms]
    return Study(arms, one["group"].to_numpy()[keep]), cells, int(keep.sum())


def _tested_cells(comparison: Comparison, cells: list[Cell], protocol: str) -> list[int]:
    """Return the positions of the cells in which pairs of arms are tested."""
    monitored, stage, task, metric = comparison.monitor
    if _has_many_arms(comparison):
        return [place for place, cell in enumerate(cells) if (protocol, *cell) == (monitored, stage, task, metric)]
    return [place for place, cell in enumerate(cells) if cell[2] in ("accuracy@1", metric)]


def _query_values(run: Run, protocol: str, tasks: list[str]) -> np.ndarray:
    """Return the metrics of each query (queries, cells)."""
    columns: list[np.ndarray] = []
    for stage, task in product(STAGES, tasks):
        columns += table_metrics(run.cells[protocol, stage, task]).values()
    return np.stack(columns, axis=1)


def _cell_rows(cells: list[Cell], **common: str) -> pd.DataFrame:
    """Return a row per cell, with the given values as first columns."""
    frame = pd.DataFrame(cells, columns=["stage", "task", "metric"])
    for place, (name, value) in enumerate(common.items()):
        frame.insert(place, name, value)
    return frame


def _headline(comparison: Comparison, arms: pd.DataFrame, pairs: pd.DataFrame, queries: str) -> list[str]:
    protocol, stage, task, metric = comparison.monitor
    here = arms_best_first(arms, comparison, queries)
    best = here.iloc[0]
    where = f"test {task} {metric} ({protocol}, {stage})"
    one_group = best.group_count == 1
    interval = "" if one_group else f", 95 % interval {_points(best.low)} to {_points(best.high)}"
    leads = len(here) > 1 and best["mean"] > here["mean"].iloc[1]
    highest = f", the highest of {len(here)} arms" if leads else ""
    on = f"{best.query_count} {QUERY_SUBSETS[queries] if queries != 'all' else 'queries'}, {_count(best.seeds, 'seed')}"
    sentences = [f"{best.arm} reaches {_points(best['mean'])} % in {where}{interval}, on {on}{highest}."]
    if one_group:
        return [*sentences, "All queries belong to one group of debates, so the uncertainty is unknown."]
    others = here["arm"].iloc[1:].tolist()
    if others:
        sentences += _compare_with_others(best.arm, others, headline_rows(pairs, comparison, queries), comparison.arms)
    if (here["seeds"] == 1).all():
        sentences.append("Each arm has one seed, so intervals and tests describe these runs, not the strategies.")
    if best.group_count < FEW_GROUPS:
        sentences.append(
            f"The queries form only {best.group_count} groups of debates, so small differences cannot be detected."
        )
    return sentences


def _compare_with_others(best: str, others: list[str], pairs: pd.DataFrame, arms: Sequence[Arm]) -> list[str]:
    """Return sentences that compare the best arm with the others: clearly better, the same, or undecided."""
    seeds = {arm.name: len(arm.runs) for arm in arms}
    above, same, undecided = [], [], []
    needed = ""
    for other in others[:MANY_ARMS]:
        pair = pairs[pairs["first"].isin([best, other]) & pairs["second"].isin([best, other])].iloc[0]
        sign = 1 if pair["first"] == best else -1
        low, high = sorted((sign * pair["low"], sign * pair["high"]))
        interval = f"[{signed(low)}, {signed(high)}] points, p = {pair['p_adjusted']:.2g}"
        if pair["same"]:
            same.append(other)
        elif pair["p_adjusted"] <= 0.05:
            above.append(f"{other} by {signed(sign * pair['mean'])} ({interval})")
        else:
            undecided.append(f"{other} ({interval})")
            needed = needed or _needed_text(pair, (seeds[best], seeds[other]))
    sentences = [f"It is better than {_join_names(above)}."] if above else []
    sentences += [f"It has the same hits and misses as {_join_names(same)}."] if same else []
    sentences += [f"No significant difference from {_join_names(undecided)}; {needed}."] if undecided else []
    if len(others) > MANY_ARMS:
        sentences.append(f"The table lists the other {len(others) - MANY_ARMS} arms.")
    return sentences


def _needed_text(pair: pd.Series, seeds: tuple[int, int]) -> str:
    """Return how many queries or seeds a difference of one point would need to be detected."""
    variance = pair["query_variance"] + np.nan_to_num(pair["seed_variance"])
    if would_be_seen(ONE_POINT, (pair["high"] - pair["low"]) / 2, variance):
        return "a difference of 1 point would probably have been detected"
    queries = int(pair["query_count"])
    needed = needed_to_see(ONE_POINT, pair["query_variance"], pair["seed_variance"], queries, seeds)
    counts = [f"{needed.queries} queries"] * (needed.queries is not None and needed.queries > queries)
    counts += [f"{needed.seeds} seeds an arm"] * (needed.seeds is not None and needed.seeds > max(seeds))
    more = f"about {' or '.join(counts)}" if counts else "more queries and more seeds"
    return f"to detect 1 point you would need {more}"


def _join_names(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def signed(share: float) -> str:
    """Return a difference of shares in points, with its sign."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # never -0.0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
