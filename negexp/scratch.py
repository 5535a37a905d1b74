"""Reusable buffers: the system clears newly allocated memory, which takes time."""

from __future__ import annotations

import threading

import torch
from torch import Tensor


class _Memory(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}


_memory = _Memory()


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Return an uninitialised tensor of this shape.

    The next call with the same name, type and device in the same thread reuses the buffer, so the tensor is valid only
    until then: do not return or store it. The buffer keeps the largest size that was requested.
    """
    key, size = (name, dtype, torch.device(device)), torch.Size(shape).numel()
    buffers = _memory.buffers
    if key not in buffers or len(buffers[key]) < size:
        with torch.inference_mode(False):  # in inference mode, the buffer could not be used in training
            buffers[key] = torch.empty(size, dtype=dtype, device=device)
    return buffers[key][:size].view(shape)
