"""The latest results of a computation, for jobs that follow each other in one process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Latest(Generic[Value]):
    """The results that were asked for last, by their keys; there are never more than `most`.

    Who shares a result must not change it.

    >>> squares: Latest[int] = Latest(2)
    >>> [squares.get(number, lambda: print("computed") or number**2) for number in (3, 3)]
    computed
    [9, 9]
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._found: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the result of a key, computed unless it is one of the latest."""
        if key not in self._found:
            while len(self._found) >= self.most:  # before computing, so that memory holds no further one
                self._found.popitem(last=False)
            self._found[key] = compute()
        self._found.move_to_end(key)
        return self._found[key]
