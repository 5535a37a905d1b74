"""Commits: the model, the optimizer and the loop's state at the end of an epoch, complete or absent.

A commit is a folder. It is written under a temporary name and flushed, with a manifest of the SHA-256 of every file.
Then it is renamed, and never changed again. `index.json` names the last and the best commit. Tensors are stored as
safetensors and all else as JSON, so that loading a commit cannot run code.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from negexp.errors import InputError
from negexp.sampling import Negatives
from negexp.tracking.files import (
    filling,
    finish_folder,
    remove_folder,
    rename_folder,
    sha256,
    start_folder,
    sync_file,
    write_json,
)
from negexp.tracking.reading import own_file, read_json
from negexp.training.trainee import Trainee
from negexp.world import World

log = logging.getLogger("negexp")

MODEL, OPTIMIZER, NEGATIVES = "model.safetensors", "optimizer.safetensors", "negatives.safetensors"
TRAINED = "trained.safetensors"  # with `trainer.average`: the weights that training continues from; MODEL: the average
LOSS = "loss.safetensors"  # where the loss has parameters
STEPS, STATE = "steps.json", "state.json"
REQUIRED, OPTIONAL = {MODEL, OPTIMIZER, NEGATIVES, STEPS, STATE}, {TRAINED, LOSS}


@dataclass(frozen=True)
class Commit:
    """A verified commit, with the state that the loop wrote."""

    folder: Path
    state: dict[str, Any]

    def value(self, key: str) -> Any:
        """Return the value of a key in the state, or raise `InputError` if it is missing."""
        if key not in self.state:
            raise InputError(f"{self.folder / STATE}: has no {key}; another version of negexp wrote it")
        return self.state[key]

    @property
    def weights(self) -> Path:
        """Return the path of the model's weights."""
        return self.folder / MODEL


