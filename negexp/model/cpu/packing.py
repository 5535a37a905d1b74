"""Packed texts: the tokens of all texts in one row without padding, and attention within each text only.

Every layer except attention treats each token alone, so computing padding there is a waste. Two hooks surround the
encoder's forward pass. The first replaces the batch by one row of all tokens, each with its position in its own text.
The second moves the hidden states back to the places of their tokens. In between, attention is called once for each
group of texts of similar length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling

from negexp.model.cpu.attention import attend

# With `packed_texts`, attention within each text; otherwise transformers' `sdpa`.
ATTENTION = "negexp"
# Encoders that accept positions as an input, and in which only attention connects tokens. All others keep the attention
# that transformers chooses: some add the mask to the scores, which does not work with a boolean mask.
PACKED_MODELS = ("bert",)
NEEDED = {"input_ids", "attention_mask"}
# Largest difference in tokens between texts of a group. For attention, texts are padded to the longest in their group:
# for short texts this costs less than a call for each text.
GROUP_WIDTH = 16


class TextGroup(NamedTuple):
    """Consecutive texts that share an attention call.

    texts, longest, tokens: number of texts, tokens of the longest text, tokens of all texts.
    place: (texts * longest,) token of each padded place. real: (texts, longest) whether a place holds a token.
    back: (tokens,) padded place of each token. All three are None for texts of equal length.
    """

    texts: int
    longest: int
    tokens: int
    place: Tensor | None
    real: Tensor | None
    back: Tensor | None


class PackedTexts(NamedTuple):
    """How to unpack a packed batch: `real` (texts, length) is true where the padded batch has a token."""

    real: Tensor
    groups: list[TextGroup]


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
    encoder.set_attn_implementation(ATTENTION)
    assert encoder.config._attn_implementation == ATTENTION, "with another attention, packed texts would see each other"
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


def text_groups(lengths: list[int]) -> list[TextGroup]:
    """Return the groups of texts of these lengths, in order; texts sorted by length form few groups."""
    groups: list[TextGroup] = []
    start = 0
    while start < len(lengths):
        stop, shortest, longest = start, lengths[start], lengths[start]
        while stop < len(lengths) and max(longest, lengths[stop]) - min(shortest, lengths[stop]) <= GROUP_WIDTH:
            shortest, longest = min(shortest, lengths[stop]), max(longest, lengths[stop])
            stop += 1
        groups.append(_group(torch.tensor(lengths[start:stop]), shortest, longest))
        start = stop
    return groups


def _group(lengths: Tensor, shortest: int, longest: int) -> TextGroup:
    texts, tokens = len(lengths), int(lengths.sum())
    if shortest == longest:
        return TextGroup(texts, longest, tokens, None, None, None)
    columns = torch.arange(longest)
    real = columns < lengths[:, None]  # (texts, longest)
    first = lengths.cumsum(0) - lengths
    place = torch.where(real, first[:, None] + columns, 0)
    return TextGroup(texts, longest, tokens, place.flatten(), real, real.flatten().nonzero()[:, 0])


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    packed_texts: PackedTexts | None = kwargs.pop("packed_texts", None)
    if packed_texts is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output
    groups = packed_texts.groups
    sizes = [group.tokens for group in groups]
    parts = zip(*(part[0].transpose(0, 1).split(sizes) for part in (query, key, value)), strict=True)
    with torch.autocast(query.device.type, enabled=False):
        attended = [
            _attend(group, q, k, v, kwargs["dropout"], kwargs["scaling"])
            for group, (q, k, v) in zip(groups, parts, strict=True)
        ]
    return torch.cat(attended)[None], None


def _attend(group: TextGroup, query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float) -> Tensor:
    """Return attention (tokens, heads, dim) of a group's query, key and value (tokens, heads, dim)."""
    heads, dim = query.shape[1:]
    texts, length = group.texts, group.longest
    padded = (part if group.place is None else part.index_select(0, group.place) for part in (query, key, value))
    by_head = (part.view(texts, length, heads, dim).transpose(1, 2).contiguous() for part in padded)
    q, k, v = (part.view(-1, length, dim) for part in by_head)
    real = None if group.real is None else group.real.repeat_interleave(heads, dim=0)[:, None]
    output = attend(q, k, v, real, dropout, scaling)  # (texts * heads, length, dim)
    output = output.view(texts, heads, length, dim).transpose(1, 2).reshape(-1, heads, dim)
    return output if group.back is None else output.index_select(0, group.back)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
