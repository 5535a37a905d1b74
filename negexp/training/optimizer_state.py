"""An optimizer's state as tensors, for safetensors, and as plain values, for JSON."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def split_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Split an optimizer's state into tensors, named `parameter.key`, and its parameter groups, for JSON."""
    tensors = {
        f"{parameter}.{key}": value.contiguous()
        for parameter, values in state["state"].items()
        for key, value in values.items()
    }
    return tensors, state["param_groups"]


def join_optimizer(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the state that `split_optimizer` was given."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        parameter, _, key = name.partition(".")
        state.setdefault(int(parameter), {})[key] = value.clone()  # a copy, so that the file's memory can be freed
    return {"state": state, "param_groups": groups}
