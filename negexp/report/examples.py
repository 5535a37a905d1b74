"""The queries that the best arm gains and loses against the others, with their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from negexp.corpus import Corpus, load_corpus
from negexp.errors import InputError
from negexp.evaluation.ranking import argument_ids
from negexp.report.arms import Arm, Comparison


@dataclass(frozen=True)
class Example:
    """One query: its texts, and what either arm's first run ranked first; `change` is the difference in accuracy@1."""

    query: str
    change: float
    point: str
    gold: str
    first_arm: str
    first_ranked: str
    first_is_gold: bool
    second_arm: str
    second_ranked: str
    second_is_gold: bool

    def row(self) -> dict[str, Any]:
        """Return the example as one JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Exchange:
    """The queries that the best arm gains against another, and those that it loses."""

    other: str
    gained: list[Example]
    lost: list[Example]


def exchanges(comparison: Comparison, order: Sequence[str], queries: str, number: int) -> list[Exchange]:
    """Return what the first arm of `order` gains and loses against each other one, at most `number` queries of each.

    Taken from the headline's protocol, stage, task and subset of queries, by the difference of accuracy@1 averaged over
    seeds, then by the difference of the ranks. The texts are read from the corpus that the runs name.

    Raises
    ------
    InputError
        When that corpus is no longer there, or is another one by now.
    """
    by_name = {arm.name: arm for arm in comparison.arms}
    best = by_name[order[0]]
    corpus = load_corpus(best.runs[0].config.data)
    if corpus.fingerprint() != best.runs[0].result["data_fingerprint"]:
        raise InputError(f"data.path={best.runs[0].config.data.path}: holds another corpus than the runs used")
    cell = comparison.monitor[:3]
    texts = _Texts(corpus, best.runs[0].cells[cell]["query"].tolist())
    result = []
    for other in order[1:]:
        table = _differences(cell, best, by_name[other])
        if queries == "unseen":
            table = table[~best.runs[0].cells[cell]["seen_in_training"].to_numpy()]
        gained = table[table["change"] > 0].sort_values(["change", "ranks"], ascending=False, kind="stable")
        lost = table[table["change"] < 0].sort_values(["change", "ranks"], kind="stable")
        columns = ["place", "change", "first", "second"]
        found = (
            [texts.example(best.name, other, *row) for row in part[columns].head(number).itertuples(index=False)]
            for part in (gained, lost)
        )
        result.append(Exchange(other, *found))
    return result


class _Texts:
    """The texts of a comparison's test queries, which ranks name by id."""

    def __init__(self, corpus: Corpus, queries: list[str]) -> None:
        split = corpus["test"]
        row = {id_: place for place, id_ in enumerate(split.ids)}
        self.queries, self.texts = queries, corpus.texts
        self.point = [split.point[row[query]] for query in queries]
        self.gold = [split.counter[row[query]] for query in queries]
        self.of = {id_: text for text, id_ in argument_ids(split).items()}
        self.identity = split.identify(np.arange(len(corpus.texts)))

    def example(self, best: str, other: str, place: int, change: float, first: str, second: str) -> Example:
        """Return the example of the query at a place, with the ids of what either arm's first run ranked first."""
        gold, ranked = self.gold[place], [self.of[first], self.of[second]]
        query, point = self.queries[place], self.texts[self.point[place]]
        texts = [self.texts[text] for text in ranked]
        is_gold = [bool(self.identity[text] == self.identity[gold]) for text in ranked]
        return Example(query, change, point, self.texts[gold], best, texts[0], is_gold[0], other, texts[1], is_gold[1])


def _differences(cell: tuple[str, str, str], first: Arm, second: Arm) -> pd.DataFrame:
    """Return by query its place, the difference of accuracy@1 and of ranks over seeds, and what was ranked first."""

    def ranks(arm: Arm) -> np.ndarray:
        return np.stack([run.cells[cell]["rank"].to_numpy() for run in arm.runs])

    a, b = ranks(first), ranks(second)
    return pd.DataFrame(
        {
            "place": np.arange(a.shape[1]),
            "change": (a == 1).mean(axis=0) - (b == 1).mean(axis=0),
            "ranks": b.mean(axis=0) - a.mean(axis=0),
            "first": first.runs[0].cells[cell]["first"].tolist(),
            "second": second.runs[0].cells[cell]["first"].tolist(),
        }
    )
