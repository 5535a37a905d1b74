"""Texts to embeddings with the current model. Each distinct token sequence is embedded once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from negexp.model import BiEncoder, Role, Vectors
from negexp.progress import progress_bar
from negexp.runtime import Runtime
from negexp.signals import check_stop
from negexp.tokens import TokenTable

Ints = NDArray[np.int64]

NOTHING = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of texts as queries and as candidates, on the runtime's device.

    With a shared encoder and no query head, `query` and `candidate` are the same object.
    row: (texts of the corpus,) row of each text in `candidate`, -1 for texts that were not embedded.
    query_row: the same for `query`; None: as `row`. With two encoders, only queries have rows there.
    """

    query: Vectors
    candidate: Vectors
    row: Ints
    query_row: Ints | None = None

    def rows(self, role: Role) -> Ints:
        """Return the row (texts of the corpus,) of each text in the vectors of a role."""
        return self.row if role == "candidate" or self.query_row is None else self.query_row

    def retrieval(self, role: Role, texts: Ints) -> NDArray[np.float32]:
        """Return retrieval embeddings (texts, r) of the given texts."""
        vectors = self.query if role == "query" else self.candidate
        rows = torch.from_numpy(self.rows(role)[texts]).to(vectors.retrieval.device)
        retrieval: NDArray[np.float32] = vectors.retrieval[rows].cpu().numpy()
        return retrieval


@dataclass(frozen=True)
class TextEncoder:
    """A model with the tokens that it embeds, the device that it runs on, and the mode of its progress bars."""

    model: BiEncoder
    tokens: TokenTable
    runtime: Runtime
    progress: str = "never"

    def embed(self, texts: Ints, what: str, queries: Ints | None = None) -> Embeddings:
        """Return the embeddings of some texts (rows of `Corpus.texts`), in evaluation mode, without gradients.

        `what` names the texts in the progress bar. `queries` holds those of the texts that are queries; None: all.
        """
        rows, shared = np.unique(self.tokens.row[texts]), self.model.shared
        asked = rows if shared or queries is None else np.unique(self.tokens.row[queries])
        self.model.eval()
        points = self._embed_role("query", asked, what)
        candidate = points if shared else self._embed_role("candidate", rows, what)
        with torch.inference_mode():
            query = self.model.as_queries(points)
        return Embeddings(query, candidate, self._places(rows), None if shared else self._places(asked))

    def _places(self, rows: Ints) -> Ints:
        """Return the place (texts of the corpus,) of each text's tokens among rows of the token table, or -1."""
        place = np.full(len(self.tokens), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        found: Ints = place[self.tokens.row]
        return found

    def embed_as(self, role: Role, texts: Ints, what: str) -> Vectors:
        """Return the embeddings (texts, .) of some texts in one role, in evaluation mode, without gradients."""
        rows, place = np.unique(self.tokens.row[texts], return_inverse=True)
        self.model.eval()
        vectors = self._embed_role(role, rows, what)
        with torch.inference_mode():
            vectors = self.model.as_queries(vectors) if role == "query" else vectors
            return vectors.rows(self.runtime.to_device(torch.from_numpy(place)))

    @torch.inference_mode()
    def _embed_role(self, role: Role, rows: Ints, what: str) -> Vectors:
        runtime, world = self.runtime, self.runtime.world
        batches = list(self.tokens.batches(rows, runtime.tokens_per_batch))
        own = [batches[place] for place in world.share(len(batches))]  # whole ones, so that rounding is the same
        vectors: Vectors | None = None
        with progress_bar(len(rows), f"embedding {what}", "text", self.progress) as bar:
            for positions in own or batches[:1]:
                retrieval, pooled = self._call(role, rows[positions])
                if vectors is None:
                    vectors = Vectors(*(part.new_empty(len(rows), part.shape[1]) for part in (retrieval, pooled)))
                target = runtime.to_device(torch.from_numpy(positions))
                vectors.retrieval[target], vectors.pooled[target] = retrieval, pooled
                bar.update(len(positions) * world.size)
        assert vectors is not None
        computed = runtime.to_device(torch.from_numpy(np.concatenate([*own, NOTHING])))
        for part in (vectors.retrieval, vectors.pooled):
            world.fill(part, computed)
        return vectors

    def encode(self, role: Role, texts: Ints, chunks: int = 1) -> Vectors:
        """Return the embeddings of texts in the model's current mode, before the query head.

        They have gradients where torch has them enabled. Each distinct token sequence is embedded once. With several
        `chunks`, only the embeddings are kept: each chunk is embedded again, with the same dropout, for its gradient.
        """
        runtime, world, tokens = self.runtime, self.runtime.world, self.tokens
        distinct, place = np.unique(tokens.row[texts], return_inverse=True)
        longest_first = np.argsort(-tokens.lengths[distinct], kind="stable")
        share = longest_first[list(world.share(len(distinct)))]  # each process gets long and short texts
        limit = runtime.tokens_per_training_batch if torch.is_grad_enabled() else runtime.tokens_per_batch
        if chunks > 1:
            limit = min(limit, -(-int(tokens.lengths[distinct[share]].sum()) // chunks))
        own = [share[batch] for batch in tokens.batches(distinct[share], limit)]
        calls = [self._call(role, distinct[positions], again=chunks > 1) for positions in own]
        calls = calls or [tuple(part[:0] for part in self._call(role, distinct[:1]))]  # this process has no text
        embedded = runtime.to_device(torch.from_numpy(np.concatenate([*own, NOTHING])))
        order = world.order(embedded)[runtime.to_device(torch.from_numpy(place))]
        return Vectors(*(world.gather_rows(torch.cat(part))[order] for part in zip(*calls, strict=True)))

    def _call(self, role: Role, rows: Ints, again: bool = False) -> tuple[Tensor, ...]:
        """Return retrieval and pooled embeddings of rows of the token table, in one call.

        With `again`, activations are not kept: they are computed again for the gradient.
        """
        check_stop()
        ids, mask = (self.runtime.to_device(part) for part in self.tokens.pad(rows))
        with self.runtime.autocast():
            if again:
                kept: tuple[Tensor, ...] = checkpoint(self.model, ids, mask, role, use_reentrant=False)
                return kept
            found: tuple[Tensor, ...] = self.model(ids, mask, role)
            return found
