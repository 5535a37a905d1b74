"""The ArguAna counterargs corpus (Wachsmuth et al. 2018), as a folder or as the archive its authors distribute.

Layout: SPLIT/THEME/DEBATE/{pro,con}/{pro,con}NN{a-point,b-counter}.txt, below `02-extracted-arguments/`.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from negexp.components import option
from negexp.config import DataConfig
from negexp.corpus.arguments import Record
from negexp.corpus.limits import BoundedStream, Limits, check_length, decode
from negexp.corpus.reader import CorpusReader, Reading
from negexp.errors import InputError

SPLIT_FOLDERS = {"training": "train", "validation": "validation", "test": "test"}
ARGUMENT = re.compile(r"(pro|con)(\d+)(?:a-(point)|b-(counter))\.txt")
INNER_FOLDER = "02-extracted-arguments"
TITLE = re.compile(r"[^\n]{1,160}\n\s*\n")  # 98 % of the points begin with such a line, 4 % of the counters

# (split, theme, debate, stance, number): the order of the tuples is the order of the rows
Key = tuple[str, str, str, str, str]


@dataclass
class ArguanaOptions(DataConfig):
    """The keys of `data=arguana`."""

    titles: str = option(
        "drop: remove a text's title, its first line if that has at most 160 characters and an empty line and more "
        "text follow",
        choices=("keep", "drop"),
    )


class Arguana(CorpusReader):
    """The corpus as a folder or as an archive."""

    Options = ArguanaOptions
    options: ArguanaOptions
    wants = "the unpacked corpus folder or its .tar.gz"
    reads_only_path = True

    def read(self, limits: Limits) -> Reading:
        """Read all pairs of the three splits, without their titles if so configured."""
        records, counts = read_arguana(self.path, limits)
        if self.options.titles == "keep":
            return Reading(records, counts)
        untitled = [replace(one, point=drop_title(one.point), counter=drop_title(one.counter)) for one in records]
        points = sum(one.point != other.point for one, other in zip(records, untitled, strict=True))
        counters = sum(one.counter != other.counter for one, other in zip(records, untitled, strict=True))
        note = f"Of the {len(records)} pairs, {points} points and {counters} counters lost their title lines"
        return Reading(untitled, counts, f"{note} (data.titles=drop).")


def drop_title(text: str) -> str:
    r"""Return a text without its title: a first line of at most 160 characters, before an empty line and more text.

    A text that has nothing but a title keeps it.

    >>> drop_title("Masks annoy\n\nNobody likes them.\n\nNot even I.")
    'Nobody likes them.\n\nNot even I.'
    >>> drop_title("Masks annoy")
    'Masks annoy'
    """
    title = TITLE.match(text)
    return (text[title.end() :].strip() if title else "") or text


def read_arguana(path: Path, limits: Limits) -> tuple[list[Record], dict[str, tuple[int, int]]]:
    """Read all pairs, ordered by (theme, debate, stance, number) as plain strings within each split.

    Points and counters without a partner are left out. The second value has the number of points and counters in the
    files of each split.

    Raises
    ------
    InputError
        When the path is not such a corpus or exceeds the limits, a split has no pair, a file is empty or not UTF-8, or
        a name or link points outside the corpus.
    """
    files = _folder_files(path, limits) if path.is_dir() else _archive_files(path, limits)
    points: dict[Key, str] = {}
    counters: dict[Key, str] = {}
    for parts, location, data in files:
        split, theme, debate, stance, name = parts
        match = ARGUMENT.fullmatch(name)
        assert match is not None
        table = points if match[3] else counters
        text = decode(data, location).strip()
        if not text:
            raise InputError(f"{location}: holds no text; unpack the corpus again, or remove the file and its partner")
        table[SPLIT_FOLDERS[split], theme, debate, stance, match[2]] = text
    if not points:
        raise InputError(
            f"data.path={path}: is not an ArguAna counterargs corpus; expected training/, validation/ and test/ with "
            f"THEME/DEBATE/pro/pro01a-point.txt, in it or in its {INNER_FOLDER}/"
        )
    for folder, split in SPLIT_FOLDERS.items():
        if not any(key[0] == split for key in points.keys() & counters.keys()):
            raise InputError(f"data.path={path}: {folder}/ holds no point-counter pair; unpack the corpus again")
    records = [
        Record(points[key], counters[key], key[0], *key[1:4], id=f"{key[1]}/{key[2]}/{key[3]}{key[4]}")
        for key in sorted(points.keys() & counters.keys())
    ]
    counts = {
        split: (sum(key[0] == split for key in points), sum(key[0] == split for key in counters))
        for split in SPLIT_FOLDERS.values()
    }
    return records, counts


def _folder_files(path: Path, limits: Limits) -> Iterator[tuple[list[str], str, bytes]]:
    root = path / INNER_FOLDER if (path / INNER_FOLDER).is_dir() else path
    real = root.resolve()
    total = 0
    for number, file in enumerate(sorted(root.glob("*/*/*/*/*.txt")), 1):
        limits.check_files(number, path)
        parts = list(file.relative_to(root).parts)
        if _is_argument(parts) and file.is_file():
            if not file.resolve().is_relative_to(real):
                raise InputError(f"{file}: is a link to a file outside the corpus; put the file itself there")
            size = file.stat().st_size
            check_length(size, str(file))
            limits.check_bytes(total := total + size, path)
            yield parts, str(file), file.read_bytes()


def _archive_files(path: Path, limits: Limits) -> Iterator[tuple[list[str], str, bytes]]:
    """Yield the argument files of a tar archive without unpacking it; only regular files are read."""
    if not path.is_file():
        raise InputError(f"data.path={path}: is neither a folder nor a file; give the corpus, unpacked or as .tar.gz")
    try:
        with _decompressed(path) as stream:
            bounded = BoundedStream(stream, limits, path)
            with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r:") as archive:
                for number, member in enumerate(archive, 1):
                    _check_member(member, path)
                    limits.check_files(number, path)
                    parts = member.name.split("/")[-5:]
                    if member.isreg() and _is_argument(parts):
                        location = f"{path}:{member.name}"
                        check_length(member.size, location)
                        content = archive.extractfile(member)
                        assert content is not None
                        yield parts, location, content.read()
            while bounded.read(1 << 20):  # read to the end of the stream, where its checksum is verified
                pass
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, OverflowError) as error:
        raise InputError(f"data.path={path}: cannot be read as a tar archive ({error}); download it again") from None


def _decompressed(path: Path) -> BinaryIO:
    with open(path, "rb") as file:
        start = file.read(6)
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if start.startswith(magic):
            return cast(BinaryIO, opener(path, "rb"))
    return open(path, "rb")


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    """Raise `InputError` for members that no archive of texts should have: paths outside it, and sparse files."""
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise InputError(f"{path}:{member.name}: a path outside the archive; do not trust this file")
    if member.issparse():
        raise InputError(f"{path}:{member.name}: is sparse, larger than what is stored; do not trust this file")


def _is_argument(parts: list[str]) -> bool:
    if len(parts) != 5 or parts[0] not in SPLIT_FOLDERS:
        return False
    match = ARGUMENT.fullmatch(parts[4])
    return match is not None and match[1] == parts[3]
