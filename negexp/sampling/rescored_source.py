"""Neighbours of another source, whose similarities are scores from elsewhere, as from a cross-encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from negexp.sampling.arguments import Arguments
from negexp.sampling.source import Floats, Ints, Source

Scoring = Callable[[Ints, Ints], Floats]  # points (pairs,) and candidates (pairs, k) as texts -> scores (pairs, k)


@dataclass(frozen=True)
class RescoredSource:
    """The neighbours and the distances of a source, with similarities that `scores` computes from texts."""

    source: Source
    arguments: Arguments
    scores: Scoring

    @property
    def positive_distance(self) -> Floats:
        """Return the source's distance of each point to its own counter (pairs,)."""
        return self.source.positive_distance

    def search(self, table: str, pair: Ints, k: int) -> tuple[Floats, Ints]:
        """Return the source's distances and rows (pairs, k) of the nearest in a table."""
        return self.source.search(table, pair, k)

    def distance(self, pair: Ints, argument: Ints) -> Floats:
        """Return the source's distances (pairs, k)."""
        return self.source.distance(pair, argument)

    def similarity(self, pair: Ints, argument: Ints) -> Floats:
        """Return the scores (pairs, k) of arguments (pairs, k) for the pairs' points (pairs,)."""
        return self.scores(self.arguments.text[pair], self.arguments.text[argument])
