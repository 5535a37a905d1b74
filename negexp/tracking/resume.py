"""Decide whether a configuration may continue the run of a folder, before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Any

from negexp.config import TrainConfig, decides_result, flatten, load_run_config
from negexp.errors import InputError
from negexp.tracking.run_folder import RunFolder

RANDOM_BERT = ("model.vocabulary_size", "model.hidden_size", "model.layers", "model.attention_heads")


class RunState(Enum):
    """The state of the run in a folder."""

    NEW = "new"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


def find_run_state(folder: RunFolder, config: TrainConfig) -> RunState:
    """Return the state of the folder's run. A finished run with more `trainer.epochs` counts as unfinished.

    Raises
    ------
    InputError
        When `config.resume` forbids the state, when the folder has files of something else, or when the run was started
        with another configuration. The message lists the changes.
    """
    if not folder.config.exists():
        if config.resume == "must":
            raise InputError(f"resume=must: {folder.path} holds no run; give its hydra.run.dir, or use resume=auto")
        foreign = folder.foreign()
        if foreign:
            raise InputError(
                f"hydra.run.dir={folder.path}: contains {', '.join(foreign)} but no config.yaml, so it is not a run "
                "and is not overwritten; give another folder"
            )
        return RunState.NEW
    finished = folder.result.exists()
    if config.resume == "never":
        state = "a finished" if finished else "an unfinished"
        raise InputError(
            f"resume=never: {folder.path} already contains {state} run, which is not overwritten; give another "
            "hydra.run.dir (in a sweep: name=...)"
        )
    earlier = load_run_config(folder.config)
    changes = _changes(earlier, config)
    if changes:
        raise InputError(
            f"hydra.run.dir={folder.path}: its run was started with another configuration: {'; '.join(changes)}. "
            "Give another folder, or undo the change"
        )
    extended = config.trainer.epochs > earlier.trainer.epochs
    return RunState.FINISHED if finished and not extended else RunState.UNFINISHED


def refuse_other_data(folder: RunFolder, before: dict[str, list[Any]], now: dict[str, list[Any]]) -> None:
    """Raise `InputError` when the pairs of a split have changed; see `Corpus.contents`."""
    changes = []
    for split, (pairs, digest) in now.items():
        pairs_before, digest_before = before.get(split, [0, ""])
        if pairs != pairs_before:
            changes.append(f"{split} had {pairs_before} pairs, now {pairs}")
        elif digest != digest_before:
            changes.append(f"{split} has other texts or ids, or another order")
    if changes:
        raise InputError(
            f"hydra.run.dir={folder.path}: its run was started with other data: {'; '.join(changes)}. Give another "
            "folder, or the earlier data"
        )


def _changes(earlier: TrainConfig, now: TrainConfig) -> list[str]:
    """List the changed keys that decide the result. `data.path` may change: texts are compared separately."""
    before = flatten(asdict(earlier))
    changes = []
    for key, value in flatten(asdict(now)).items():
        earlier_value = before.get(key)
        if value == earlier_value or key == "data.path" or not decides_result(key) or _ignored(key, now):
            continue
        if key != "trainer.epochs":
            changes.append(f"{key} was {earlier_value}, now {value}")
        elif now.trainer.lr_schedule != "constant" or now.trainer.warmup_share > 0:
            changes.append(f"{key} was {earlier_value}, now {value} (the learning rate depends on it)")
        elif value < earlier_value:
            changes.append(f"{key} was {earlier_value}, now {value} (it may only grow)")
    return changes


def _ignored(key: str, config: TrainConfig) -> bool:
    """Return whether training ignores a key because of the value of another one."""
    model, sampler = config.model, config.sampler
    return (
        key.startswith("model.bm25.")
        or (key.startswith("reranker.") and model.reranker == "pair")
        or (key.startswith("sampler.bm25.") and sampler.source != "bm25")
        or (key == "trainer.average_decay" and config.trainer.average != "ema")
        or (key in RANDOM_BERT and model.pretrained is not None)
    )
