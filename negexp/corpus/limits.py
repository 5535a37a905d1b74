"""How much of a file is read: corpora come from strangers, and what is small on disk can be endless in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from negexp.errors import InputError

LONGEST_TEXT = 10_000_000  # characters or bytes of one argument; the longest of ArguAna has 5000


@dataclass(frozen=True)
class Limits:
    """`data.max_bytes` and `data.max_files`."""

    max_bytes: int
    max_files: int

    def check_bytes(self, count: int, path: Path) -> None:
        """Raise `InputError` when a corpus holds more bytes than it may."""
        if count > self.max_bytes:
            raise InputError(
                f"data.max_bytes={self.max_bytes}: {path} holds more than that; raise it if you trust the file"
            )

    def check_files(self, count: int, path: Path) -> None:
        """Raise `InputError` when a corpus holds more files than it may."""
        if count > self.max_files:
            raise InputError(
                f"data.max_files={self.max_files}: {path} holds more than that; raise it if you trust the file"
            )


def check_length(size: int, location: str) -> None:
    """Raise `InputError` when one text is longer than any argument is."""
    if size > LONGEST_TEXT:
        raise InputError(f"{location}: holds a text of {size} bytes; {LONGEST_TEXT} are the most")


def decode(data: bytes, location: str) -> str:
    """Decode UTF-8 (a byte order mark is dropped), or raise `InputError` with the location and the byte offset."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{location}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None
    if "\0" in text:
        raise InputError(f"{location}: byte {data.index(0)} is NUL, as in UTF-16 or binary files; convert it to UTF-8")
    return text


class BoundedStream:
    """A decompressed stream that ends in `InputError` where it comes to more than `data.max_bytes`.

    It stands below the archive reader, so that headers are bounded too, which no look at the members would show.
    """

    def __init__(self, stream: BinaryIO, limits: Limits, path: Path) -> None:
        self.stream, self.limits, self.path = stream, limits, path

    def read(self, size: int = -1) -> bytes:
        """Read as files do; no further than one byte beyond the limit."""
        room = self.limits.max_bytes + 1 - self.stream.tell()
        data = self.stream.read(room if size < 0 else min(size, room))
        self.limits.check_bytes(self.stream.tell(), self.path)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        """Go to a place; in a compressed stream that reads up to there."""
        assert whence == 0
        self.limits.check_bytes(position, self.path)
        return self.stream.seek(position)

    def tell(self) -> int:
        """Return the place in the decompressed stream."""
        return self.stream.tell()