class CheckpointStore:
    """The commits of a run: the newest `keep` commits and the best one.

    With several processes, all of them make the same calls. The main process reads and writes; the others get copies
    of the commits that are used.
    """

    def __init__(self, run: Path, keep: int, folder: str = "checkpoints", world: World | None = None) -> None:
        self.run = run
        self.folder = run / folder
        self.keep = keep
        self.world = world or World()

    # --- writing --------------------------------------------------------------------------------------------------

    def begin(self, epoch: int, trainee: Trainee[Any, Any], negatives: Negatives) -> Path:
        """Write the tensors of an epoch into a temporary folder, and return it; `finish` turns it into a commit."""
        if not self.world.main:
            return self.folder / _name(epoch)
        temporary = start_folder(self.folder / _name(epoch))
        optimizer, groups = _split_optimizer(trainee.optimizer.state_dict())
        tensors = {
            **{name: module.state_dict() for name, module in _modules(trainee).items()},
            OPTIMIZER: optimizer,
            NEGATIVES: {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in vars(negatives).items()},
        }
        with filling(temporary):
            for name, values in tensors.items():
                save_file({key: value.contiguous() for key, value in values.items()}, temporary / name)
                sync_file(temporary / name)
            steps: dict[str, Any] = {"param_groups": groups, "schedule": trainee.rate.state_dict()}
            if trainee.average is not None:
                steps["averaged"] = int(trainee.average.n_averaged)
            write_json(temporary / STEPS, steps)
        return temporary

    def finish(self, temporary: Path, state: dict[str, Any]) -> None:
        """Add the loop's state and the manifest, rename the folder, and remove commits that are no longer needed.

        `state` has `epoch`, `best_epoch`, and all else that the loop needs to continue.
        """
        if not self.world.main:
            return
        epoch, best_epoch = state["epoch"], state["best_epoch"]
        with filling(temporary):
            write_json(temporary / STATE, state)
            digests = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
            write_json(temporary / "manifest.json", {"epoch": epoch, "sha256": digests})
        finish_folder(temporary, self.folder / _name(epoch))
        self._update_index(epoch, best_epoch)

    def _update_index(self, epoch: int, best_epoch: int) -> None:
        """Write `last` and `best` to index.json, and remove commits that are neither the best nor among the newest."""
        write_json(self.folder / "index.json", {"last": _name(epoch), "best": _name(best_epoch)})
        needed = {_name(best_epoch), *(_name(recent) for recent in range(epoch - self.keep + 1, epoch + 1))}
        for folder in self._commits():
            if folder.name not in needed:
                remove_folder(folder)

    # --- reading --------------------------------------------------------------------------------------------------

    def newest(self) -> Commit | None:
        """Return the newest commit that is intact and whose best epoch is intact, and make it the last one.

        Newer, damaged commits are logged and renamed to `epoch-NNN.damaged`. Temporary folders of a killed process are
        removed.

        Raises
        ------
        InputError
            When there are commits but all are damaged. Then no file is changed.
        """
        return self._shared(self._newest)

    def _newest(self) -> Commit | None:
        damages: dict[Path, InputError] = {}
        for folder in self._commits():
            try:
                commit = self._verified(folder)
            except InputError as damage:
                damages[folder] = damage
                continue
            self._set_aside(damages)
            for leftover in self.folder.glob(".epoch-*"):
                remove_folder(leftover)
            self._update_index(commit.value("epoch"), commit.value("best_epoch"))
            return commit
        if damages:
            raise InputError(
                f"{next(iter(damages.values()))}. No commit can be used; repair it, or move {self.folder} away to "
                "start again"
            )
        return None

    def _set_aside(self, damages: dict[Path, InputError]) -> None:
        for folder, damage in damages.items():
            aside = folder.with_name(f"{folder.name}.damaged")
            log.warning(f"{damage}: this commit is renamed to {aside.name}, and the one before it is used")
            remove_folder(aside)
            rename_folder(folder, aside)

    def restore(self, commit: Commit, trainee: Trainee[Any, Any]) -> Negatives:
        """Load all that training has changed from a commit; return its negatives."""
        for name, module in _modules(trainee).items():
            load_weights(commit.folder / name, module)
        steps = read_json(commit.folder / STEPS, self.run)
        with _report_mismatch(commit.folder):
            state = _join_optimizer(load_file(commit.folder / OPTIMIZER), steps["param_groups"])
            trainee.optimizer.load_state_dict(state)
            trainee.rate.load_state_dict(steps["schedule"])
            if trainee.average is not None:
                trainee.average.n_averaged.fill_(int(steps["averaged"]))
            negatives = load_file(commit.folder / NEGATIVES)
            return Negatives(**{key: value.numpy().copy() for key, value in negatives.items()})

    def commit(self, which: str) -> Commit:
        """Return the commit `best` or `last`, after checking its files against the manifest.

        Raises
        ------
        InputError
            When there is no such commit, or one of its files is damaged.
        """
        found = self._shared(lambda: self._commit(which))
        assert found is not None
        return found

    def _commit(self, which: str) -> Commit:
        index = read_json(self.folder / "index.json", self.run)
        folder = self.folder / Path(str(index.get(which))).name
        self._verify(folder)
        return Commit(folder, read_json(folder / STATE, self.run))

    def _shared(self, find: Callable[[], Commit | None]) -> Commit | None:
        """Return the commit that the main process finds; the other processes get a copy of its files."""
        commit = self.world.together(lambda: find() if self.world.main else None)
        found = self.world.tell(None if commit is None else [commit.folder.name, commit.state])
        if commit is None and found is not None:
            name, state = found
            commit = Commit(self.folder / Path(name).name, state)
        if commit is not None:
            self.world.copy(commit.folder)
        return commit

    def weights(self, which: str) -> Path:
        """Return the path of the weights of `best` or `last`, verified, or raise `InputError`."""
        return self.commit(which).weights

    def _commits(self) -> list[Path]:
        """Return the folders of commits, newest first."""
        matches = ((COMMIT.fullmatch(path.name), path) for path in self.folder.glob("epoch-*"))
        epochs = [(int(match[1]), path) for match, path in matches if match]
        return [path for _, path in sorted(epochs, reverse=True)]

    def _verified(self, folder: Path) -> Commit:
        """Return the commit in a folder, or raise `InputError` if it or its best epoch is damaged."""
        self._verify(folder)
        commit = Commit(folder, read_json(folder / STATE, self.run))
        best = self.folder / _name(commit.value("best_epoch"))
        if best != folder:
            self._verify(best)
        return commit

    def _verify(self, folder: Path) -> None:
        """Raise `InputError` unless every file of a commit has the SHA-256 in its manifest."""
        digests = read_json(folder / "manifest.json", self.run).get("sha256")
        if not isinstance(digests, dict) or not REQUIRED <= digests.keys() <= REQUIRED | OPTIONAL:
            raise InputError(f"{folder / 'manifest.json'}: does not name the files of a commit")
        for name, digest in digests.items():
            file = own_file(folder / name, self.run)
            try:
                actual = sha256(file)
            except OSError as error:
                raise InputError(f"{file}: cannot be read ({error.strerror})") from None
            if actual != digest:
                raise InputError(f"{file}: does not match its manifest.json; the checkpoint is damaged")


COMMIT = re.compile(r"epoch-(\d{3,9})")


def _name(epoch: int) -> str:
    return f"epoch-{int(epoch):03d}"


def _modules(trainee: Trainee[Any, Any]) -> dict[str, nn.Module]:
    """Return the modules of a commit, by the names of their files."""
    modules: dict[str, nn.Module] = {MODEL: trainee.evaluated}
    if trainee.evaluated is not trainee.model:
        modules[TRAINED] = trainee.model
    if trainee.loss.state_dict():
        modules[LOSS] = trainee.loss
    return modules


def load_weights(weights: Path, model: nn.Module) -> None:
    """Load the weights of a commit into a module, or raise `InputError` if they do not fit."""
    with _report_mismatch(weights):
        model.load_state_dict(load_file(weights))


@contextmanager
def _report_mismatch(path: Path) -> Iterator[None]:
    """Raise `InputError` if an intact file does not fit the configuration: other names or shapes."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: does not fit config.yaml ({reason})") from None


def _split_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Split an optimizer's state into tensors, named `parameter.key`, and its parameter groups, for JSON."""
    tensors = {
        f"{parameter}.{key}": value.contiguous()
        for parameter, values in state["state"].items()
        for key, value in values.items()
    }
    return tensors, state["param_groups"]


def _join_optimizer(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        parameter, _, key = name.partition(".")
        state.setdefault(int(parameter), {})[key] = value.clone()  # a copy, so that the file's memory can be freed
    return {"state": state, "param_groups": groups}
