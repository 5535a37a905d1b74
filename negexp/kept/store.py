"""Embeddings of texts in files, so that the next command, run or job reads them.

A folder holds the vectors of one key: all that an embedding depends on but the text. A file in it is a block of texts:
their SHA-256 and their vectors, as safetensors. Its name is the SHA-256 of its content, and it is renamed into place
when it is complete. So there is no index that could be out of step, two processes can write at a time, and a file that
was damaged or changed is noticed. Nothing here decides what is embedded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from negexp.kept.tidy import remove_leftovers
from negexp.tracking.files import sha256

log = logging.getLogger("negexp")

BLOCK_TEXTS = 8192  # texts of a block at most
HEADER_BYTES = 2**16  # of a file at most, beside its tensors
DIGEST = "text"  # the tensor of the SHA-256 of each text (texts, 32)
BLOCK = re.compile(r"[0-9a-f]{64}\.safetensors")

Block = Mapping[str, Tensor]


def text_digests(texts: Sequence[str]) -> list[bytes]:
    """Return the SHA-256 of each text."""
    return [hashlib.sha256(text.encode()).digest() for text in texts]


def make_block(digests: Sequence[bytes], parts: Mapping[str, Tensor]) -> Block:
    """Return the block of some texts with their vectors: name -> (texts, dim)."""
    found = torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(len(digests), 32)
    return {DIGEST: found, **{name: part.detach().float().cpu().contiguous() for name, part in parts.items()}}


class VectorStore:
    """The blocks of one key.

    Parameters
    ----------
    root
        The folder of all keys, which need not exist.
    weights
        SHA-256 of the model's weights, a part of the key.
    key
        All else that an embedding depends on, but the text.
    sizes
        Name -> size of each vector of a text.
    tidy
        Called with the folder of the key after each new block; it removes blocks of other keys.
    """

    def __init__(
        self,
        root: Path,
        weights: str,
        key: Mapping[str, Any],
        sizes: Mapping[str, int],
        tidy: Callable[[Path], None],
    ) -> None:
        text = json.dumps({"weights": weights, "key": key, "sizes": sizes}, sort_keys=True, allow_nan=False)
        self.root, self.sizes, self.tidy = root, dict(sizes), tidy
        self.folder = root / f"{weights[:16]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.writable = True  # until writing fails

    def blocks(self) -> list[Block]:
        """Return the intact blocks, mapped into memory. A line of the log counts the others, which are removed."""
        if self._is_link():
            return []
        try:
            files = sorted(path for path in self.folder.iterdir() if BLOCK.fullmatch(path.name))
        except OSError:  # it does not exist, or must not be read
            return []
        found, damaged = [], 0
        for file in files:
            block = self._read(file)
            if block is not None:
                found.append(block)
            elif os.path.lexists(file):  # else another process has removed it
                damaged += 1
                with suppress(OSError):
                    file.unlink()
        if damaged:
            log.warning(f"{self.folder}: {damaged} of {len(files)} files are damaged; their texts are embedded again")
        with suppress(OSError):  # where nothing may be written, the vectors are read all the same
            os.utime(self.folder)  # they are used now
        return found

    def add(self, block: Block) -> None:
        """Write a block. If that fails, a line of the log says so, and no further block is written."""
        if not self.writable or not _is_finite(block):
            return
        try:
            if self._is_link():
                raise OSError(None, "a link, which is not followed")
            self._write(save(dict(block)))
        except OSError as error:
            self.writable = False
            log.warning(
                f"{self.folder}: cannot be written ({error.strerror}); these texts are embedded again next time"
            )
            return
        with suppress(OSError):  # another process may tidy too
            remove_leftovers(self.folder)
            self.tidy(self.folder)

    def _write(self, data: bytes) -> None:
        for attempt in (1, 2):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._write_and_rename(data)
                return
            except FileNotFoundError:  # another process has just removed the folder
                if attempt == 2:
                    raise

    def _write_and_rename(self, data: bytes) -> None:
        arriving = self.folder / f".{uuid.uuid4().hex}.tmp"  # of this process alone
        try:
            with open(arriving, "xb") as file:
                file.write(data)
            os.replace(arriving, self.folder / f"{hashlib.sha256(data).hexdigest()}.safetensors")
        except OSError:
            arriving.unlink(missing_ok=True)
            raise

    def _is_link(self) -> bool:
        return self.root.is_symlink() or self.folder.is_symlink()

    def _read(self, file: Path) -> Block | None:
        """Return the block in a file, or None unless the file is one that was written here."""
        row = 32 + 4 * sum(self.sizes.values())
        try:
            if file.is_symlink() or not file.is_file() or file.stat().st_size > HEADER_BYTES + BLOCK_TEXTS * row:
                return None
            if f"{sha256(file)}.safetensors" != file.name:
                return None
            with safe_open(file, framework="pt") as content:
                block = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, RuntimeError, ValueError):
            return None
        return block if self._fits(block) else None

    def _fits(self, block: Block) -> bool:
        if set(block) != {DIGEST, *self.sizes}:
            return False
        texts = tuple(block[DIGEST].shape[:1])
        shapes = {DIGEST: (*texts, 32)} | {name: (*texts, size) for name, size in self.sizes.items()}
        kinds = {DIGEST: torch.uint8} | dict.fromkeys(self.sizes, torch.float32)
        return all(
            tuple(block[name].shape) == shapes[name] and block[name].dtype == kinds[name] for name in block
        ) and _is_finite(block)


class TextVectors:
    """The vectors of some texts, looked up in blocks."""

    def __init__(self, digests: Sequence[bytes]) -> None:
        self.digests = digests
        self.blocks: list[Block] = []
        self.block: NDArray[np.int64] = np.full(len(digests), -1, dtype=np.int64)  # -1: not there
        self.row: NDArray[np.int64] = np.zeros(len(digests), dtype=np.int64)
        self._texts: dict[bytes, list[int]] = {}  # those that are not there
        for text, digest in enumerate(digests):
            self._texts.setdefault(digest, []).append(text)

    def add(self, block: Block) -> None:
        """Look up those texts that no earlier block has."""
        stored = block[DIGEST].numpy().tobytes()
        for row in range(len(stored) // 32):
            for text in self._texts.pop(stored[32 * row : 32 * row + 32], ()):
                self.block[text], self.row[text] = len(self.blocks), row
        self.blocks.append(block)

    def missing(self) -> NDArray[np.int64]:
        """Return the texts without vectors."""
        return np.flatnonzero(self.block < 0)

    def part(self, name: str, texts: NDArray[np.int64] | None = None) -> Tensor:
        """Return one vector of each of the texts, None for all: (texts, dim)."""
        texts = np.arange(len(self.block)) if texts is None else texts
        found = torch.empty(len(texts), self.blocks[0][name].shape[1])
        for number in np.unique(self.block[texts]):
            own = self.block[texts] == number
            found[torch.from_numpy(own)] = self.blocks[number][name][torch.from_numpy(self.row[texts][own])]
        return found


def _is_finite(block: Block) -> bool:
    return all(bool(torch.isfinite(part).all()) for name, part in block.items() if name != DIGEST)
