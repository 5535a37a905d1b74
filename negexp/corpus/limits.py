"""Limits on what is read: corpora are untrusted, and a file that is small on disk can be huge in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from negexp.errors import InputError

LONGEST_TEXT = 10_000_000  # characters or bytes of an argument; the longest in ArguAna has 5000


@dataclass(frozen=True)
class Limits:
    """`data.max_bytes` and `data.max_files`."""

    max_bytes: int
    max_files: int

    def check_bytes(self, count: int, path: Path) -> None:
        """Raise `InputError` if a corpus holds more bytes than allowed."""
        if count > self.max_bytes:
            raise InputError(
                f"data.max_bytes={self.max_bytes}: {path} holds more than that; raise it if you trust the file"
            )

    def check_files(self, count: int, path: Path) -> None:
        """Raise `InputError` if a corpus holds more files than allowed."""
        if count > self.max_files:
            raise InputError(
                f"data.max_files={self.max_files}: {path} holds more than that; raise it if you trust the file"
            )


def check_length(size: int, location: str) -> None:
    """Raise `InputError` if a text is longer than LONGEST_TEXT."""
    if size > LONGEST_TEXT:
        raise InputError(f"{location}: holds a text of {size} bytes; at most {LONGEST_TEXT} are allowed")


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
    """A decompressed stream that raises `InputError` after `data.max_bytes`.

    The archive reader reads from it, so the limit covers headers as well as members.
    """

    def __init__(self, stream: BinaryIO, limits: Limits, path: Path) -> None:
        self.stream, self.limits, self.path = stream, limits, path

    def read(self, size: int = -1) -> bytes:
        """Read like a file, but at most one byte beyond the limit."""
        room = self.limits.max_bytes + 1 - self.stream.tell()
        data = self.stream.read(room if size < 0 else min(size, room))
        self.limits.check_bytes(self.stream.tell(), self.path)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        """Move to a position; a compressed stream is read up to it."""
        assert whence == 0
        self.limits.check_bytes(position, self.path)
        return self.stream.seek(position)

    def tell(self) -> int:
        """Return the position in the decompressed stream."""
        return self.stream.tell()
