"""Packed texts: the tokens of all texts in one row without padding, and attention within each text only.

Every layer except attention treats each token alone, so computing padding there is a waste. Two hooks surround the
encoder's forward pass. The first replaces the batch by one row of all tokens, each with its position in its own text.
The second moves the hidden states back to the places of their tokens. In between, `PackedSelfAttention` is given the
groups of texts.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from negexp.model.cpu.groups import PackedTexts, text_groups
from negexp.model.cpu.self_attention import pack_self_attention

# Encoders that accept positions as an input, and in which only attention connects tokens.
PACKED_MODELS = ("bert",)
NEEDED = {"input_ids", "attention_mask"}


def can_pack(encoder_config: PreTrainedConfig) -> bool:
    """Return whether encoders of this configuration support packed texts.

    BERT as a decoder does not: it attends to earlier tokens only, and `attend` has no causal mask.
    """
    return encoder_config.model_type in PACKED_MODELS and not encoder_config.is_decoder


def pack_texts(encoder: PreTrainedModel) -> None:
    """Make an encoder pack its `input_ids`, `attention_mask` and `token_type_ids` on a CPU, and unpack its output.

    Hidden states (texts, length, hidden) of padding are zero. On a GPU nothing is packed: many small calls would cost
    more than padding.
    """
    pack_self_attention(encoder)
    encoder.register_forward_pre_hook(_pack, with_kwargs=True)
    encoder.register_forward_hook(_unpack, with_kwargs=True)


def _pack(
    encoder: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if args or kwargs.keys() - {"token_type_ids"} != NEEDED or kwargs["input_ids"].device.type != "cpu":
        return None  # leave other inputs unchanged
    ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
    real = mask.bool()
    types = {"token_type_ids": kwargs["token_type_ids"][real][None]} if "token_type_ids" in kwargs else {}
    return (), types | {
        "input_ids": ids[real][None],
        "position_ids": (mask.cumsum(1) - 1)[real][None],
        "packed_texts": PackedTexts(real, text_groups(mask.sum(1).tolist())),
    }


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
