"""Ids of arguments, for tables and files of ranks."""

from __future__ import annotations

import numpy as np

from negexp.corpus.arguments import Ints, Split


def named_arguments(split: Split) -> dict[str, tuple[list[str], Ints]]:
    """Return table -> the id and the text (row of `Corpus.texts`) of each argument, in the order of their numbers.

    Ids are `theme/debate/pro01/point` and `theme/debate/pro01/counter`; documents of a collection have their own.
    """
    tables = {
        part: ([f"{id_}/{part}" for id_ in split.ids], texts)
        for part, texts in (("point", split.point), ("counter", split.counter))
    }
    if split.collection is not None:
        tables["document"] = (list(split.collection.ids), split.collection.text)
    return tables


def argument_ids(split: Split) -> dict[int, str]:
    """Return the id of the first argument with each text: documents of a collection, then counters, then points."""
    ids: dict[int, str] = {}
    tables = named_arguments(split)
    for table in ("document", "counter", "point"):
        for id_, text in zip(*tables.get(table, ((), np.empty(0, dtype=np.int64))), strict=True):
            ids.setdefault(int(text), id_)
    return ids
