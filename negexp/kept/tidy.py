"""What is removed from the folders of kept embeddings, so that they do not grow without bound.

Several processes may tidy at a time, and others may read: a folder that vanishes meanwhile is no error.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

FOLDER = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}")  # of a key: it begins with the digest of the weights
LEFTOVER = re.compile(r"\.[0-9a-f]{32}\.tmp")
LEFTOVER_SECONDS = 86400  # after which a temporary file is that of a killed process


class Use(NamedTuple):
    """When a folder was used last, in nanoseconds, and the bytes of its files."""

    last: int
    size: int
    folder: Path


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes from the folder of a key."""
    for file in folder.iterdir():
        with suppress(OSError):
            if LEFTOVER.fullmatch(file.name) and time.time() - file.lstat().st_mtime > LEFTOVER_SECONDS:
                file.unlink()


def remove_other_weights(folder: Path) -> None:
    """Remove the folders beside that of a key that hold vectors of other weights."""
    for other in _folders(folder.parent):
        if other.name[:16] != folder.name[:16]:
            shutil.rmtree(other, ignore_errors=True)


def remove_least_recent(folder: Path, most_bytes: int) -> None:
    """Remove the least recently used folders beside that of a key, until all together have at most `most_bytes`."""
    uses = sorted(_uses(folder.parent))
    total = sum(use.size for use in uses)
    for use in uses:
        if total <= most_bytes:
            return
        if use.folder != folder:
            shutil.rmtree(use.folder, ignore_errors=True)
            total -= use.size


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders of keys; whatever else stands there is not ours."""
    for folder in root.iterdir():
        if FOLDER.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            yield folder


def _uses(root: Path) -> Iterator[Use]:
    for folder in _folders(root):
        with suppress(OSError):
            yield Use(folder.stat().st_mtime_ns, sum(file.lstat().st_size for file in folder.iterdir()), folder)
