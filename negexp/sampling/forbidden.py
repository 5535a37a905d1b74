"""The arguments that must not be a negative of a pair."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
        whose point is a copy of the pair's point. `repeats`: a text that the pair has as a negative already. With a
        collection of documents, also all golds of the pair's query and the document that is the query itself, whatever
        is named; with `duplicates`, copies of them as well.

    Attributes
    ----------
    repeats : whether the negatives of a pair must have different texts. `contains` and `count` do not know them, since
        they depend on the negatives that were chosen before.
    """

    def __init__(self, arguments: Arguments, exclude: Collection[str]) -> None:
        self.arguments, self.pairs, self._duplicates = arguments, arguments.pairs, "duplicates" in exclude
        self.repeats = "repeats" in exclude
        self._point, self._counter = (arguments.identity[arguments.table(name)] for name in ("point", "counter"))
        self._golds = None if arguments.collection is None else GoldTexts(arguments, self._duplicates)

    def contains(self, pair: Ints, argument: Ints) -> NDArray[np.bool_]:
        """Return whether each argument is forbidden for its pair; `pair` and `argument` are broadcast."""
        row = self.arguments.row(argument)
        forbidden: NDArray[np.bool_] = row == pair
        if self._golds is not None:
            forbidden &= ~self.arguments.is_document(argument)
            forbidden |= self._golds.contains(pair, argument)
            if self._duplicates:  # the golds have the counters already, and those of copies
                forbidden |= self.arguments.identity[argument] == self._point[pair]
        elif self._duplicates:
            text, own_point = self.arguments.identity[argument], self._point[pair]
            counter_of_copy = self.arguments.is_counter(argument) & (self._point[row] == own_point)
            forbidden |= (text == own_point) | (text == self._counter[pair]) | counter_of_copy
        return forbidden

    def count(self, table: str) -> Ints:
        """Return the number of forbidden arguments of a candidate table for each pair (pairs,)."""
        point, counter = self._point, self._counter
        if self._golds is not None:
            return self._golds.count(table)
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

    def allowed(self, tables: Sequence[str], at_least: int) -> Ints:
        """Return how many negatives each pair can have (pairs,): its allowed arguments, or with `repeats` their texts.

        With `repeats`, a number that is `at_least` or more may be too low, but stays at least that.
        """
        forbidden: Ints = np.sum([self.count(table) for table in tables], axis=0)
        if not self.repeats:
            return sum(map(self.arguments.size, tables)) - forbidden
        arguments = self.arguments.candidates(tables)
        identity = self.arguments.identity[arguments]
        texts: Ints = len(np.unique(identity)) - forbidden  # as if every forbidden argument had a text of its own
        for pair in np.flatnonzero(texts < at_least)[:, None]:
            texts[pair] = len(np.unique(identity[~self.contains(pair, arguments)]))
        return texts


def first_of_each_text(mask: NDArray[np.bool_], identity: Ints) -> NDArray[np.bool_]:
    """Return where a text is the first of its row among those that a mask admits; mask and identity (pairs, width).

    >>> first_of_each_text(np.array([[False, True, True, True]]), np.array([[7, 7, 8, 7]]))
    array([[False,  True,  True, False]])
    """
    first = np.zeros_like(mask)
    row, column = np.nonzero(mask)
    _, place = np.unique(row * (1 + identity.max(initial=0)) + identity[row, column], return_index=True)
    first[row[place], column[place]] = True
    return first


class GoldTexts:
    """The golds of each training pair's query, and the document that is the query itself.

    Texts are compared, or with `copies` their identities; then pairs whose points are copies share their golds.
    """

    def __init__(self, arguments: Arguments, copies: bool) -> None:
        collection = arguments.collection
        assert collection is not None
        self.arguments, self.copies = arguments, copies
        self._text = arguments.identity if copies else arguments.text
        groups = self._text[arguments.table("point")] if copies else collection.query
        self._group: Ints = np.unique(groups, return_inverse=True)[1]  # (pairs,)
        group_of_query = np.full(1 + max(collection.query.max(), collection.golds.query.max(initial=0)), -1)
        group_of_query[collection.query] = self._group
        itself = np.flatnonzero(collection.itself >= 0)
        group = np.concatenate([group_of_query[collection.golds.query], self._group[itself]])
        document = np.concatenate([collection.golds.document, collection.itself[itself]])
        text = self._text[arguments.number("document", document)]
        self._base = 1 + int(self._text.max())
        self._keys = np.unique((group * self._base + text)[group >= 0])

    def contains(self, pair: Ints, argument: Ints) -> NDArray[np.bool_]:
        """Return whether each argument is one of these texts of its pair; `pair` and `argument` are broadcast."""
        return self._known(self._group[pair] * self._base + self._text[argument])

    def count(self, table: str) -> Ints:
        """Return the number of arguments of a candidate table that are forbidden to each pair (pairs,)."""
        texts, own = self._text[self.arguments.table(table)], self._text[self.arguments.table("point")]
        group, text = np.divmod(self._keys, self._base)
        of_group = np.bincount(group, _occurrences(text, texts), minlength=len(self._group)).astype(np.int64)
        more = _occurrences(own, texts) if self.copies else np.full(len(own), int(table == "point"))
        return of_group[self._group] + np.where(self._known(self._group * self._base + own), 0, more)

    def _known(self, keys: Ints) -> NDArray[np.bool_]:
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known: NDArray[np.bool_] = self._keys[place] == keys
        return known


def _occurrences(values: Ints, table: Ints) -> Ints:
    """Return how often each value occurs in a table."""
    ordered = np.sort(table)
    return np.searchsorted(ordered, values, "right") - np.searchsorted(ordered, values, "left")
