"""Reading a run's files, which may come from a stranger: bounded, inside the run's folder, and nothing in them runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from negexp.errors import InputError

LARGEST_TEXT = 256 * 2**20  # bytes of a JSON or CSV file; 200 epochs of ArguAna have a hundredth of that


def own_file(path: Path, folder: Path) -> Path:
    """Return `path` when it is a regular file inside the run's `folder`, links followed.

    Raises
    ------
    InputError
        When it is not there, no regular file (a device or a pipe could be read for ever), or lies elsewhere.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; the run has not come that far, or its folder is damaged")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{path}: is a link out of the run's folder; nothing is read through it")
    if not path.is_file():
        raise InputError(f"{path}: is no regular file")
    return path


def read_json(path: Path, folder: Path) -> dict[str, Any]:
    """Return the JSON object of a file inside a run's folder, or raise `InputError`."""
    own_file(path, folder)
    if path.stat().st_size > LARGEST_TEXT:
        raise InputError(f"{path}: is larger than {LARGEST_TEXT} bytes; no run writes such a file")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object")
    return value
