"""A text encoder that embeds nothing twice while an encoder's weights stay the same, also across runs.

The pooled embeddings are kept, not the retrieval ones: heads may be trained, or random for each seed. They cost little,
and are computed again in the same batches, so the bits are those of embedding anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from negexp.config import TrainConfig
from negexp.embedding import TextEncoder
from negexp.kept.disk import Disk, Pooled
from negexp.kept.key import Key, key_of
from negexp.model import Role, Vectors
from negexp.model.bi_encoder import Tower
from negexp.tracking.listener import Listener, RunInfo
from negexp.world import World

log = logging.getLogger("negexp")

Ints = NDArray[np.int64]


class Reuse(NamedTuple):
    """Embeddings that were not computed again: whose, whether from the disk or memory, and the seconds they took."""

    what: str
    from_disk: bool
    seconds: float


@dataclass
class Kept:
    """The pooled embeddings that a run can reuse.

    untrained: whether no optimizer step has been taken yet. fused: `trainer.fused`. disk: None keeps nothing for other
    runs. memory: those of a frozen encoder, by the name of their key. reused: what was not computed again.
    """

    untrained: Callable[[], bool]
    fused: str
    disk: Disk | None
    memory: dict[str, Pooled] = field(default_factory=dict)
    reused: list[Reuse] = field(default_factory=list)

    def serves(self, tower: Tower) -> bool:
        """Return whether a later call, or another run, can have the same weights of a tower's encoder."""
        return is_frozen(tower) or (self.disk is not None and self.untrained())

    def find(self, key: Key, what: str, world: World) -> Pooled | None:
        """Return the embeddings of a key if all processes of the run have them; `what` names their texts."""
        found, from_disk = self.memory.get(key.name()), False
        if found is None and self.disk is not None:
            found, from_disk = self.disk.read(key), True
        if world.largest(int(found is None)):
            return None
        if found is not None:
            self.reused.append(Reuse(what, from_disk, found.seconds))
        return found

    def add(self, key: Key, computed: Pooled) -> None:
        """Keep embeddings that were computed now for other runs."""
        if self.disk is not None:
            self.disk.write(key, computed)


@dataclass(frozen=True)
class KeepingEncoder(TextEncoder):
    """A text encoder that looks first whether the same texts were embedded with the same weights."""

    kept: Kept = field(kw_only=True)

    @torch.inference_mode()
    def _embed_role(self, role: Role, rows: Ints, what: str) -> Vectors:
        tower, kept = self.model.tower(role), self.kept
        if not kept.serves(tower):
            return super()._embed_role(role, rows, what)
        key = key_of(self, tower, rows, kept.fused)
        found = kept.find(key, what, self.runtime.world)
        if found is None:
            started = time.perf_counter()
            vectors = super()._embed_role(role, rows, what)
            self.runtime.synchronize()
            found = Pooled(vectors.pooled, time.perf_counter() - started)
            if self.runtime.world.local_rank == 0:  # once on each host
                kept.add(key, found)
        else:
            found = found._replace(vectors=found.vectors.to(self.runtime.device))
            vectors = Vectors(self._retrieval(tower, rows, found.vectors), found.vectors)
        if is_frozen(tower):
            kept.memory[key.name()] = found
        return vectors

    def _retrieval(self, tower: Tower, rows: Ints, pooled: Tensor) -> Tensor:
        """Return the retrieval embeddings of pooled ones, computed in the batches in which the texts are embedded."""
        retrieval = pooled.new_empty(len(rows), tower.retrieval_size)
        for positions in self.tokens.batches(rows, self.runtime.tokens_per_batch):
            batch = self.runtime.to_device(torch.from_numpy(positions))
            retrieval[batch] = tower.retrieval(pooled[batch])
        return retrieval


class ReuseLines(Listener):
    """Logs what was not embedded again."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def started(self, run: RunInfo) -> None:
        """Log what was read before training."""
        read = [reuse for reuse in self.kept.reused if reuse.from_disk]
        if read and self.kept.disk is not None:
            names = ", ".join(dict.fromkeys(reuse.what for reuse in read))
            log.info(f"embeddings of {names} read from {self.kept.disk.root}: {_saved(read)}")

    def finished(self, result: Mapping[str, Any]) -> None:
        """Log how often embeddings of a frozen encoder were used again."""
        used = [reuse for reuse in self.kept.reused if not reuse.from_disk]
        if used:
            log.info(f"the frozen encoder's embeddings were used again {len(used)} times: {_saved(used)}")


def is_frozen(tower: Tower) -> bool:
    """Return whether no parameter of a tower's encoder is trained."""
    return not any(parameter.requires_grad for parameter in tower.encoder.parameters())


def keeping(encoder: TextEncoder, config: TrainConfig, untrained: Callable[[], bool]) -> TextEncoder:
    """Return the encoder of a run, which reuses embeddings unless `cache.keep` is off.

    `untrained` tells whether the weights are still those that the run starts from.
    """
    if not config.cache.keep:
        return encoder
    disk = Disk.of(config.cache)
    if encoder.runtime.world.largest(int(disk is None)):  # a host without a folder: all processes do the same
        disk = None
    kept = Kept(untrained, config.trainer.fused, disk)
    return KeepingEncoder(encoder.model, encoder.tokens, encoder.runtime, encoder.progress, kept=kept)


def reuse_lines(encoder: TextEncoder) -> Sequence[Listener]:
    """Return the listener that logs what an encoder reuses, if it reuses anything."""
    return [ReuseLines(encoder.kept)] if isinstance(encoder, KeepingEncoder) else []


def _saved(reuses: Sequence[Reuse]) -> str:
    return f"{sum(reuse.seconds for reuse in reuses):.1f} s of embedding saved"
