"""Standard output and standard error that tolerate a closed pipe, as in `negexp train --help | head`.

Output without a reader is dropped. The command continues and ends with its own exit code.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class OutputError(Exception):
    """Output cannot be written, as on a full disk; the message is the system's."""


class _Pipe(io.FileIO):
    """A file descriptor that drops output after its reader has closed the pipe, or after one error."""

    def write(self, data: Any, /) -> int:
        """Write the data, or drop them if the pipe is closed."""
        try:
            return super().write(data)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # later writes to this descriptor, as at exit, raise no error
            os.close(null)
            if not isinstance(error, BrokenPipeError):
                raise OutputError(error.strerror) from None
            return len(data)


@contextmanager
def tolerate_closed_pipes() -> Iterator[None]:
    """Make the process's stdout and stderr tolerate closed pipes in a block; streams that a caller replaced stay."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _tolerant(sys.stdout, sys.__stdout__), _tolerant(sys.stderr, sys.__stderr__)
    try:
        yield
    finally:
        tolerant = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        for stream in tolerant:
            with suppress(OSError):  # output that cannot be written, as on a full disk, is lost at exit in any case
                if stream is not None:  # None: the shell closed it, as `>&-` does
                    stream.flush()


def _tolerant(stream: TextIO, original: TextIO | None) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper) or stream is not original:
        return stream
    stream.flush()
    raw = io.BufferedWriter(_Pipe(stream.fileno(), "wb", closefd=False))
    by_line = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=by_line)
