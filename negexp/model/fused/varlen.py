"""Attention on a GPU over packed texts: one call of torch's flash attention (Dao et al. 2022) for all of them.

The public `scaled_dot_product_attention` takes texts of different lengths as nested tensors only. With those, an
encoder took two and a half times as long as with padded texts (H100, 100 texts), so the operator behind it is called.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16)  # of flash attention
FIRST_CAPABILITY = (8, 0)  # Ampere
LARGEST_HEAD = 256


class VarlenTexts(NamedTuple):
    """Packed texts by their bounds: text i has the tokens offsets[i] to offsets[i + 1] - 1; offsets is int32."""

    offsets: Tensor
    longest: int

    @classmethod
    def of(cls, lengths: Tensor) -> VarlenTexts:
        """Take the bounds from the lengths (texts,)."""
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
        return cls(offsets, int(lengths.max()))

    def attend(self, joint: Tensor, dropout: float, scaling: float) -> Tensor:
        """Return attention (tokens, hidden) within each text, of query, key and value (tokens, 3, heads, dim)."""
        query, key, value = joint.unbind(1)
        bounds = self.offsets, self.offsets, self.longest, self.longest
        return flash_attention(query, key, value, *bounds, dropout, False, False, scale=scaling)[0].flatten(1)


def flash_attention(*args: object, scale: float) -> tuple[Tensor, ...]:
    """Call the operator: query, key, value, two times bounds, two times longest, dropout, causal, debug mask."""
    found: tuple[Tensor, ...] = torch.ops.aten._flash_attention_forward(*args, scale=scale)
    return found


def takes_varlen(device: torch.device, head: int) -> bool:
    """Return whether flash attention takes the tensors that an encoder computes now, with heads of this size."""
    if device.type != "cuda" or head % 8 or head > LARGEST_HEAD:
        return False
    if not torch.is_autocast_enabled("cuda") or torch.get_autocast_dtype("cuda") not in DTYPES:
        return False
    return torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY
