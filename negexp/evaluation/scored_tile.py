"""The scores of a block of queries and a tile of columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from negexp.corpus.arguments import Ints

CHUNK = 16  # columns whose best score is compared first


@dataclass(frozen=True)
class ScoredTile:
    """Scores (queries, columns), and the best one of each chunk of columns: most chunks hold no column that matters."""

    scores: Tensor

    @cached_property
    def chunks(self) -> Tensor:
        """Return the scores (queries, CHUNK, chunks), -inf beyond the last column.

        A chunk holds every `chunks`-th column, so that the maximum over chunks reads whole rows.
        """
        scores, missing = self.scores, -self.scores.shape[1] % CHUNK
        if missing:
            scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
        chunks: Tensor = scores.unflatten(1, (CHUNK, -1))
        return chunks

    @cached_property
    def best(self) -> Tensor:
        """Return the best score (queries, chunks) of each chunk."""
        return self.chunks.amax(dim=1)

    def in_chunks(self, reached: Tensor, lowest: Tensor, *, equal: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, column and score of what is above the lowest scores (queries, 1), in some chunks.

        `reached` (queries, chunks) is true for these chunks; with `equal`, the lowest score itself counts.
        """
        query, chunk = reached.nonzero(as_tuple=True)
        members = self.chunks[query, :, chunk]  # (chunks, CHUNK)
        limit = lowest[query]
        hit, member = (members >= limit if equal else members > limit).nonzero(as_tuple=True)
        return query[hit], chunk[hit] + member * self.best.shape[1], members[hit, member]

    def within(self, rows: Ints, columns: Ints) -> ScoredTile:
        """Return some queries and columns; both ascend. Without gaps, nothing is copied."""
        if (len(rows), len(columns)) == self.scores.shape:
            return self
        return ScoredTile(within(self.scores, rows, columns))


def within(values: Tensor, rows: Ints, columns: Ints) -> Tensor:
    """Return some rows and columns of a matrix; both ascend. Without gaps, nothing is copied."""
    for dim, places in enumerate((rows, columns)):
        if places[-1] - places[0] + 1 == len(places):
            values = values.narrow(dim, int(places[0]), len(places))
        else:
            values = values.index_select(dim, torch.from_numpy(places).to(values.device))
    return values
