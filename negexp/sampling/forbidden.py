"""Which arguments may not be a pair's negative.

An argument is one number: row r of table `point` is r, row r of table `counter` is pairs + r. Ascending numbers are
the order of ties: point before counter, lower row first.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Forbidden:
    """The forbidden (pair, argument) combinations.

    Parameters
    ----------
    point, counter
        (pairs,) text of each pair's two arguments as a number: equal numbers are identical texts.
    exclude
        `self`: the pair's own two arguments. `duplicates`: every argument whose text is identical to either, and the
        counters of every pair whose point text is identical to the pair's point.
    """

    def __init__(self, point: Ints, counter: Ints, exclude: Collection[str]) -> None:
        self.pairs = len(point)
        pairs = np.arange(self.pairs)
        combinations = [(pairs, pairs), (pairs, self.pairs + pairs)]
        if "duplicates" in exclude:
            arguments = np.concatenate([point, counter])
            same_point_pair, same_point_row = _matches(point, point)
            combinations += [
                _matches(point, arguments),
                _matches(counter, arguments),
                (same_point_pair, self.pairs + same_point_row),
            ]
        self._keys = np.unique(np.concatenate([self._key(*combination) for combination in combinations]))

    def contains(self, pair: Ints, argument: Ints) -> NDArray[np.bool_]:
        """Return whether each argument is forbidden to its pair; the two are broadcast against each other."""
        key = self._key(pair, argument)
        place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        found: NDArray[np.bool_] = self._keys[place] == key
        return found

    def count(self, source: str) -> Ints:
        """Return how many arguments of table `point` or `counter` are forbidden to each pair (pairs,)."""
        pair, argument = np.divmod(self._keys, 2 * self.pairs)
        return np.bincount(pair[(argument >= self.pairs) == (source == "counter")], minlength=self.pairs)

    def _key(self, pair: Ints, argument: Ints) -> Ints:
        return pair * (2 * self.pairs) + argument


def _matches(wanted: Ints, table: Ints) -> tuple[Ints, Ints]:
    """Return all (i, j) with wanted[i] == table[j], without comparing everything with everything."""
    order = np.argsort(table, kind="stable")
    first = np.searchsorted(table[order], wanted, "left")
    counts = np.searchsorted(table[order], wanted, "right") - first
    i = np.repeat(np.arange(len(wanted)), counts)
    within = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    return i, order[np.repeat(first, counts) + within]
