"""A comparison's numbers: every arm's cells with intervals, every pair of arms with a test, and the headline."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

import numpy as np
import pandas as pd

from negexp.evaluation.metrics import METRICS, query_metrics
from negexp.evaluation.pools import PROTOCOLS
from negexp.evaluation.power import needed_to_see, would_be_seen
from negexp.evaluation.ranking import STAGES
from negexp.evaluation.statistics import Study
from negexp.report.arms import Arm, Comparison
from negexp.report.runs import Run

Cell = tuple[str, str, str]  # stage, task, metric
FEW_GROUPS = 20
ONE_POINT = 0.01
MANY_ARMS = 10  # of more, tests are made in one cell only and shown for the best arm, and the headline names a part
SEEN = {"all": "all queries", "unseen": "queries unseen in training", "seen": "queries seen in training"}


@dataclass(frozen=True)
class Numbers:
    """The two tables of a comparison, long: a row per arm or pair of arms, protocol, queries, stage, task, metric."""

    arms: pd.DataFrame
    pairs: pd.DataFrame
    headline: list[str]
    queries: str  # the subset of queries that the headline is about: all, or unseen where training saw some

    @cached_property
    def by_cell(self) -> dict[tuple[str, ...], dict[Hashable, float]]:
        """Return (arm, protocol, queries, stage, task, metric) -> mean, sd, low, high."""
        keys = self.arms[["arm", "protocol", "queries", "stage", "task", "metric"]].itertuples(index=False, name=None)
        return dict(zip(keys, self.arms[["mean", "sd", "low", "high"]].to_dict("records"), strict=True))


def compute(comparison: Comparison) -> Numbers:
    """Return all numbers of a comparison, as shares, not points.

    Pairs of arms are tested in accuracy@1 and the monitored metric; many arms in the headline's cell only, where the
    table has the best arm's pairs. p-values are adjusted for all pairs in any case.
    """
    arms, pairs = [], []
    leaks = bool(comparison.runs[0].ranks["seen_in_training"].any())
    for protocol, subset in product(PROTOCOLS, SEEN if leaks else ("all",)):
        study, cells, queries = _study(comparison, protocol, subset)
        if not queries:
            continue
        common = {"protocol": protocol, "queries": subset}
        here = []
        for number, arm in enumerate(comparison.arms):
            estimate = study.estimate(number)
            frame = _frame(cells, arm=arm.name, **common)
            counts = {"seeds": len(arm.runs), "query_count": queries, "group_count": study.groups}
            here.append(frame.assign(**estimate._asdict(), **counts))
        arms += here
        tested = _tested(comparison, cells, protocol)
        if not tested:
            continue
        best = best_first(pd.concat(here), comparison, subset)["arm"].iloc[0] if _many(comparison) else None
        part = Study([values[..., tested] for values in study.arms], study.group)
        for (first, one), (second, other) in combinations(enumerate(comparison.arms), 2):
            if best is None or best in (one.name, other.name):
                frame = _frame([cells[place] for place in tested], first=one.name, second=other.name, **common)
                pairs.append(frame.assign(**part.difference(first, second)._asdict(), query_count=queries))
    arm_table = pd.concat(arms, ignore_index=True)
    pair_table = pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame()
    subset = "unseen" if leaks else "all"
    if not (arm_table["queries"] == subset).any():
        subset = "all"  # every query was seen
    return Numbers(arm_table, pair_table, _headline(comparison, arm_table, pair_table, subset), subset)


def primary(table: pd.DataFrame, comparison: Comparison, queries: str) -> pd.DataFrame:
    """Return the rows of the headline's cell."""
    protocol, stage, task, metric = comparison.monitor
    chosen = (table["protocol"] == protocol) & (table["stage"] == stage) & (table["task"] == task)
    return table[chosen & (table["metric"] == metric) & (table["queries"] == queries)]


def best_first(arms: pd.DataFrame, comparison: Comparison, queries: str) -> pd.DataFrame:
    """Return the arms' rows of the headline's cell, the highest mean first; arms that tie, in their own order.

    Means are rounded where they are made, so a tie is one here and wherever they are compared.
    """
    return primary(arms, comparison, queries).sort_values("mean", ascending=False, kind="stable")


def _many(comparison: Comparison) -> bool:
    return len(comparison.arms) > MANY_ARMS


def _study(comparison: Comparison, protocol: str, subset: str) -> tuple[Study, list[Cell], int]:
    """Return the arms' values on the same queries, the cells they stand in, and the number of queries."""
    run = comparison.runs[0]
    tasks = list(dict.fromkeys(task for _, _, task in run.cells))
    one = run.cells[protocol, STAGES[0], tasks[0]]  # the same queries in every stage and task
    seen = one["seen_in_training"].to_numpy()
    keep = {"all": np.ones(len(one), dtype=bool), "seen": seen, "unseen": ~seen}[subset]
    cells = list(product(STAGES, tasks, METRICS))
    arms = [np.stack([_values(run, protocol, tasks)[keep] for run in arm.runs]) for arm in comparison.arms]
    return Study(arms, one["group"].to_numpy()[keep]), cells, int(keep.sum())


