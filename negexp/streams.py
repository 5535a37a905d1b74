"""Standard output and standard error whose reader may go away, as `negexp train --help | head` does.

A closed pipe is no error: what nobody reads is dropped, the command goes on and ends with its own exit code.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class _Pipe(io.FileIO):
    """A file descriptor that drops what is written to it once its reader has gone."""

    def write(self, data: Any, /) -> int:
        """Write the data, or drop them."""
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # whatever else writes to this descriptor, as at exit, meets no error either
            os.close(null)
            return len(data)


@contextmanager
def tolerate_closed_pipes() -> Iterator[None]:
    """Replace the process's stdout and stderr within; streams that a caller has put in their place stay."""
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _tolerant(sys.stdout, sys.__stdout__), _tolerant(sys.stderr, sys.__stderr__)
    try:
        yield
    finally:
        ours = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = kept
        for stream in ours:
            with suppress(OSError):  # what cannot be written, as on a full disk, is lost as well when Python exits
                if stream is not None:  # None: the shell closed it, as `>&-` does
                    stream.flush()


def _tolerant(stream: TextIO, original: TextIO | None) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper) or stream is not original:
        return stream
    stream.flush()
    raw = io.BufferedWriter(_Pipe(stream.fileno(), "wb", closefd=False))
    by_line = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=by_line)
