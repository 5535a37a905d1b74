"""Suggest a name for a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any


def did_you_mean(wrong: str, names: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean <prefix><name>?` with the name most similar to a wrong one, or an empty string.

    >>> did_you_mean("tarin", ["train", "report"])
    '; did you mean train?'
    >>> did_you_mean("xyz", ["train", "report"])
    ''
    """
    near = get_close_matches(wrong, list(names), 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def nearest_key(wrong: str, keys: Mapping[str, Any]) -> str | None:
    """Return the dotted key of nested mappings that is most similar to a wrong key, or None.

    If exactly one other key has the same last part, that is the key. Otherwise each part is replaced by the most
    similar name, from left to right. The wrong key itself may be among the keys, as after `+sampler.stp=1`.

    >>> nearest_key("sampler.stp", {"sampler": {"step": 0.1, "stp": 1}})
    'sampler.step'
    >>> nearest_key("epochs", {"trainer": {"epochs": 6}})
    'trainer.epochs'
    """
    *above, last = wrong.split(".")
    elsewhere = [key for key in _dotted(keys) if key != wrong and key.rpartition(".")[2] == last]
    if len(elsewhere) == 1:
        return elsewhere[0]
    path = []
    for part in above:
        near = [part] if part in keys else get_close_matches(part, keys, 1)
        if not near or not isinstance(keys[near[0]], Mapping):
            return None
        path.append(near[0])
        keys = keys[near[0]]
    near = get_close_matches(last, [name for name in keys if name != last or path != above], 1)
    return ".".join([*path, near[0]]) if near else None


def _dotted(keys: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in keys.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
