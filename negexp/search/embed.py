"""Embeddings of queries and candidates with a run's best epoch; those of candidates are kept beside the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from torch import Tensor

from negexp import __version__
from negexp.embedding import TextEncoder
from negexp.kept.store import BLOCK_TEXTS, TextVectors, VectorStore, make_block, text_digests
from negexp.kept.tidy import remove_other_weights
from negexp.model import BuiltModel, Role, Vectors
from negexp.runtime import Runtime
from negexp.tokens import tokenize
from negexp.tracking.files import sha256
from negexp.training import TrainedRun

PACKAGES = ("torch", "transformers", "tokenizers")
FORMAT = 1  # of the stored blocks; raise it when what they mean changes


@dataclass(frozen=True)
class TextEmbedder:
    """The model of a run, and where it runs. pooled: whether re-ranking needs the pooled embeddings of candidates."""

    run: TrainedRun
    built: BuiltModel
    runtime: Runtime
    pooled: bool
    progress: str

    def embed(self, role: Role, texts: Sequence[str], what: str) -> Vectors:
        """Return the embeddings (texts, .) of texts in a role."""
        tokens = tokenize(texts, self.built.tokenizer, self.run.config.model.max_length)
        encoder = TextEncoder(self.built.model, tokens, self.runtime, self.progress)
        return encoder.embed_as(role, np.arange(len(texts)), what)

    def candidates(self, texts: Sequence[str], keep: bool) -> tuple[TextVectors, int]:
        """Return the vectors of candidates, and how many texts had to be embedded; with `keep` the others are stored.

        New vectors are stored block by block, so an interrupted search has kept what it has embedded.
        """
        vectors = TextVectors(text_digests(texts))
        store = self.store() if keep else None
        for block in store.blocks() if store is not None else []:
            vectors.add(block)
        missing = vectors.missing()
        for start in range(0, len(missing), BLOCK_TEXTS):
            some = missing[start : start + BLOCK_TEXTS]
            what = f"candidates {start + 1}-{start + len(some)} of {len(missing)}"
            found = self.embed("candidate", [texts[row] for row in some], what)
            block = make_block([vectors.digests[row] for row in some], self._parts(found))
            if store is not None:
                store.add(block)
            vectors.add(block)
        return vectors, len(missing)

    def store(self) -> VectorStore:
        """Return the store of this run's candidates: below its folder, by all that their embeddings depend on.

        When new vectors come, those of other weights, as of an earlier best epoch, are removed.
        """
        tower = self.built.model.tower("candidate")
        sizes = {"retrieval": tower.retrieval_size} | ({"pooled": tower.hidden_size} if self.pooled else {})
        weights, key = sha256(self.run.commit.weights), self._key("candidate")
        return VectorStore(self.run.folder.search, weights, key, sizes, remove_other_weights)

    def _key(self, role: Role) -> Mapping[str, Any]:
        """Return what an embedding depends on, beside the weights and the text.

        Devices differ in rounding errors only, so vectors of a GPU serve a search on a CPU.
        """
        encoder = {file.name: sha256(file) for file in sorted(self.run.folder.encoder.iterdir())}  # and tokenizer
        return {
            "format": FORMAT,
            "role": role,
            "encoder": encoder,
            "model": asdict(self.run.config.model),  # with pooling, max_length and heads
            "fused": self.run.config.trainer.fused,
            "bfloat16": self.runtime.bfloat16,
            "versions": {"negexp": __version__, **{name: version(name) for name in PACKAGES}},
        }

    def _parts(self, vectors: Vectors) -> dict[str, Tensor]:
        return {"retrieval": vectors.retrieval} | ({"pooled": vectors.pooled} if self.pooled else {})
