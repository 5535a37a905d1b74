"""The arguments that must not be a negative of a pair."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from negexp.sampling.arguments import Arguments

Ints = NDArray[np.int64]


class Forbidden:
    """The forbidden combinations of pair and argument, computed from the texts on demand.

    Parameters
    ----------
    arguments
        The training pairs' arguments.
    exclude
        `self`: the pair's own two arguments. `duplicates`: every copy of these two, and the counters of every pair
        whose point is a copy of the pair's point.
    """

    def __init__(self, arguments: Arguments, exclude: Collection[str]) -> None:
        self.arguments, self.pairs, self._duplicates = arguments, arguments.pairs, "duplicates" in exclude
        self._point, self._counter = (arguments.identity[arguments.table(name)] for name in ("point", "counter"))

    def contains(self, pair: Ints, argument: Ints) -> NDArray[np.bool_]:
        """Return whether each argument is forbidden for its pair; `pair` and `argument` are broadcast."""
        row = self.arguments.row(argument)
        forbidden: NDArray[np.bool_] = row == pair
        if self._duplicates:
            text, own_point = self.arguments.identity[argument], self._point[pair]
            counter_of_copy = self.arguments.is_counter(argument) & (self._point[row] == own_point)
            forbidden |= (text == own_point) | (text == self._counter[pair]) | counter_of_copy
        return forbidden

    def count(self, table: str) -> Ints:
        """Return the number of forbidden arguments of table `point` or `counter` for each pair (pairs,)."""
        point, counter = self._point, self._counter
        if not self._duplicates:
            return np.ones(self.pairs, dtype=np.int64)
        if table == "point":
            return _occurrences(point, point) + np.where(point != counter, _occurrences(counter, point), 0)
        # counters of copies of the point, or with the point's text, or with the counter's text; each row once
        base = 1 + max(int(point.max(initial=0)), int(counter.max(initial=0)))
        both = point * base + counter
        with_points_text = _occurrences(point, counter) - _occurrences(point * base + point, both)
        with_counters_text = _occurrences(counter, counter) - _occurrences(both, both)
        return _occurrences(point, point) + with_points_text + np.where(point != counter, with_counters_text, 0)


def _occurrences(values: Ints, table: Ints) -> Ints:
    """Return how often each value occurs in a table."""
    ordered = np.sort(table)
    return np.searchsorted(ordered, values, "right") - np.searchsorted(ordered, values, "left")
