"""The queries that one arm gains and loses against another, with their texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from negexp.corpus import load_corpus
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


def gains_and_losses(
    comparison: Comparison, best: str, other: str, queries: str, number: int
) -> tuple[list[Example], list[Example], str | None]:
    """Return at most `number` queries that `best` gains against `other`, as many that it loses, and why there are none.

    Taken from the headline's protocol, stage, task and subset of queries, by the difference of accuracy@1 averaged over
    seeds, then by the difference of the ranks. The texts are read from the corpus that the run names, if it is there.
    """
    by_name = {arm.name: arm for arm in comparison.arms}
    first, second = by_name[best], by_name[other]
    run = first.runs[0]
    try:
        corpus = load_corpus(run.config.data)
    except InputError as error:
        return [], [], f"no texts: {error}"
    if corpus.fingerprint() != run.result["data_fingerprint"]:
        return [], [], f"no texts: data.path={run.config.data.path} holds another corpus than the runs used"
    split = corpus["test"]
    row = {id_: place for place, id_ in enumerate(split.ids)}
    text_of = {id_: corpus.texts[text] for text, id_ in argument_ids(split).items()}
    cell = comparison.monitor[:3]
    table = _differences(cell, first, second)
    place_of = {str(query): place for place, query in enumerate(table.index)}
    if queries == "unseen":
        table["change"] = table["change"].where(~first.runs[0].cells[cell]["seen_in_training"].to_numpy(), 0.0)
    first_ranked, second_ranked = (arm.runs[0].cells[cell]["first"].tolist() for arm in (first, second))

    def example(query: str) -> Example:
        gold, place = corpus.texts[split.counter[row[query]]], place_of[query]
        ranked = [text_of[ids[place]] for ids in (first_ranked, second_ranked)]
        point, change = corpus.texts[split.point[row[query]]], float(table["change"].iloc[place])
        return Example(
            query, change, point, gold, best, ranked[0], ranked[0] == gold, other, ranked[1], ranked[1] == gold
        )

    gained = table[table["change"] > 0].sort_values(["change", "ranks"], ascending=[False, False], kind="stable")
    lost = table[table["change"] < 0].sort_values(["change", "ranks"], kind="stable")
    return (
        [example(str(query)) for query in gained.index[:number]],
        [example(str(query)) for query in lost.index[:number]],
        None,
    )


def _differences(cell: tuple[str, str, str], first: Arm, second: Arm) -> pd.DataFrame:
    """Return by query the difference of accuracy@1 and of ranks, both means over seeds."""

    def ranks(arm: Arm) -> np.ndarray:
        return np.stack([run.cells[cell]["rank"].to_numpy() for run in arm.runs])

    a, b = ranks(first), ranks(second)
    change = (a == 1).mean(axis=0) - (b == 1).mean(axis=0)
    return pd.DataFrame(
        {"change": change, "ranks": b.mean(axis=0) - a.mean(axis=0)}, index=first.runs[0].cells[cell]["query"]
    )
