"""What several test files need: a composed configuration, and a training run in this process."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: two test processes share two cores
# Embeddings are kept, as for a user, but not among the user's own. The caches of fonts and models stay where they are.
if "negexp-tests-" not in os.environ.get("XDG_CACHE_HOME", ""):  # else it is inherited
    KEPT = tempfile.TemporaryDirectory(prefix="negexp-tests-")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    os.environ.setdefault("MPLCONFIGDIR", str(caches / "matplotlib"))
    os.environ.setdefault("HF_HOME", str(caches / "huggingface"))
    os.environ["XDG_CACHE_HOME"] = KEPT.name

import pytest
from hydra import compose, initialize_config_dir

from negexp.commands import train
from negexp.config import CONF_DIR, TrainConfig, parse_train

# one core and float32: the same numbers wherever the suite runs, and no fight for cores with whatever else runs
QUICK = ["trainer.precision=float32", "trainer.device=cpu", "tracker.progress=never"]

Train = Callable[..., Path]


def compose_train(*overrides: str) -> TrainConfig:
    """Return the typed configuration of `negexp train OVERRIDES`."""
    return copy.deepcopy(_composed(*overrides))


@cache  # composing takes a fifth of a second
def _composed(*overrides: str) -> TrainConfig:
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        return parse_train(compose("train", [*QUICK, *overrides]))


@pytest.fixture(autouse=True, scope="session")
def without_waiting_for_the_disk() -> Iterator[None]:
    """Do not wait for the disk in this process: only a power cut needs that, and it is a quarter of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _handle: None)
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, and undo afterwards what a command line sets in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["negexp"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return tmp_path


@pytest.fixture(scope="session")
def runs_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that trains each configuration once a session, into a folder that nobody changes."""
    folder = tmp_path_factory.mktemp("session")

    @cache
    def run(*overrides: str) -> Path:
        path = folder / str(len(list(folder.iterdir())))
        path.mkdir()
        train.run(compose_train(*overrides), path, list(overrides))
        return path

    return run


@pytest.fixture
def finished_run(runs_of_the_session: Callable[..., Path], tmp_path: Path) -> Train:
    """Copy a run that is trained once a session to below tmp_path, where `run_training` would have trained it."""

    def copy_run(*overrides: str, folder: str = "run") -> Path:
        return Path(shutil.copytree(runs_of_the_session(*overrides), tmp_path / folder))

    return copy_run


@pytest.fixture
def run_training(tmp_path: Path) -> Train:
    """Train into a folder below tmp_path and return that folder."""

    def run(*overrides: str, folder: str = "run") -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True, exist_ok=True)
        train.run(compose_train(*overrides), path, list(overrides))
        return path

    return run
