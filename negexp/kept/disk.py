"""The folder of the user in which runs keep pooled embeddings for each other, within a bound."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from negexp.config import CacheConfig
from negexp.kept.key import Key
from negexp.kept.store import BLOCK_TEXTS, TextVectors, VectorStore, make_block
from negexp.kept.tidy import remove_least_recent

log = logging.getLogger("negexp")


class Pooled(NamedTuple):
    """Pooled embeddings (texts, hidden_size) of some texts, and the seconds that embedding them took."""

    vectors: Tensor
    seconds: float


@dataclass
class Disk:
    """The folder. A wrong file in it is removed; a folder that cannot be written is one line of the log."""

    root: Path
    most_bytes: int
    writable: bool = True  # until writing fails
    too_small: bool = False  # whether the log has said so

    @classmethod
    def of(cls, config: CacheConfig) -> Disk | None:
        """Return the folder of a configuration; None, and a line of the log, where there is no home folder."""
        folder = cache_folder(config)
        if folder is None:
            log.info("no home folder: embeddings are not kept for other runs; cache.folder=DIR gives them a place")
            return None
        return cls(folder / "embeddings", config.max_bytes)

    def read(self, key: Key) -> Pooled | None:
        """Return the embeddings of a key; None unless those of all its texts are there."""
        found = TextVectors(key.digests)
        for block in self._store(key).blocks():
            found.add(block)
        if len(found.missing()):
            return None
        return Pooled(found.part("pooled"), float(found.part("seconds").sum()))

    def write(self, key: Key, pooled: Pooled) -> None:
        """Keep the embeddings of a key; the least recently used ones make room for them."""
        texts = len(key.digests)
        size = texts * (32 + 4 * (key.size + 1))
        if not self.writable:
            return
        if size > self.most_bytes:
            if not self.too_small:
                log.info(f"cache.max_bytes={self.most_bytes}: {size} bytes of embeddings are not kept for other runs")
            self.too_small = True
            return
        seconds = torch.full((texts, 1), pooled.seconds / texts)
        store = self._store(key)
        for start in range(0, texts, BLOCK_TEXTS):
            some = slice(start, start + BLOCK_TEXTS)
            store.add(make_block(key.digests[some], {"pooled": pooled.vectors[some], "seconds": seconds[some]}))
        self.writable = store.writable

    def _store(self, key: Key) -> VectorStore:
        sizes = {"pooled": key.size, "seconds": 1}
        tidy = partial(remove_least_recent, most_bytes=self.most_bytes)
        return VectorStore(self.root, key.weights, key.values, sizes, tidy)


def cache_folder(config: CacheConfig) -> Path | None:
    """Return the folder in which negexp keeps what other runs can use; None where the user has no home folder."""
    try:
        if config.folder is not None:
            return Path(config.folder).expanduser().resolve()
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (given if given.is_absolute() else Path.home() / ".cache").resolve() / "negexp"
    except (OSError, RuntimeError):  # no home folder, or links in a circle
        return None
