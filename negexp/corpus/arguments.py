"""A corpus in memory: distinct texts, their copies, and pairs of texts in three splits."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from negexp.corpus.collection import Collection, Document, Golds
from negexp.corpus.match import identities

Ints = NDArray[np.int64]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Record:
    """One pair from a reader; metadata that the source lacks is None.

    The other fields are for readers with `Reading.documents`. query: the same text for all pairs of a query. document:
    the counter's row in the documents. itself: the row of the document that is the query, -1 if there is none. grade:
    how good an answer the counter is, above 0.
    """

    point: str
    counter: str
    split: str | None
    theme: str | None
    debate: str | None
    stance: str | None
    id: str
    query: str | None = None
    document: int = -1
    itself: int = -1
    grade: int = 1


@dataclass(frozen=True)
class Split:
    """The pairs of one split.

    `point` and `counter` (pairs,) are rows of `Corpus.texts`: these texts are tokenised, embedded and shown.
    `theme`, `debate` (within its theme) and `stance` (pairs,) are codes, or None if the source has none.
    `identity` (texts of the corpus,) is the same number for all copies of a text. All code that compares texts compares
    these numbers. None: no two texts are copies.
    `collection` has the documents that are candidates, and all golds of the queries. None: the candidates are points
    and counters, and the only gold of a query is its counter.
    """

    ids: tuple[str, ...]
    point: Ints
    counter: Ints
    theme: Ints | None
    debate: Ints | None
    stance: Ints | None
    identity: Ints | None = None
    collection: Collection | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def identify(self, texts: Ints) -> Ints:
        """Return the identities of texts (rows of `Corpus.texts`)."""
        return texts if self.identity is None else self.identity[texts]

    @cached_property
    def point_identity(self) -> Ints:
        """Return the identity of each point (pairs,)."""
        return self.identify(self.point)

    @cached_property
    def counter_identity(self) -> Ints:
        """Return the identity of each counter (pairs,)."""
        return self.identify(self.counter)

    @cached_property
    def respelled(self) -> bool:
        """Return whether two different texts of the split are copies (`data.match=normalized`)."""
        texts = self.texts()
        return len(np.unique(self.identify(texts))) < len(texts)

    def take(self, rows: Ints) -> Split:
        """Return the pairs of the given rows, in their order."""

        def pick(values: Ints | None) -> Ints | None:
            return None if values is None else values[rows]

        return Split(
            tuple(self.ids[row] for row in rows),
            self.point[rows],
            self.counter[rows],
            pick(self.theme),
            pick(self.debate),
            pick(self.stance),
            self.identity,
            None if self.collection is None else self.collection.take(rows),
        )

    def texts(self) -> Ints:
        """Return the distinct text rows of the split and its documents, ascending."""
        documents = [] if self.collection is None else [self.collection.text]
        return np.unique(np.concatenate([self.point, self.counter, *documents]))


@dataclass(frozen=True)
class Corpus:
    """All distinct texts, and the pairs of each split that are used.

    `counts` describes the files: split -> points, counters, pairs, debates with a pair (null without debates), and
    documents if there is a collection of them.
    `match` is `data.match`: when two texts are copies. `summary` describes files, copies and leaks in words.
    `names`: `theme`, `debate` and `stance` -> the name of each code of a split.
    """

    name: str
    texts: tuple[str, ...]
    splits: dict[str, Split]
    counts: dict[str, dict[str, int | None]]
    match: str
    summary: str
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __getitem__(self, split: str) -> Split:
        return self.splits[split]

    def fingerprint(self) -> str:
        """Return a SHA-256 over the ids and texts of every split, in order, and over documents and golds."""
        return hashlib.sha256(repr(self.contents).encode()).hexdigest()

    @cached_property
    def contents(self) -> dict[str, list[Any]]:
        """Return split -> number of pairs, and SHA-256 over their ids, texts, documents and golds, in order."""
        contents: dict[str, list[Any]] = {}
        for name, split in self.splits.items():
            digest = hashlib.sha256()
            pairs = zip(split.ids, split.point, split.counter, strict=True)
            parts: Iterable[str] = (
                part for id_, point, counter in pairs for part in (id_, self.texts[point], self.texts[counter])
            )
            if split.collection is not None:
                parts = itertools.chain(parts, split.collection.contents(self.texts))
            for part in parts:
                data = part.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
            contents[name] = [len(split), digest.hexdigest()]
        return contents


def with_unique_ids(records: Sequence[Record], in_each_split: bool = False) -> list[Record]:
    """Return the records with unique ids: a later record with the id of an earlier one gets `id~2`.

    `in_each_split`: ids are unique within a split only. So a query of two splits has its own id in both.
    """
    taken = {(record.split if in_each_split else None, record.id) for record in records}
    seen: set[tuple[str | None, str]] = set()
    unique = []
    for record in records:
        split, id_, number = record.split if in_each_split else None, record.id, 2
        if (split, id_) in seen:
            while (split, id_ := f"{record.id}~{number}") in taken:
                number += 1
            taken.add((split, id_))
        seen.add((split, id_))
        unique.append(record if id_ == record.id else replace(record, id=id_))
    return unique


def index_records(
    records: Sequence[Record], match: str, documents: Sequence[Document] = ()
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Return the distinct texts and the splits, with numbers for texts, themes, debates, stances and documents."""
    text_rows: dict[str, int] = {}
    for record in records:
        text_rows.setdefault(record.point, len(text_rows))
        text_rows.setdefault(record.counter, len(text_rows))
    ids = tuple(document.id for document in documents)
    text = np.array([text_rows.setdefault(one.text, len(text_rows)) for one in documents], dtype=np.int64)
    identity = identities(text_rows, match)
    themes, debates, stances = (_codes(values) for values in _metadata(records).values())
    splits = {}
    for name in SPLITS:
        rows = np.array([row for row, record in enumerate(records) if record.split == name], dtype=np.int64)
        chosen = [records[row] for row in rows]
        splits[name] = Split(
            ids=tuple(record.id for record in chosen),
            point=np.array([text_rows[record.point] for record in chosen], dtype=np.int64),
            counter=np.array([text_rows[record.counter] for record in chosen], dtype=np.int64),
            theme=None if themes is None else themes[rows],
            debate=None if debates is None else debates[rows],
            stance=None if stances is None else stances[rows],
            identity=identity,
            collection=_collection(chosen, ids, text) if documents else None,
        )
    return tuple(text_rows), splits


