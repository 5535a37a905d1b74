"""The keys of embeddings that runs share: name, type, range and help of each. Values are in `conf/` only."""

from __future__ import annotations

from dataclasses import dataclass

from negexp.components import Options, option


@dataclass
class CacheConfig(Options):
    """Embeddings that are kept on the disk for other runs; see `negexp/kept/README.md`."""

    keep: bool = option(
        "true: what an encoder gives before it is trained, or frozen, is kept, and other runs with the same weights "
        "and texts read it; results are the same to the bit"
    )
    folder: str | None = option("where; null: negexp/ in $XDG_CACHE_HOME, or in ~/.cache")
    max_bytes: int = option("of all kept embeddings; those that were used least recently go first", low=1)
