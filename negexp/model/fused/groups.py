"""Groups of texts of similar length: each is one call of attention over a packed batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
