"""Commits: model, optimizer and the loop's state at the end of an epoch, whole or absent.

A checkpoint folder is written under a temporary name, flushed, described by a manifest with the SHA-256 of every
file, and renamed. `index.json` then names the last and the best. Tensors are safetensors, the rest is JSON: nothing
that is loaded can execute.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from negexp.errors import InputError
from negexp.model import BiEncoder
from negexp.sampling import Negatives
from negexp.tracking.files import sha256, sync_folder, write_json
from negexp.training.steps import Trainee


class CheckpointStore:
    """The checkpoints of a run: the newest `keep` and the best."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def commit(
        self, epoch: int, best_epoch: int, trainee: Trainee, negatives: Negatives, state: dict[str, Any]
    ) -> None:
        """Write `epoch-NNN`, point `last` and `best` to what they now are, and remove what neither needs."""
        name = _name(epoch)
        temporary = self.folder / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        weights = {key: value.contiguous() for key, value in trainee.model.state_dict().items()}
        save_file(weights, temporary / "model.safetensors")
        optimizer_tensors, optimizer_state = _split_optimizer(trainee.optimizer.state_dict())
        save_file(optimizer_tensors, temporary / "optimizer.safetensors")
        save_file(
            {
                "argument": torch.from_numpy(np.ascontiguousarray(negatives.argument)),
                "neighbour_rank": torch.from_numpy(np.ascontiguousarray(negatives.neighbour_rank)),
            },
            temporary / "negatives.safetensors",
        )
        schedule = {"last_epoch": trainee.schedule.last_epoch}
        write_json(
            temporary / "state.json", {"epoch": epoch, "optimizer": optimizer_state, "schedule": schedule, **state}
        )
        files = sorted(temporary.iterdir())
        for file in files:
            _sync(file)
        write_json(temporary / "manifest.json", {"epoch": epoch, "sha256": {file.name: sha256(file) for file in files}})
        os.replace(temporary, self.folder / name)
        sync_folder(self.folder)
        write_json(self.folder / "index.json", {"last": name, "best": _name(best_epoch)})
        self._prune(epoch, best_epoch)

    def load_model(self, which: str, model: BiEncoder) -> None:
        """Load the weights of `best` or `last` into the model, after checking them against the manifest.

        Raises
        ------
        InputError
            When there is no such checkpoint, or a file of it is damaged.
        """
        index = self._read_json(self.folder / "index.json")
        folder = self.folder / Path(str(index.get(which))).name
        digests = self._read_json(folder / "manifest.json").get("sha256", {})
        weights = folder / "model.safetensors"
        if not weights.is_file() or sha256(weights) != digests.get(weights.name):
            raise InputError(f"{weights}: does not match its manifest.json; the checkpoint is damaged")
        try:
            model.load_state_dict(load_file(weights))
        except RuntimeError as error:  # other names or shapes than the configuration says
            raise InputError(f"{weights}: does not fit config.yaml ({str(error).splitlines()[0]})") from None

    def _read_json(self, path: Path) -> dict[str, Any]:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: not found; the run has no finished epoch, or its folder is damaged") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        if not isinstance(value, dict):
            raise InputError(f"{path}: holds no JSON object")
        return value

    def _prune(self, epoch: int, best_epoch: int) -> None:
        wanted = {_name(best_epoch), *(_name(kept) for kept in range(epoch - self.keep + 1, epoch + 1))}
        for folder in self.folder.glob("epoch-*"):
            if folder.name not in wanted:
                shutil.rmtree(folder)


def _name(epoch: int) -> str:
    return f"epoch-{epoch:03d}"


def _split_optimizer(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors, named `parameter.key`, and what JSON can hold."""
    tensors = {
        f"{parameter}.{key}": value.contiguous()
        for parameter, values in state["state"].items()
        for key, value in values.items()
    }
    return tensors, {"param_groups": state["param_groups"]}


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
