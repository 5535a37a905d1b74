"""BERT's self-attention over packed texts: one product for query, key and value, then attention within each text.

Three products would cast the hidden states to bfloat16 three times, and add up three gradients of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.bert.modeling_bert import BertSelfAttention

from negexp.model.fused.groups import GroupedTexts
from negexp.model.fused.varlen import VarlenTexts


class PackedTexts(NamedTuple):
    """A packed batch: `real` (texts, length) is true where the padded batch has a token; `texts` attends to them."""

    real: Tensor
    texts: GroupedTexts | VarlenTexts


class PackedSelfAttention(BertSelfAttention):
    """`BertSelfAttention`, with the same parameters. Batches that are not packed are computed as before."""

    def forward(
        self, hidden_states: Tensor, *args: Any, packed_texts: PackedTexts | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended states (1, tokens, hidden) of packed texts, and None for the probabilities."""
        if packed_texts is None:
            computed: tuple[Tensor, Tensor | None] = super().forward(hidden_states, *args, **kwargs)
            return computed
        parts = (self.query, self.key, self.value)
        weight, bias = (torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias"))
        joint = F.linear(hidden_states[0], weight, bias)  # (tokens, 3 * hidden)
        joint = joint.view(-1, 3, self.num_attention_heads, self.attention_head_size)
        dropout = self.dropout.p if self.training else 0.0
        with torch.autocast(joint.device.type, enabled=False):
            return packed_texts.texts.attend(joint, dropout, self.scaling)[None], None


def pack_self_attention(encoder: PreTrainedModel) -> None:
    """Let every self-attention of a BERT take packed texts. Names of modules and parameters stay the same."""
    layers = [module for module in encoder.modules() if type(module) is BertSelfAttention]
    assert len(layers) == encoder.config.num_hidden_layers, "in other layers, packed texts would see each other"
    for layer in layers:
        layer.__class__ = PackedSelfAttention
