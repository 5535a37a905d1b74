"""What is searched: distinct texts, and where each stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from negexp.corpus import Corpus, Split
from negexp.corpus.match import identities
from negexp.evaluation.names import named_arguments
from negexp.search.texts import METADATA, Texts

Ints = NDArray[np.int64]

PLACE = ("id", "source", "split", *METADATA)

Places = Mapping[str, Sequence[Any]]  # column -> its value for each text, None where there is none


@dataclass(frozen=True)
class Candidates:
    """The candidates of some queries, as in the protocol `clean`: each text once, at its first place.

    place: the columns `PLACE`, with a value for each candidate (None where the source has no such thing), and `copies`,
    the number of places that have this text. own: (queries, width) the candidates that are none for this query, since
    they have its text, or are the document that is this query; the rest of a row is -1.
    """

    texts: list[str]
    place: Places
    own: Ints

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        places: Places,
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
        place = {name: [values[row] for row in first] for name, values in places.items()} | {"copies": copies.tolist()}
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


def corpus_places(corpus: Corpus, splits: Sequence[str], points: bool) -> tuple[list[str], Places]:
    """Return the texts of all arguments of some splits with their places: the counters, then the points if wanted.

    A collection's documents, which are those of all splits, take the place of the counters. Then the points are those
    of the queries, each once.
    """
    texts: list[str] = []
    places: dict[str, list[Any]] = {name: [] for name in PLACE}

    def add(rows: Ints, columns: Mapping[str, Sequence[Any]]) -> None:
        texts.extend(corpus.texts[row] for row in rows)
        for name in PLACE:
            places[name].extend(columns.get(name, [None] * len(rows)))

    collection = corpus[splits[0]].collection
    if collection is not None:
        add(collection.text, {"id": collection.ids, "source": ["document"] * len(collection)})
    sources = ("counter",) if collection is None else ()
    for source in (*sources, "point") if points else sources:
        for name in splits:
            split = corpus[name]
            ids, rows = named_arguments(split)[source]
            chosen = np.arange(len(split))
            if split.collection is not None:
                chosen = np.flatnonzero(split.collection.first_of_query())
            columns: dict[str, Sequence[Any]] = {
                "id": ids,
                "source": [source] * len(ids),
                "split": [name] * len(ids),
                **_names(corpus, split),
            }
            add(rows[chosen], {column: [values[one] for one in chosen.tolist()] for column, values in columns.items()})
    return texts, places


def own_documents(corpus: Corpus) -> list[tuple[str, str]]:
    """Return the points of all splits that are a document themselves, each with the text of that document."""
    found: dict[tuple[str, str], None] = {}
    for split in corpus.splits.values():
        if split.collection is not None:
            pairs = np.flatnonzero(split.collection.itself >= 0)
            texts = zip(split.point[pairs], split.collection.text[split.collection.itself[pairs]], strict=True)
            found |= dict.fromkeys((corpus.texts[point], corpus.texts[document]) for point, document in texts)
    return list(found)


def document_places(documents: Texts) -> Places:
    """Return the places of the texts of a file."""
    nothing = [None] * len(documents.ids)
    columns: dict[str, Sequence[Any]] = {
        "id": documents.ids,
        "source": ["document"] * len(documents.ids),
        **documents.metadata,
    }
    return {name: columns.get(name, nothing) for name in PLACE}


def _names(corpus: Corpus, split: Split) -> dict[str, list[str]]:
    """Return the names of the metadata that the split has, for each pair."""
    codes = {name: getattr(split, name) for name in METADATA if getattr(split, name) is not None}
    return {name: [corpus.names[name][one] for one in code] for name, code in codes.items()}
