"""Pairs and their negatives to a `TextBatch`, the input of a loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from negexp.corpus import Split
from negexp.embedding import TextEncoder
from negexp.model import Role, TextBatch, Vectors
from negexp.sampling import Arguments, Forbidden, Negatives

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BatchBuilder:
    """Builds batches of the training pairs; `points_are_candidates` comes from the loss.

    chunk_pairs: embed so many pairs at a time, see `TextEncoder.encode`; None: all of a batch.
    """

    encoder: TextEncoder
    train: Split
    arguments: Arguments
    forbidden: Forbidden
    points_are_candidates: bool = False
    chunk_pairs: int | None = None

    def build(self, pair: Ints, negatives: Negatives) -> TextBatch:
        """Return the batch of some pairs, with all their texts embedded together, each distinct text once per role.

        `negatives` holds the negatives of all training pairs.
        """
        own = negatives.argument[pair]  # (pairs, k)
        column = np.concatenate([self._columns(pair), own.ravel()])  # the argument in each candidate column
        point = self.arguments.number("point", pair)
        query, candidate = self._embed(self.arguments.text[point], column)
        text = np.unique(self.arguments.identity[np.concatenate([point, column])], return_inverse=True)[1]
        allowed = ~self.forbidden.contains(pair[:, None], column)
        pairs, to_device = len(pair), self.encoder.runtime.to_device
        return TextBatch(
            query,
            candidate,
            positive=to_device(torch.arange(pairs)),
            negative=to_device(torch.arange(len(column) - own.size, len(column)).view(own.shape)),
            allowed=to_device(torch.from_numpy(allowed)),
            weight=to_device(torch.from_numpy(negatives.weight[pair])),
            text=to_device(torch.from_numpy(text[pairs:])),
            query_text=to_device(torch.from_numpy(text[:pairs])),
            pair=to_device(torch.from_numpy(pair)),
            debate=self._codes(self.train.debate, pair),
            theme=self._codes(self.train.theme, pair),
        )

    def _columns(self, pair: Ints) -> Ints:
        tables = ("counter", "point") if self.points_are_candidates else ("counter",)
        return np.concatenate([self.arguments.number(table, pair) for table in tables])

    def _embed(self, points: Ints, column: Ints) -> tuple[Vectors, Vectors]:
        texts, pairs, model = self.arguments.text[column], len(points), self.encoder.model
        chunks = 1 if self.chunk_pairs is None else -(-pairs // self.chunk_pairs)
        if model.shared:
            vectors = self._vectors("query", np.concatenate([points, texts]), chunks)
            return model.as_queries(vectors.rows(slice(pairs))), vectors.rows(slice(pairs, None))
        query = model.as_queries(self._vectors("query", points, chunks))
        return query, self._vectors("candidate", texts, chunks)

    def _vectors(self, role: Role, texts: Ints, chunks: int) -> Vectors:
        """Return the embeddings of texts, with gradients for what learns. A frozen encoder computes each text once."""
        tower = self.encoder.model.tower(role)
        if not tower.frozen:
            return self.encoder.encode(role, texts, chunks)
        table, row = self._frozen[role]
        pooled = table[self.encoder.runtime.to_device(torch.from_numpy(row[texts]))]
        return Vectors(tower.retrieval(pooled), pooled)

    @cached_property
    def _frozen(self) -> dict[Role, tuple[Tensor, Ints]]:
        """Return a frozen encoder's pooled embeddings of the training texts by role, and the row of each text."""
        model = self.encoder.model
        learning = model.training
        embeddings = self.encoder.embed(self.train.texts(), "train", self.train.point)
        model.train(learning)
        parts: dict[Role, Vectors] = {"query": embeddings.query}
        if not model.shared:
            parts["candidate"] = embeddings.candidate
        return {role: (part.pooled.clone(), embeddings.rows(role)) for role, part in parts.items()}

    def _codes(self, codes: Ints | None, pair: Ints) -> Tensor | None:
        return None if codes is None else self.encoder.runtime.to_device(torch.from_numpy(codes[pair]))
