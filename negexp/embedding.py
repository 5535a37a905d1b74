"""Embed texts with the model as it stands: evaluation mode, each distinct token sequence once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from negexp.model import BiEncoder, Role
from negexp.progress import progress_bar
from negexp.runtime import Runtime
from negexp.signals import check_stop
from negexp.tokens import TokenTable

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Vectors:
    """Embeddings of token sequences in one role, on the runtime's device: retrieval (rows, r), pooled (rows, h)."""

    retrieval: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of texts as queries and as candidates; the same object twice when the encoder is shared.

    row: (texts of the corpus,) row of each text's vectors, -1 for texts that were not embedded.
    """

    query: Vectors
    candidate: Vectors
    row: Ints

    def retrieval(self, role: Role, texts: Ints) -> NDArray[np.float32]:
        """Return retrieval embeddings (texts, r) of the given texts."""
        vectors = self.query if role == "query" else self.candidate
        rows = torch.from_numpy(self.row[texts]).to(vectors.retrieval.device)
        found: NDArray[np.float32] = vectors.retrieval[rows].cpu().numpy()
        return found


def embed(model: BiEncoder, tokens: TokenTable, texts: Ints, runtime: Runtime, what: str, progress: str) -> Embeddings:
    """Embed the given texts (rows of the token table's `row`) in evaluation mode."""
    wanted = np.unique(tokens.row[texts])
    model.eval()
    query = _embed_role(model, "query", tokens, wanted, runtime, what, progress)
    candidate = query if model.shared else _embed_role(model, "candidate", tokens, wanted, runtime, what, progress)
    place = np.full(len(tokens), -1, dtype=np.int64)
    place[wanted] = np.arange(len(wanted))
    return Embeddings(query, candidate, place[tokens.row])


@torch.inference_mode()
def _embed_role(
    model: BiEncoder, role: Role, tokens: TokenTable, rows: Ints, runtime: Runtime, what: str, progress: str
) -> Vectors:
    vectors: Vectors | None = None
    with progress_bar(len(rows), f"embedding {what}", "text", progress) as bar:
        for positions, retrieval, pooled in encode_batches(model, role, tokens, rows, runtime):
            if vectors is None:
                vectors = Vectors(*(part.new_empty(len(rows), part.shape[1]) for part in (retrieval, pooled)))
            target = runtime.to_device(torch.from_numpy(positions))
            vectors.retrieval[target], vectors.pooled[target] = retrieval, pooled
            bar.update(len(positions))
    assert vectors is not None
    return vectors


def encode_batches(
    model: BiEncoder, role: Role, tokens: TokenTable, rows: Ints, runtime: Runtime
) -> Iterator[tuple[NDArray[np.intp], Tensor, Tensor]]:
    """Yield (positions in `rows`, retrieval, pooled) in length-sorted batches, with gradients where they are on."""
    most = runtime.tokens_per_training_batch if torch.is_grad_enabled() else runtime.tokens_per_batch
    for positions in tokens.batches(rows, most):
        check_stop()
        ids, mask = (runtime.to_device(part) for part in tokens.pad(rows[positions]))
        with runtime.autocast():
            retrieval, pooled = model(ids, mask, role)
        yield positions, retrieval, pooled
