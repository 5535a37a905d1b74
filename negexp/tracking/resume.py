"""May this configuration go on where the folder's run stopped? Decided before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Any

from negexp.config import TrainConfig, decides_result, flatten, load_run_config
from negexp.errors import InputError
from negexp.tracking.run_folder import RunFolder


class Standing(Enum):
    """How far the run of a folder is."""

    NEW = "new"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


def find_standing(folder: RunFolder, config: TrainConfig) -> Standing:
    """Return how far the folder's run is, as `config.resume` allows; a finished one may be given more epochs.

    Raises
    ------
    InputError
        When there is nothing and there must be, something and there must not be, or when the run was begun with
        another configuration: what changed is listed.
    """
    if not folder.config.exists():
        if config.resume == "must":
            raise InputError(f"resume=must: {folder.path} holds no run; give its hydra.run.dir, or leave resume=auto")
        foreign = folder.foreign()
        if foreign:
            raise InputError(
                f"hydra.run.dir={folder.path}: holds {', '.join(foreign)} but no config.yaml, so no run; give another "
                "folder, nothing is overwritten"
            )
        return Standing.NEW
    finished = folder.result.exists()
    if config.resume == "never":
        state = "a finished" if finished else "an unfinished"
        raise InputError(
            f"resume=never: {folder.path} holds {state} run already, which is not overwritten; give another "
            "hydra.run.dir (in a sweep: name=...)"
        )
    earlier = load_run_config(folder.config)
    changes = _changes(earlier, config)
    if changes:
        raise InputError(
            f"hydra.run.dir={folder.path}: its run was begun with another configuration: {'; '.join(changes)}. Give "
            "another folder, or take the change back"
        )
    grown = config.trainer.epochs > earlier.trainer.epochs
    return Standing.FINISHED if finished and not grown else Standing.UNFINISHED


def refuse_other_data(folder: RunFolder, before: dict[str, list[Any]], now: dict[str, list[Any]]) -> None:
    """Raise `InputError` when the pairs of a split are not those of before; see `Corpus.contents`."""
    changes = []
    for split, (pairs, digest) in now.items():
        pairs_before, digest_before = before.get(split, [0, ""])
        if pairs != pairs_before:
            changes.append(f"{split} had {pairs_before} pairs, now {pairs}")
        elif digest != digest_before:
            changes.append(f"{split} has other texts or ids, or another order")
    if changes:
        raise InputError(
            f"hydra.run.dir={folder.path}: its run was begun with other data: {'; '.join(changes)}. Give another "
            "folder, or the earlier data"
        )


def _changes(earlier: TrainConfig, now: TrainConfig) -> list[str]:
    """Say what differs and decides the result; the corpus may lie elsewhere, its texts are compared on their own."""
    before = flatten(asdict(earlier))
    changes = []
    for key, value in flatten(asdict(now)).items():
        was = before.get(key)
        if value == was or key == "data.path" or not decides_result(key):
            continue
        if key != "trainer.epochs":
            changes.append(f"{key} was {was}, now {value}")
        elif value < was:
            changes.append(f"{key} was {was}, now {value} (it may only grow)")
    return changes
