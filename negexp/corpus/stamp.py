"""Whether files have changed since they were read, without reading them."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Iterator
from pathlib import Path

SETTLED_NS = 2 * 10**9  # after which a change gives a file another time, on every file system


def file_stamp(path: Path, max_files: int) -> Hashable | None:
    """Return names, sizes and times of a file, or of all files below a folder.

    None where a change could go unseen: a link in the folder, more files than `max_files`, a file that cannot be read,
    or that was changed within the last two seconds.
    """
    found: list[tuple[str, int, int, int, int]] = []
    latest = time.time_ns() - SETTLED_NS
    try:
        for file in _files(path.resolve()):
            if file.is_symlink() or len(found) == max_files:
                return None
            state = file.stat()
            if max(state.st_mtime_ns, state.st_ctime_ns) > latest:
                return None
            found.append((str(file), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    except OSError:
        return None
    return tuple(sorted(found))


def _files(path: Path) -> Iterator[Path]:
    """Yield the path itself and all files and folders below it; links are not followed."""
    yield path
    for folder, folders, files in os.walk(path, onerror=_raise) if path.is_dir() else ():
        yield from (Path(folder, name) for name in (*folders, *files))


def _raise(error: OSError) -> None:
    raise error