def _tested(comparison: Comparison, cells: list[Cell], protocol: str) -> list[int]:
    """Return the places of the cells in which pairs of arms are tested."""
    monitored, stage, task, metric = comparison.monitor
    if _many(comparison):
        return [place for place, cell in enumerate(cells) if (protocol, *cell) == (monitored, stage, task, metric)]
    return [place for place, cell in enumerate(cells) if cell[2] in ("accuracy@1", metric)]


def _values(run: Run, protocol: str, tasks: list[str]) -> np.ndarray:
    """Return the metrics of single queries (queries, cells)."""
    columns: list[np.ndarray] = []
    for stage, task in product(STAGES, tasks):
        columns += query_metrics(run.cells[protocol, stage, task]["rank"].to_numpy()).values()
    return np.stack(columns, axis=1)


def _frame(cells: list[Cell], **common: str) -> pd.DataFrame:
    frame = pd.DataFrame(cells, columns=["stage", "task", "metric"])
    for place, (name, value) in enumerate(common.items()):
        frame.insert(place, name, value)
    return frame


def _headline(comparison: Comparison, arms: pd.DataFrame, pairs: pd.DataFrame, queries: str) -> list[str]:
    protocol, stage, task, metric = comparison.monitor
    here = best_first(arms, comparison, queries)
    best = here.iloc[0]
    where = f"test {task} {metric} ({protocol}, {stage})"
    one_group = best.group_count == 1
    interval = "" if one_group else f", 95 % interval {_points(best.low)} to {_points(best.high)}"
    leads = len(here) > 1 and best["mean"] > here["mean"].iloc[1]
    of = f", the highest of {len(here)} arms" if leads else ""
    on = f"{best.query_count} {SEEN[queries] if queries != 'all' else 'queries'}, {_count(best.seeds, 'seed')}"
    sentences = [f"{best.arm} reaches {_points(best['mean'])} % in {where}{interval}, on {on}{of}."]
    if one_group:
        return [*sentences, "All queries are of one group of debates, so nothing shows how far chance could go."]
    others = here["arm"].iloc[1:].tolist()
    if others:
        sentences += _against(best.arm, others, primary(pairs, comparison, queries), comparison.arms)
    if (here["seeds"] == 1).all():
        sentences.append("With one seed an arm, intervals and tests are about these runs, not about the strategies.")
    if best.group_count < FEW_GROUPS:
        sentences.append(
            f"The queries are of {best.group_count} groups of debates only: small differences cannot show."
        )
    return sentences


def _against(best: str, others: list[str], pairs: pd.DataFrame, arms: Sequence[Arm]) -> list[str]:
    """Return what the data say of the best arm and the others: above which it is, and where nothing is shown."""
    seeds = {arm.name: len(arm.runs) for arm in arms}
    above, same, open_ = [], [], []
    wanted = ""
    for other in others[:MANY_ARMS]:
        pair = pairs[pairs["first"].isin([best, other]) & pairs["second"].isin([best, other])].iloc[0]
        sign = 1 if pair["first"] == best else -1
        low, high = sorted((sign * pair["low"], sign * pair["high"]))
        said = f"[{signed(low)}, {signed(high)}] points, p = {pair['p_adjusted']:.2g}"
        if pair["same"]:
            same.append(other)
        elif pair["p_adjusted"] <= 0.05:
            above.append(f"{other} by {signed(sign * pair['mean'])} ({said})")
        else:
            open_.append(f"{other} ({said})")
            wanted = wanted or _wanted(pair, (seeds[best], seeds[other]))
    sentences = [f"It is above {_list(above)}."] if above else []
    sentences += [f"{_list(same)} hits and misses the same queries."] if same else []
    sentences += [f"No difference is shown against {_list(open_)}; {wanted}."] if open_ else []
    if len(others) > MANY_ARMS:
        sentences.append(f"The table has the other {len(others) - MANY_ARMS}.")
    return sentences


def _wanted(pair: pd.Series, seeds: tuple[int, int]) -> str:
    """Return what it would take to see a difference of one point."""
    variance = pair["query_variance"] + np.nan_to_num(pair["seed_variance"])
    if would_be_seen(ONE_POINT, (pair["high"] - pair["low"]) / 2, variance):
        return "one of 1 point would probably have been seen"
    queries = int(pair["query_count"])
    needed = needed_to_see(ONE_POINT, pair["query_variance"], pair["seed_variance"], queries, seeds)
    counts = [f"{needed.queries} queries"] * (needed.queries is not None and needed.queries > queries)
    counts += [f"{needed.seeds} seeds an arm"] * (needed.seeds is not None and needed.seeds > max(seeds))
    wanted = f"about {' or '.join(counts)}" if counts else "more queries and more seeds"
    return f"to see 1 point you would need {wanted}"


def _list(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def signed(share: float) -> str:
    """Return a difference of shares in points, with its sign."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # never -0.0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
