"""Memory that is used again and again: the system would clear it each time that it is asked for anew."""

from __future__ import annotations

import threading

import torch
from torch import Tensor


class _Memory(threading.local):
    def __init__(self) -> None:
        self.kept: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}


_memory = _Memory()


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Return a tensor with anything in it; who next asks for this name, type and device, in this thread, gets the same.

    The largest that was asked for is kept. Never return it to somebody else, or keep it for later.
    """
    key, size = (name, dtype, torch.device(device)), torch.Size(shape).numel()
    kept = _memory.kept
    if key not in kept or len(kept[key]) < size:
        with torch.inference_mode(False):  # such a tensor could not be written to when training
            kept[key] = torch.empty(size, dtype=dtype, device=device)
    return kept[key][:size].view(shape)
