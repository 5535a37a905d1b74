"""The arguments of the training pairs, with what is known of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from negexp.corpus import Split
from negexp.corpus.argument_numbers import TABLES, ArgumentNumbers

Ints = NDArray[np.int64]

ORIGINS = ("elsewhere", "theme", "debate")  # by code, see `Arguments.origin`


class Arguments(ArgumentNumbers):
    """The 2n arguments of n training pairs and the m documents of their collection, each known by one number.

    Attributes
    ----------
    text : (2n + m,) row of each argument's text in `Corpus.texts`.
    identity : (2n + m,) the same number for copies of a text, see `Split.identity`.
    theme, debate, stance : (2n + m,) codes, or None where the corpus has none. A document has those of the first pair
        that it is the counter of, or -1.
    collection : the documents, with the golds of the pairs' queries; None where the corpus has only pairs.
    """

    def __init__(self, split: Split) -> None:
        self.collection = split.collection
        documents = np.empty(0, dtype=np.int64) if split.collection is None else split.collection.text
        super().__init__(len(split), len(documents))
        self.text: Ints = np.concatenate([split.point, split.counter, documents])
        self.identity: Ints = np.concatenate([split.point_identity, split.counter_identity, split.identify(documents)])
        self._paired = documents if split.collection is None else split.collection.paired()
        pair = self._paired

        def of_all(codes: Ints | None) -> Ints | None:
            return None if codes is None else np.concatenate([codes, codes, np.where(pair < 0, -1, codes[pair])])

        self.theme, self.debate, self.stance = of_all(split.theme), of_all(split.debate), of_all(split.stance)

    @property
    def pair_texts(self) -> Ints:
        """Return the identities of point and counter of each pair (pairs, 2)."""
        return np.stack([self.identity[self.table("point")], self.identity[self.table("counter")]], axis=1)

    def candidate_tables(self, candidates: str) -> tuple[str, ...]:
        """Return the tables of `sampler.candidates`; documents take the place of counters, each document once.

        `auto`: points and counters; of a collection the documents alone, because only they are searched.
        """
        if candidates == "auto":
            candidates = "counters" if self.documents else "both"
        tables = {"both": ("point", "counter"), "points": ("point",), "counters": ("counter",)}[candidates]
        return tuple("document" if table == "counter" and self.documents else table for table in tables)

    def candidates(self, tables: Sequence[str]) -> Ints:
        """Return all arguments of some tables."""
        return np.concatenate([self.number(table, np.arange(self.size(table))) for table in tables])

    def source(self, argument: Ints) -> tuple[NDArray[np.str_], Ints]:
        """Return the table and the row under which arguments are shown.

        A document that is the counter of a pair is shown as that counter, of the first such pair.
        """
        code, row = np.minimum(argument // max(1, self.pairs), 2), self.row(argument)
        if self.documents:
            pair = np.where(code == 2, self._paired[np.where(code == 2, row, 0)], -1)
            code, row = np.where(pair >= 0, 1, code), np.where(pair >= 0, pair, row)
        return np.array(TABLES)[code], row

    def origin(self, pair: Ints, argument: Ints) -> Ints:
        """Return where each argument comes from, as a place in `ORIGINS`; `pair` and `argument` are broadcast.

        `debate`: the pair's debate. `theme`: the pair's theme, but another debate. `elsewhere`: neither of them.
        """
        origin = np.zeros(np.broadcast(pair, argument).shape, dtype=np.int64)
        for code, codes in enumerate((self.theme, self.debate), start=1):
            if codes is not None:
                origin[codes[pair] == codes[argument]] = code
        return origin
