"""One number for each argument of some pairs: the owner of that encoding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

TABLES = ("point", "counter")


class ArgumentNumbers:
    """The 2n arguments of n pairs: row r of table `point` is argument r, row r of table `counter` is n + r.

    Ascending numbers are the order of ties: point before counter, lower row first. No other code computes with the
    encoding.

    >>> numbers = ArgumentNumbers(3)
    >>> numbers.number("counter", np.array([0, 2])).tolist()
    [3, 5]
    >>> numbers.row(np.array([2, 5])).tolist()
    [2, 2]
    """

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs

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
