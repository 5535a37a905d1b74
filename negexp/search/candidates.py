"""What is searched: distinct texts, and where each stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from negexp.corpus import Corpus, Split
from negexp.corpus.match import identities
from negexp.evaluation.ranking import named_arguments
from negexp.search.texts import METADATA, Texts

Ints = NDArray[np.int64]

PLACE = ("id", "source", "split", *METADATA)


@dataclass(frozen=True)
class Candidates:
    """The candidates of some queries, as in the protocol `clean`: each text once, at its first place.

    place: a row for each candidate with the columns `PLACE` (None where the source has no such thing) and `copies`, the
    number of places that have this text. own: (queries, width) the candidates that are none for this query, since they
    have its text, or are the document that is this query; the rest of a row is -1.
    """

    texts: list[str]
    place: pd.DataFrame
    own: Ints

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        places: pd.DataFrame,
        queries: Sequence[str],
        match: str,
        themselves: Sequence[tuple[str, str]] = (),
    ) -> Candidates:
        """Return the distinct ones of texts with their places; `match`: when two texts are the same, `data.match`.

        themselves: points, each with the text of the document that is this point, as `own_documents` returns them.
        """
        known = [text for pair in themselves for text in pair]
        identity = identities([*texts, *queries, *known], match)
        distinct, first, copies = np.unique(identity[: len(texts)], return_index=True, return_counts=True)
        place = places.iloc[first].reset_index(drop=True).assign(copies=copies)
        asked, known_identity = np.split(identity[len(texts) :], [len(queries)])
        documents: dict[int, list[int]] = {}
        for point, document in known_identity.reshape(-1, 2).tolist():
            documents.setdefault(point, []).append(document)
        own = [[one, *documents.get(one, ())] for one in asked.tolist()]
        width = max(map(len, own), default=1)
        padded = np.array([row + [-1] * (width - len(row)) for row in own], dtype=np.int64).reshape(-1, width)
        # identities count up by first occurrence, so the distinct ones are 0, 1, ..., in the order of the texts
        return cls([texts[row] for row in first], place, np.where(padded < len(distinct), padded, -1))

    def __len__(self) -> int:
        return len(self.texts)


def corpus_places(corpus: Corpus, splits: Sequence[str], points: bool) -> tuple[list[str], pd.DataFrame]:
    """Return the texts of all arguments of some splits with their places: the counters, then the points if wanted.

    A collection's documents, which are those of all splits, take the place of the counters. Then the points are those
    of the queries, each once.
    """
    frames: list[pd.DataFrame] = []
    rows: list[Ints] = []
    collection = corpus[splits[0]].collection
    if collection is not None:
        rows.append(collection.text)
        frames.append(pd.DataFrame({"id": collection.ids, "source": "document"}))
    sources = ("counter",) if collection is None else ()
    for source in (*sources, "point") if points else sources:
        for name in splits:
            split = corpus[name]
            ids, texts = named_arguments(split)[source]
            names = pd.DataFrame({"id": ids, "source": source, "split": name, **_names(corpus, split)})
            chosen = slice(None) if split.collection is None else split.collection.first_of_query()
            rows.append(texts[chosen])
            frames.append(names[chosen])
    places = pd.concat(frames, ignore_index=True).reindex(columns=list(PLACE)).astype("str")
    return [corpus.texts[row] for row in np.concatenate(rows)], places


def own_documents(corpus: Corpus) -> list[tuple[str, str]]:
    """Return the points of all splits that are a document themselves, each with the text of that document."""
    found: dict[tuple[str, str], None] = {}
    for split in corpus.splits.values():
        if split.collection is not None:
            pairs = np.flatnonzero(split.collection.itself >= 0)
            texts = zip(split.point[pairs], split.collection.text[split.collection.itself[pairs]], strict=True)
            found |= dict.fromkeys((corpus.texts[point], corpus.texts[document]) for point, document in texts)
    return list(found)


def document_places(documents: Texts) -> pd.DataFrame:
    """Return the places of the texts of a file."""
    columns = {"id": documents.ids, "source": "document", "split": None}
    return pd.DataFrame({name: documents.metadata.get(name, columns.get(name)) for name in PLACE}).astype("str")


def _names(corpus: Corpus, split: Split) -> dict[str, list[str] | None]:
    codes = {name: getattr(split, name) for name in METADATA}
    return {name: None if code is None else [corpus.names[name][one] for one in code] for name, code in codes.items()}
