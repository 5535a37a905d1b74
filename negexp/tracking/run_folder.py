"""The folder of a run: the paths of its files, their writers, and the lock."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from negexp import __version__
from negexp.config import TrainConfig, to_yaml
from negexp.errors import InputError
from negexp.evaluation.metrics import Metrics, summarise
from negexp.tracking.files import (
    make_folder,
    new_folder,
    remove_file,
    remove_folder,
    write_bytes,
    write_csv,
    write_json,
    write_parquet,
)

if TYPE_CHECKING:
    import pandas as pd

# the phases of an epoch, with their times in the columns `seconds_<phase>` of metrics.csv
PHASES = ("embed", "index", "sample", "train", "evaluate", "checkpoint")
LONGEST_CHECK = 0.2  # seconds that `is_locked` of another process may hold a lock; it takes microseconds
PACKAGE = Path(__file__).parent.parent
PACKAGES = ("torch", "transformers", "tokenizers", "scikit-learn", "numpy", "pandas", "hydra-core")


class RunFolder:
    """The paths of a run, and the writers of all its files except the checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.encoder = path / "encoder"
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.csv"
        self.refreshes = path / "refreshes.csv"
        self.negatives = path / "negatives"
        self.evaluation = path / "evaluation"
        self.profile = path / "profile"
        self.reranker = path / "reranker"  # commits of the cross-encoder
        self.search = path / "search"  # embeddings that `negexp search` keeps
        self.reranker_table = path / "reranker.csv"
        self.trackers = path / "trackers"  # what trackers need to go on
        self.folders = (
            *(self.encoder, self.checkpoints, self.negatives, self.evaluation, self.profile, self.reranker),
            self.trackers,
        )
        self.result = path / "result.json"
        self.lock = path / ".lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock this folder against other writers. The system frees the lock when the process dies.

        Raises
        ------
        InputError
            When another process is writing into the folder.
        """
        make_folder(self.path)
        for part in self.folders:
            if part.is_symlink():
                raise InputError(
                    f"{part}: is a link; nothing is written outside of a run's folder; replace the link by a folder"
                )
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=LONGEST_CHECK, poll_interval=0.02)
        except Timeout:
            raise InputError(
                f"hydra.run.dir={self.path}: another process is writing this run; wait for it, or give another folder"
            ) from None
        except OSError as error:
            raise InputError(f"hydra.run.dir={self.path}: cannot be written ({error.strerror})") from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Return whether a process is writing into this folder. This writes nothing; only POSIX systems can tell."""
        if os.name != "posix":
            return False
        import fcntl

        try:
            handle = os.open(self.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # it may be a link or a pipe
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(handle)  # frees the lock
        return False

    def create(self, config: TrainConfig, save_encoder: Callable[[Path], None]) -> None:
        """Start a run: save its configuration, remove the remains of an uncommitted attempt, save the encoder."""
        self.save_config(config)  # first, because it marks the folder as a run
        for folder in (self.negatives, self.evaluation):
            remove_folder(folder)
            make_folder(folder)
        make_folder(self.checkpoints)
        remove_folder(self.profile)
        remove_folder(self.reranker)
        remove_folder(self.search)
        remove_file(self.reranker_table)
        remove_file(self.metrics)
        remove_file(self.refreshes)
        with new_folder(self.encoder) as temporary:
            save_encoder(temporary)

    def foreign(self) -> list[str]:
        """Return existing files and folders that a run would overwrite; without a config.yaml they are not a run's."""
        found = [folder.name for folder in self.folders if folder.is_dir() and any(folder.iterdir())]
        return found + [file.name for file in (self.metrics, self.refreshes, self.result) if file.exists()]

    def save_config(self, config: TrainConfig) -> None:
        """Write `config.yaml`."""
        write_bytes(self.config, to_yaml(config).encode())

    def batch_losses(self, epoch: int) -> Path:
        """Return the path of the losses of an epoch's batches, which trackers are told."""
        return self.trackers / f"epoch-{epoch:03d}.json"

    def write_ledger(self, epoch: int, step: int, ledger: pd.DataFrame) -> None:
        """Write `negatives/epoch-NNN.parquet`, or `epoch-NNN-step-NNNNN.parquet` for a later refresh in the epoch."""
        name = f"epoch-{epoch:03d}-step-{step:05d}" if step else f"epoch-{epoch:03d}"
        write_parquet(self.negatives / f"{name}.parquet", ledger)

    def write_metrics(self, epochs: list[dict[str, Any]], refreshes: list[dict[str, Any]]) -> None:
        """Write all committed rows to metrics.csv and refreshes.csv."""
        import pandas as pd

        write_csv(self.metrics, pd.DataFrame(epochs))
        write_csv(self.refreshes, pd.DataFrame(refreshes))

    def write_reranker(self, epochs: list[dict[str, Any]]) -> None:
        """Write the committed epochs of the cross-encoder to reranker.csv."""
        import pandas as pd

        write_csv(self.reranker_table, pd.DataFrame(epochs))

    def write_profile(self, phases: pd.DataFrame, operators: pd.DataFrame) -> None:
        """Write `profile/phases.csv` and `profile/operators.csv`."""
        make_folder(self.profile)
        write_csv(self.profile / "phases.csv", phases)
        write_csv(self.profile / "operators.csv", operators)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json, the last file of a run."""
        write_json(self.result, {"status": "finished", **result})


def write_evaluation(folder: Path, split: str, ranks: pd.DataFrame) -> Metrics:
    """Write `<split>.json` and `<split>-ranks.parquet` into a folder, and return the metrics."""
    make_folder(folder)
    metrics = summarise(ranks)
    write_parquet(folder / f"{split}-ranks.parquet", ranks)
    write_json(folder / f"{split}.json", {"split": split, "metrics": metrics})
    return metrics


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    return {"negexp": f"{__version__} ({_code()})", "python": platform.python_version(), **_packages()}


@cache
def _packages() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


@cache
def _code() -> str:
    """Return a digest of negexp's own code, because the version number of a working copy says little."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:8]