def metadata_names(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """Return `theme`, `debate` and `stance` -> the name of each code in the splits of `index_records`."""
    found = {kind: dict.fromkeys(values) for kind, values in _metadata(records).items()}
    return {kind: tuple(path[-1] for path in paths if path is not None) for kind, paths in found.items()}


def _metadata(records: Sequence[Record]) -> dict[str, list[tuple[str | None, str] | None]]:
    """Return `theme`, `debate` and `stance` of each record, each with what it stands in: a debate within its theme."""
    columns: dict[str, list[tuple[str | None, str] | None]] = {"theme": [], "debate": [], "stance": []}
    for record in records:
        columns["theme"].append(None if record.theme is None else (None, record.theme))
        columns["debate"].append(None if record.debate is None else (record.theme, record.debate))
        columns["stance"].append(None if record.stance is None else (None, record.stance))
    return columns


def _collection(records: Sequence[Record], ids: tuple[str, ...], text: Ints) -> Collection:
    """Return the documents as the pairs of one split refer to them."""
    numbers: dict[str, int] = {}
    query, counter, itself, grade = (
        np.array(
            [
                (
                    numbers.setdefault(record.query or record.id, len(numbers)),
                    record.document,
                    record.itself,
                    record.grade,
                )
                for record in records
            ],
            dtype=np.int64,
        )
        .reshape(-1, 4)
        .T
    )
    first = np.unique(np.stack([query, counter]), axis=1, return_index=True)[1]  # a pair may be there twice
    gold = np.sort(first)
    gold = gold[np.argsort(query[gold], kind="stable")]
    return Collection(ids, text, query, counter, itself, Golds(query[gold], counter[gold], grade[gold]))


def _codes(values: Iterable[object]) -> Ints | None:
    """Return the number of each value by first occurrence; None if a value is missing."""
    numbers: dict[object, int] = {}
    codes = []
    for value in values:
        if value is None:
            return None
        codes.append(numbers.setdefault(value, len(numbers)))
    return np.array(codes, dtype=np.int64)
