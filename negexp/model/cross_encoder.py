"""The cross-encoder: one score for a point and a candidate that are read together."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from negexp.config import ModelConfig
from negexp.model.bi_encoder import BiEncoder
from negexp.model.encoder import pool
from negexp.model.trainable import Trainable
from negexp.randomness import derive


class CrossEncoder(Trainable):
    """Encoder -> pooled state -> linear -> logit (Nogueira & Cho 2019).

    The encoder starts as a copy of the trained one. Of two towers it is the mean: what they have learned for their own
    roles, in opposite directions, cancels (averaged weights: Wortsman et al. 2022). All of its layers learn.
    """

    def __init__(self, trained: BiEncoder, config: ModelConfig) -> None:
        super().__init__()
        tower = trained.tower("query")
        encoder = copy.deepcopy(tower.encoder)
        assert isinstance(encoder, PreTrainedModel)
        with torch.no_grad():
            for mean, other in zip(encoder.parameters(), trained.tower("candidate").encoder.parameters(), strict=True):
                mean.lerp_(other, 0.5)
        self.encoder = encoder.requires_grad_(True)
        self.pooling = config.pooling
        self.linear = nn.Linear(tower.hidden_size, 1)

    @property
    def takes_types(self) -> bool:
        """Return whether the encoder has types that tell the two texts of an input apart."""
        return int(getattr(self.encoder.config, "type_vocab_size", 0) or 0) >= 2

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Return logits (inputs,) in float32 from token ids, attention mask and token types (inputs, tokens)."""
        segments = {"token_type_ids": types} if self.takes_types else {}
        pooled = pool(self.encoder(input_ids=ids, attention_mask=mask, **segments), mask, self.pooling)
        with torch.autocast(ids.device.type, enabled=False):
            logits: Tensor = self.linear(pooled)[:, 0]
        return logits

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the encoder."""
        return list(self.encoder.parameters())

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the linear layer."""
        return list(self.linear.parameters())


def build_cross_encoder(model: BiEncoder, config: ModelConfig, seed: int) -> CrossEncoder:
    """Return the cross-encoder at its start: the trained encoder, and a linear layer drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, 0, "cross-encoder"))
        return CrossEncoder(model, config).to(next(model.parameters()).device)
