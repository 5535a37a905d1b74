"""Batches for tests: a builder around a model and a split, what is trained, and a batch of given vectors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from negexp.components import build
from negexp.config import TrainConfig
from negexp.corpus import Split, load_corpus
from negexp.embedding import TextEncoder
from negexp.model import BiEncoder, TextBatch, Vectors, build_model
from negexp.runtime import Runtime, choose_runtime
from negexp.sampling import Arguments, Forbidden, Negatives
from negexp.tokens import TokenTable, tokenize
from negexp.training.batch import BatchBuilder
from negexp.training.trainee import BiEncoderTrainee, build_trainee


def builder_of(
    model: BiEncoder, tokens: TokenTable, split: Split, runtime: Runtime, points_are_candidates: bool = False
) -> BatchBuilder:
    arguments = Arguments(split)
    forbidden = Forbidden(arguments, ["self", "duplicates"])
    return BatchBuilder(TextEncoder(model, tokens, runtime), split, arguments, forbidden, points_are_candidates)


def trainee_of(config: TrainConfig) -> tuple[BiEncoderTrainee, BatchBuilder]:
    """Return what is trained on the training pairs, on the CPU in float32, and the builder of its batches."""
    corpus = load_corpus(config.data)
    split = corpus["train"]
    built = build_model(config.model, 0, [corpus.texts[row] for row in split.texts()])
    tokens = tokenize(corpus.texts, built.tokenizer, config.model.max_length)
    runtime = choose_runtime("cpu", "float32", None)
    trainee = build_trainee(built.model, build("loss", config.loss), config.trainer, runtime)
    builder = builder_of(built.model, tokens, split, runtime)
    return trainee, builder


def drawn(argument: np.ndarray) -> Negatives:
    """Return negatives (pairs, k) as if they were drawn at random."""
    return Negatives(argument, np.zeros_like(argument))


def batch_of(
    point: Tensor, counter: Tensor, negative: Tensor, pooled: int = 0, weight: Tensor | None = None
) -> TextBatch:
    """Return a batch of retrieval vectors: point, counter (pairs, dim), negative (pairs, k, dim); pooled ones are 0."""
    pairs, k, dim = negative.shape

    def embedded(vectors: Tensor) -> Vectors:
        return Vectors(vectors, torch.zeros(len(vectors), pooled))

    columns = pairs + pairs * k
    allowed = torch.ones(pairs, columns, dtype=torch.bool)
    allowed[torch.arange(pairs), torch.arange(pairs)] = False
    return TextBatch(
        embedded(point),
        embedded(torch.cat([counter, negative.reshape(-1, dim)])),
        positive=torch.arange(pairs),
        negative=torch.arange(pairs, columns).view(pairs, k),
        allowed=allowed,
        weight=torch.ones(pairs, k) if weight is None else weight,
        text=torch.arange(pairs, pairs + columns),
        query_text=torch.arange(pairs),
        pair=torch.arange(pairs),
        debate=None,
        theme=None,
    )
