"""The queries that the best arm gains and loses against the other arms, with their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from negexp.corpus import Corpus, load_corpus
from negexp.corpus.arguments import Ints
from negexp.errors import InputError
from negexp.evaluation.names import argument_ids
from negexp.report.arms import Arm, Comparison


@dataclass(frozen=True)
class Example:
    """One query with its texts, and the text that the first run of each arm ranked first.

    change: difference in accuracy@1 between the two arms, mean over seeds.
    """

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
class ChangedQueries:
    """The queries that the best arm gains against another arm, and those that it loses."""

    other: str
    gained: list[Example]
    lost: list[Example]


def changed_queries(comparison: Comparison, order: Sequence[str], queries: str, number: int) -> list[ChangedQueries]:
    """Return the queries that the first arm of `order` gains and loses against each other arm, up to `number` each.

    The queries are those of the headline's protocol, stage, task and subset. They are sorted by the difference in
    accuracy@1, mean over seeds, then by the difference in rank. The texts come from the corpus of the runs.

    Raises
    ------
    InputError
        When that corpus is missing or has changed.
    """
    by_name = {arm.name: arm for arm in comparison.arms}
    best = by_name[order[0]]
    corpus = load_corpus(best.runs[0].config.data)
    if corpus.fingerprint() != best.runs[0].result.data_fingerprint:
        raise InputError(f"data.path={best.runs[0].config.data.path}: is not the corpus that the runs used")
    cell = comparison.monitor[:3]
    texts = ExampleTexts(corpus, best.runs[0].cells[cell]["query"].tolist())
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
        result.append(ChangedQueries(other, *found))
    return result


class ExampleTexts:
    """Find the texts of test queries and of ranked arguments by their ids."""

    def __init__(self, corpus: Corpus, queries: list[str]) -> None:
        self.split, self.texts, self.queries = corpus["test"], corpus.texts, queries
        row = {id_: place for place, id_ in enumerate(self.split.ids)}
        self.rows = [row[query] for query in queries]
        self.text_of = {id_: text for text, id_ in argument_ids(self.split).items()}

    def example(self, best: str, other: str, place: int, change: float, first: str, second: str) -> Example:
        """Return an example of the query at a position. `first`, `second`: ids of what the two arms ranked first.

        Of several golds, the one that an arm ranked first is shown.
        """
        row, ranked = self.rows[place], np.array([self.text_of[first], self.text_of[second]])
        golds = self._golds(row)
        is_gold = np.isin(self.split.identify(ranked), self.split.identify(golds)).tolist()
        gold = next((text for text, one in zip(ranked, is_gold, strict=True) if one), golds[0])
        point, shown, *texts = (self.texts[text] for text in (self.split.point[row], gold, *ranked))
        return Example(
            self.queries[place], change, point, shown, best, texts[0], is_gold[0], other, texts[1], is_gold[1]
        )

    def _golds(self, row: int) -> Ints:
        """Return the texts of all golds of a query, its counter first."""
        counter, collection = self.split.counter[[row]], self.split.collection
        if collection is None:
            return counter
        documents = collection.golds.table(collection.query[[row]])[0][0]
        return np.concatenate([counter, collection.text[documents[documents >= 0]]])


def _differences(cell: tuple[str, str, str], first: Arm, second: Arm) -> pd.DataFrame:
    """Return a row per query: position, differences in accuracy@1 and rank, and the ids that were ranked first."""

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
