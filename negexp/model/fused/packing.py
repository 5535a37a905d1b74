"""Packed texts: the tokens of all texts in one row without padding, and attention within each text only.

Every layer except attention treats each token alone, so computing padding there is a waste. Two hooks surround the
encoder's forward pass. The first replaces the batch by one row of all tokens, each with its position in its own text.
The second moves the hidden states back to the places of their tokens. In between, `PackedSelfAttention` is given the
groups of texts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from negexp.model.fused.groups import GroupedTexts
from negexp.model.fused.self_attention import PackedTexts, pack_self_attention
from negexp.model.fused.varlen import VarlenTexts, takes_varlen

# Encoders that accept positions as an input, and in which only attention connects tokens.
PACKED_MODELS = ("bert",)
NEEDED = {"input_ids", "attention_mask"}


def can_pack(encoder_config: PreTrainedConfig) -> bool:
    """Return whether encoders of this configuration support packed texts.

    BERT as a decoder does not: it attends to earlier tokens only, and `attend` has no causal mask.
    """
    return encoder_config.model_type in PACKED_MODELS and not encoder_config.is_decoder


def pack_texts(encoder: PreTrainedModel) -> None:
    """Make an encoder pack its `input_ids`, `attention_mask` and `token_type_ids`, and unpack its output.

    Hidden states (texts, length, hidden) of padding are zero. Texts stay padded where there is no attention for packed
    ones: on a GPU in float32, on one older than Ampere, and on other devices.
    """
    pack_self_attention(encoder)
    encoder.register_forward_pre_hook(_pack, with_kwargs=True)
    encoder.register_forward_hook(_unpack, with_kwargs=True)


def _pack(
    encoder: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if args or kwargs.keys() - {"token_type_ids"} != NEEDED:
        return None  # leave other inputs unchanged
    ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
    kind = _kind(encoder, ids.device)
    if kind is None:
        return None
    real = mask.bool()
    types = {"token_type_ids": kwargs["token_type_ids"][real][None]} if "token_type_ids" in kwargs else {}
    return (), types | {
        "input_ids": ids[real][None],
        "position_ids": (mask.cumsum(1) - 1)[real][None],
        "packed_texts": PackedTexts(real, kind.of(mask.sum(1))),
    }


def _kind(encoder: PreTrainedModel, device: torch.device) -> type[GroupedTexts] | type[VarlenTexts] | None:
    """Return how packed texts are attended to on a device; None: not at all."""
    if device.type == "cpu":
        return GroupedTexts
    head = encoder.config.hidden_size // encoder.config.num_attention_heads
    return VarlenTexts if takes_varlen(device, head) else None


def _unpack(
    encoder: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> BaseModelOutputWithPooling | None:
    if "packed_texts" not in kwargs:
        return None
    packed: Tensor = output.last_hidden_state[0]  # (tokens, hidden)
    real = kwargs["packed_texts"].real
    states = packed.new_zeros(*real.shape, packed.shape[1])
    states[real] = packed
    pooler = getattr(encoder, "pooler", None)
    pooled = None if pooler is None else pooler(states)  # the encoder itself pooled the first text only
    return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=pooled)
