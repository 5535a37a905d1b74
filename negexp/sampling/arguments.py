"""The arguments of the training pairs, numbered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from negexp.corpus import Split

Ints = NDArray[np.int64]

TABLES = ("point", "counter")


class Arguments:
    """The 2n arguments of n training pairs: row r of table `point` is argument r, row r of table `counter` is n + r.

    Ties are broken by ascending number: point before counter, lower row first. Only this class computes with this
    encoding.

    Attributes
    ----------
    pairs : n.
    text : (2n,) row of each argument's text in `Corpus.texts`.
    identity : (2n,) the same number for copies of a text, see `Split.identity`.
    theme, debate, stance : (2n,) codes, or None if the corpus has none.
    """

    def __init__(self, split: Split) -> None:
        self.pairs = len(split)
        self.text: Ints = np.concatenate([split.point, split.counter])
        self.identity: Ints = np.concatenate([split.point_identity, split.counter_identity])
        self.theme, self.debate, self.stance = (
            None if codes is None else np.tile(codes, 2) for codes in (split.theme, split.debate, split.stance)
        )

    def __len__(self) -> int:
        return 2 * self.pairs

    def table(self, name: str) -> slice:
        """Return the arguments of table `point` or `counter`."""
        first = self.pairs * TABLES.index(name)
        return slice(first, first + self.pairs)

    def number(self, table: str, row: Ints) -> Ints:
        """Return the argument in each row of table `point` or `counter`."""
        first: int = self.table(table).start
        return row + first

    def row(self, argument: Ints) -> Ints:
        """Return the pair that each argument belongs to: its row in its table."""
        return argument % self.pairs

    def is_counter(self, argument: Ints) -> NDArray[np.bool_]:
        """Return whether each argument is a counter; the others are points."""
        return argument >= self.pairs
