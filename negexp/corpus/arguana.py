"""The ArguAna counterargs corpus (Wachsmuth et al. 2018), as a folder or as the archive its authors distribute.

Layout: SPLIT/THEME/DEBATE/{pro,con}/{pro,con}NN{a-point,b-counter}.txt, below `02-extracted-arguments/`.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from negexp.corpus.arguments import Record
from negexp.errors import InputError

SPLIT_FOLDERS = {"training": "train", "validation": "validation", "test": "test"}
ARGUMENT = re.compile(r"(pro|con)(\d+)(?:a-(point)|b-(counter))\.txt")
INNER_FOLDER = "02-extracted-arguments"

# (split, theme, debate, stance, number): the order of the tuples is the order of the rows
Key = tuple[str, str, str, str, str]


def read_arguana(path: Path) -> tuple[list[Record], dict[str, tuple[int, int]]]:
    """Read all pairs, ordered by (theme, debate, stance, number) as plain strings within each split.

    A point without a counter, or a counter without a point, makes no pair and is left out; the second value counts
    the points and the counters that were found in each split.

    Raises
    ------
    InputError
        When the path holds no such corpus, a split has no pair, or a file is empty or not UTF-8.
    """
    files = _folder_files(path) if path.is_dir() else _archive_files(path)
    points: dict[Key, str] = {}
    counters: dict[Key, str] = {}
    for parts, location, data in files:
        split, theme, debate, stance, name = parts
        match = ARGUMENT.fullmatch(name)
        assert match is not None
        table = points if match[3] else counters
        text = decode(data, location).strip()
        if not text:
            raise InputError(f"{location}: holds no text; unpack the corpus anew, or remove the file and its partner")
        table[SPLIT_FOLDERS[split], theme, debate, stance, match[2]] = text
    if not points:
        raise InputError(
            f"data.path={path}: is no ArguAna counterargs corpus; expected training/, validation/ and test/ with "
            f"THEME/DEBATE/pro/pro01a-point.txt, in it or in its {INNER_FOLDER}/"
        )
    for folder, split in SPLIT_FOLDERS.items():
        if not any(key[0] == split for key in points.keys() & counters.keys()):
            raise InputError(f"data.path={path}: {folder}/ holds no point-counter pair; unpack the corpus anew")
    records = [
        Record(points[key], counters[key], key[0], *key[1:4], id=f"{key[1]}/{key[2]}/{key[3]}{key[4]}")
        for key in sorted(points.keys() & counters.keys())
    ]
    found = {
        split: (sum(key[0] == split for key in points), sum(key[0] == split for key in counters))
        for split in SPLIT_FOLDERS.values()
    }
    return records, found


def decode(data: bytes, location: str) -> str:
    """Decode UTF-8 (a byte order mark is dropped), or raise `InputError` with the location and the byte offset."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{location}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None


def _folder_files(path: Path) -> Iterator[tuple[list[str], str, bytes]]:
    root = path / INNER_FOLDER if (path / INNER_FOLDER).is_dir() else path
    for file in sorted(root.glob("*/*/*/*/*.txt")):
        parts = list(file.relative_to(root).parts)
        if _is_argument(parts) and file.is_file():
            yield parts, str(file), file.read_bytes()


def _archive_files(path: Path) -> Iterator[tuple[list[str], str, bytes]]:
    """Yield the argument files of a tar archive, read in place: nothing is written, only regular files count."""
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                parts = member.name.split("/")[-5:]
                if member.isreg() and _is_argument(parts):
                    content = archive.extractfile(member)
                    assert content is not None
                    yield parts, f"{path}:{member.name}", content.read()
            # the archive ends before the compressed stream does, whose checksum stands at its end
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise InputError(f"data.path={path}: cannot be read as a tar archive ({error}); download it again") from None


def _is_argument(parts: list[str]) -> bool:
    if len(parts) != 5 or parts[0] not in SPLIT_FOLDERS:
        return False
    match = ARGUMENT.fullmatch(parts[4])
    return match is not None and match[1] == parts[3]
