"""What is searched: distinct texts, and where each stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from negexp.corpus import Corpus, Split
from negexp.corpus.match import identities
from negexp.search.texts import METADATA, Texts

Ints = NDArray[np.int64]

PLACE = ("id", "source", "split", *METADATA)


@dataclass(frozen=True)
class Candidates:
    """The candidates of some queries, as in the protocol `clean`: each text once, at its first place.

    place: a row for each candidate with the columns `PLACE` (None where the source has no such thing) and `copies`, the
    number of places that have this text. own: (queries,) the candidate with the query's own text, which is none for
    this query; -1 if there is none.
    """

    texts: list[str]
    place: pd.DataFrame
    own: Ints

    @classmethod
    def of(cls, texts: Sequence[str], places: pd.DataFrame, queries: Sequence[str], match: str) -> Candidates:
        """Return the distinct ones of texts with their places; `match`: when two texts are the same, `data.match`."""
        identity = identities([*texts, *queries], match)
        distinct, first, copies = np.unique(identity[: len(texts)], return_index=True, return_counts=True)
        # identities count up by first occurrence, so the distinct ones are 0, 1, ..., in the order of the texts
        own = np.where(identity[len(texts) :] < len(distinct), identity[len(texts) :], -1)
        place = places.iloc[first].reset_index(drop=True).assign(copies=copies)
        return cls([texts[row] for row in first], place, own)

    def __len__(self) -> int:
        return len(self.texts)


def corpus_places(corpus: Corpus, splits: Sequence[str], points: bool) -> tuple[list[str], pd.DataFrame]:
    """Return the texts of all arguments of some splits with their places: the counters, then the points if wanted."""
    frames, texts = [], []
    for source in ("counter", "point") if points else ("counter",):
        for name in splits:
            split = corpus[name]
            rows = split.counter if source == "counter" else split.point
            texts += [corpus.texts[row] for row in rows]
            ids = [f"{id_}/{source}" for id_ in split.ids]
            frames.append(pd.DataFrame({"id": ids, "source": source, "split": name, **_names(corpus, split)}))
    return texts, pd.concat(frames, ignore_index=True)[list(PLACE)].astype("str")


def document_places(documents: Texts) -> pd.DataFrame:
    """Return the places of the texts of a file."""
    columns = {"id": documents.ids, "source": "document", "split": None}
    return pd.DataFrame({name: documents.metadata.get(name, columns.get(name)) for name in PLACE}).astype("str")


def _names(corpus: Corpus, split: Split) -> dict[str, list[str] | None]:
    codes = {name: getattr(split, name) for name in METADATA}
    return {name: None if code is None else [corpus.names[name][one] for one in code] for name, code in codes.items()}
