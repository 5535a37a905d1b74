"""The input of every benchmark: corpus, tokens, model and runtime of a configuration."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from negexp.config import BenchConfig
from negexp.corpus import Corpus, Split, load_corpus
from negexp.embedding import Embeddings, TextEncoder
from negexp.model import BiEncoder, BuiltModel, build_model
from negexp.randomness import generator
from negexp.runtime import Runtime
from negexp.tokens import TokenTable, tokenize

log = logging.getLogger("negexp")


@dataclass(frozen=True)
class Setting:
    """A configuration, with the corpus, the model and the tokens built from it."""

    config: BenchConfig
    runtime: Runtime
    corpus: Corpus
    built: BuiltModel
    tokens: TokenTable

    @classmethod
    def load(cls, config: BenchConfig, runtime: Runtime) -> Setting:
        """Read the corpus and build the model."""
        corpus = load_corpus(config.data)
        log.info(corpus.summary)
        built = _build(config, corpus, runtime, config.trainer.fused)
        return cls(config, runtime, corpus, built, tokenize(corpus.texts, built.tokenizer, config.model.max_length))

    def changed(self, config: BenchConfig) -> Setting:
        """Return the setting with another configuration, and the model that it describes."""
        return replace(self, config=config, built=_build(config, self.corpus, self.runtime, config.trainer.fused))

    def plain_model(self) -> BiEncoder:
        """Return the same model without the CPU's fast paths: transformers and torch compute it."""
        model = _build(self.config, self.corpus, self.runtime, "off").model
        model.load_state_dict(self.built.model.state_dict())
        return model

    def train_pairs(self, most: int | None) -> Split:
        """Return training pairs: all, or a random sample of `most` drawn with the seed."""
        train = self.corpus["train"]
        if most is None or most >= len(train):
            return train
        return train.take(
            np.sort(generator(self.config.seed, 0, "bench pairs").choice(len(train), most, replace=False))
        )

    def tokens_of(self, texts: NDArray[np.int64]) -> int:
        """Return the number of tokens of the distinct texts."""
        return int(self.tokens.lengths[np.unique(self.tokens.row[texts])].sum())

    def all_tokens_of(self, texts: NDArray[np.int64]) -> int:
        """Return the number of tokens of all texts; a text that occurs twice counts twice."""
        return int(self.tokens.lengths[self.tokens.row[texts]].sum())

    def forward_flops(self, tokens: int) -> float:
        """Return the operations of one forward pass over `tokens` tokens, counting only the layers' matrix products."""
        encoder = self.built.model.get_submodule("towers.0.encoder")
        layers = (
            p for name, p in encoder.named_parameters() if not any(part in name for part in ("embeddings", "pooler"))
        )
        return 2.0 * sum(p.numel() for p in layers if p.ndim == 2) * tokens

    @property
    def rate(self) -> str:
        """Return the key of the machine's peak rate that bounds the model's products."""
        return "bfloat16_flops" if self.runtime.bfloat16 else "float32_flops"

    @cached_property
    def training_embeddings(self) -> Embeddings:
        """Return the embeddings of all training arguments."""
        log.info("embedding all training arguments once, for the phases that follow")
        encoder = replace(self.encoder, progress=self.config.progress)
        return encoder.embed(self.corpus["train"].texts(), "train", self.corpus["train"].point)

    @property
    def encoder(self) -> TextEncoder:
        """Return the model with its tokens, without progress bars."""
        return TextEncoder(self.built.model, self.tokens, self.runtime)


def _build(config: BenchConfig, corpus: Corpus, runtime: Runtime, fused: str) -> BuiltModel:
    texts = [corpus.texts[row] for row in corpus["train"].texts()]
    built = build_model(config.model, config.seed, texts, fused=fused)
    built.model.to(runtime.device)
    return built
