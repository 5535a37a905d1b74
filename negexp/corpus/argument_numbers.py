"""One number for each argument of some pairs: the owner of that encoding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

TABLES = ("point", "counter", "document")


class ArgumentNumbers:
    """The 2n arguments of n pairs: row r of table `point` is argument r, row r of table `counter` is n + r.

    If the corpus has a collection of documents, row r of table `document` is argument 2n + r. Ascending numbers are the
    order of ties: point before counter, lower row first. No other code computes with the encoding.

    >>> numbers = ArgumentNumbers(3)
    >>> numbers.number("counter", np.array([0, 2])).tolist()
    [3, 5]
    >>> numbers.row(np.array([2, 5])).tolist()
    [2, 2]
    >>> ArgumentNumbers(3, documents=9).number("document", np.array([8])).tolist()
    [14]
    """

    def __init__(self, pairs: int, documents: int = 0) -> None:
        self.pairs, self.documents = pairs, documents

    def __len__(self) -> int:
        return 2 * self.pairs + self.documents

    def size(self, table: str) -> int:
        """Return the number of rows of a table."""
        return self.documents if table == "document" else self.pairs

    def table(self, name: str) -> slice:
        """Return the arguments of table `point`, `counter` or `document`."""
        first = self.pairs * TABLES.index(name)
        return slice(first, first + self.size(name))

    def number(self, table: str, row: Ints) -> Ints:
        """Return the argument in each row of a table."""
        first: int = self.table(table).start
        return row + first

    def row(self, argument: Ints) -> Ints:
        """Return the row of each argument in its table: the pair that a point or a counter belongs to."""
        if not self.documents:
            return argument % self.pairs
        return np.where(self.is_document(argument), argument - 2 * self.pairs, argument % self.pairs)

    def is_counter(self, argument: Ints) -> NDArray[np.bool_]:
        """Return whether each argument is a row of table `counter`."""
        counter: NDArray[np.bool_] = argument >= self.pairs
        return counter & ~self.is_document(argument) if self.documents else counter

    def is_document(self, argument: Ints) -> NDArray[np.bool_]:
        """Return whether each argument is a row of table `document`."""
        return argument >= 2 * self.pairs
