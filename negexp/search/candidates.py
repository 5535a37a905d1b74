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
    """Return the texts of some splits with their places: the counters, then the points if wanted.

    In a corpus with a collection, all its documents take the place of the counters, whatever the splits.
    """
    collection = corpus[splits[0]].collection
    if collection is None:
        parts = [_arguments(corpus, name, "counter") for name in splits]
    else:
        documents = Texts(list(collection.ids), [corpus.texts[row] for row in collection.text], {})
        parts = [(documents.texts, document_places(documents))]
    parts += [_arguments(corpus, name, "point") for name in splits] if points else []
    texts = [text for some, _ in parts for text in some]
    return texts, pd.concat([places for _, places in parts], ignore_index=True)


def document_places(documents: Texts) -> pd.DataFrame:
    """Return the places of the texts of a file."""
    columns = {"id": documents.ids, "source": "document", "split": None}
    return pd.DataFrame({name: documents.metadata.get(name, columns.get(name)) for name in PLACE}).astype("str")


def _arguments(corpus: Corpus, name: str, source: str) -> tuple[list[str], pd.DataFrame]:
    """Return texts and places of the counters or points of a split; a query with several golds is one point."""
    split = corpus[name]
    if split.collection is not None:
        split = split.take(np.flatnonzero(split.collection.first_of_query()))
    rows = split.counter if source == "counter" else split.point
    ids = [f"{id_}/{source}" for id_ in split.ids]
    places = pd.DataFrame({"id": ids, "source": source, "split": name, **_names(corpus, split)})
    return [corpus.texts[row] for row in rows], places[list(PLACE)].astype("str")


def _names(corpus: Corpus, split: Split) -> dict[str, list[str] | None]:
    codes = {name: getattr(split, name) for name in METADATA}
    return {name: None if code is None else [corpus.names[name][one] for one in code] for name, code in codes.items()}
