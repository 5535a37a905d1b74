"""Memory that is used again and again: the system would clear it each time that it is asked for anew."""

from __future__ import annotations

import torch
from torch import Tensor

_memory: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Return a tensor with anything in it; whoever asks for the same name, type and device next gets the same memory.

    What is kept is the largest that was asked for. For one thread, and never to be returned to somebody else.
    """
    key, size = (name, dtype, torch.device(device)), torch.Size(shape).numel()
    if key not in _memory or len(_memory[key]) < size:
        with torch.inference_mode(False):  # such a tensor could not be written to when training
            _memory[key] = torch.empty(size, dtype=dtype, device=device)
    return _memory[key][:size].view(shape)
