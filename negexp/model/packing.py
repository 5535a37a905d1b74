"""Encoders without padding: the tokens of all texts in one row, and attention within each text only.

Every layer but attention treats tokens one by one, so there padding is work for nothing. The encoder is given one text
of all tokens, with each token's position in its own text; attention is called once for each group of texts of nearly
the same length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from negexp.model.attention import attend

# Transformers' `sdpa`, but for calls with `text_groups`: those get attention within each text.
ATTENTION = "negexp"
# Encoders that take positions from outside and have no other tie between tokens than attention. All others are loaded
# with the attention that transformers chooses: some add the mask to the scores, which a boolean mask does not survive.
PACKED_MODELS = ("bert",)
# Texts are padded for attention to the longest of their group, which is at most so many tokens longer: a call for
# every text costs more than that where texts are short.
GROUP_WIDTH = 16


class TextGroup(NamedTuple):
    """Texts that stand next to each other and share an attention call.

    texts, longest, tokens: how many, of how many tokens at most, and how many tokens in all. place: (texts * longest,)
    token of each padded place, None where all are equally long; real: (texts, longest) where there is a token;
    back: (tokens,) padded place of each token.
    """

    texts: int
    longest: int
    tokens: int
    place: Tensor | None
    real: Tensor | None
    back: Tensor | None


def packable(encoder_config: PreTrainedConfig) -> bool:
    """Return whether encoders of this configuration can be given packed texts once they have this attention.

    As a decoder, BERT looks at earlier tokens only, which attention within each text does not do.
    """
    return encoder_config.model_type in PACKED_MODELS and not encoder_config.is_decoder


def can_pack(encoder: PreTrainedModel) -> bool:
    """Return whether an encoder can be given packed texts."""
    return packable(encoder.config) and encoder.config._attn_implementation == ATTENTION


def packed_states(encoder: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the last hidden states (texts, length, hidden) of padded token ids, zero where there was padding."""
    real = mask.bool()
    packed = encoder(
        input_ids=ids[real][None],
        position_ids=(mask.cumsum(1) - 1)[real][None],
        text_groups=text_groups(mask.sum(1).tolist()),
    ).last_hidden_state[0]  # (tokens, hidden)
    states: Tensor = packed.new_zeros(*ids.shape, packed.shape[1])
    states[real] = packed
    return states


def text_groups(lengths: list[int]) -> list[TextGroup]:
    """Return the groups of texts of these lengths, in their order; texts that are sorted by length make few groups."""
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
    text_groups: list[TextGroup] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if text_groups is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output
    sizes = [group.tokens for group in text_groups]
    parts = zip(*(part[0].transpose(0, 1).split(sizes) for part in (query, key, value)), strict=True)
    with torch.autocast(query.device.type, enabled=False):
        attended = [
            _attend(group, q, k, v, kwargs["dropout"], kwargs["scaling"])
            for group, (q, k, v) in zip(text_groups, parts, strict=True)
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
