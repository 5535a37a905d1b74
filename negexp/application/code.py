"""What Hydra would call because a configuration names it: its own parts, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from negexp.errors import InputError

# launchers, sweepers and callbacks of Hydra and of its plugins; handlers and formatters of logs
CALLABLE = ("hydra.", "hydra_plugins.", "logging.", "colorlog.")


def refuse_code(hydra: DictConfig) -> None:
    """Raise `InputError` when Hydra's own part of a configuration names something else to call.

    An overlay may come from a stranger too, and Hydra calls whatever `_target_` names; so does Python's logging with
    `()` and `class`.
    """
    for key, name in _named(OmegaConf.to_container(hydra, resolve=False), "hydra"):
        if not isinstance(name, str) or not name.startswith(CALLABLE):
            raise InputError(f"{key}={name}: names code to run, which no configuration of negexp may; take it out")


def _named(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            if key in ("_target_", "()", "class"):
                yield f"{prefix}.{key}", child
            yield from _named(child, f"{prefix}.{key}")
    elif isinstance(value, list):
        for place, child in enumerate(value):
            yield from _named(child, f"{prefix}[{place}]")
