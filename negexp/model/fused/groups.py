"""Attention on a CPU over packed texts, in groups of similar length: each group is one call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from negexp.model.fused.attention import attend

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


class GroupedTexts(NamedTuple):
    """Packed texts in groups, in the order of the texts."""

    groups: list[TextGroup]

    @classmethod
    def of(cls, lengths: Tensor) -> GroupedTexts:
        """Form the groups from the lengths (texts,)."""
        return cls(text_groups(lengths.tolist()))

    def attend(self, joint: Tensor, dropout: float, scaling: float) -> Tensor:
        """Return attention (tokens, hidden) within each text, of query, key and value (tokens, 3, heads, dim)."""
        parts = zip(self.groups, joint.split([group.tokens for group in self.groups]), strict=True)
        return torch.cat([_attend(group, part, dropout, scaling) for group, part in parts])


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


def _attend(group: TextGroup, joint: Tensor, dropout: float, scaling: float) -> Tensor:
    """Return attention (tokens, hidden) of a group's query, key and value (tokens, 3, heads, dim)."""
    heads, dim = joint.shape[2:]
    texts, length = group.texts, group.longest
    padded = joint if group.place is None else joint.index_select(0, group.place)
    by_head = padded.view(texts, length, 3, heads, dim).permute(2, 0, 3, 1, 4).reshape(3, texts * heads, length, dim)
    real = None if group.real is None else group.real.repeat_interleave(heads, dim=0)[:, None]
    query, key, value = by_head.unbind()
    output = attend(query, key, value, real, dropout, scaling)  # (texts * heads, length, dim)
    output = output.view(texts, heads, length, dim).transpose(1, 2).reshape(-1, heads * dim)
    return output if group.back is None else output.index_select(0, group.back)
