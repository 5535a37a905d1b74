"""A run's folder: where each file is, and how it is written."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from negexp import __version__
from negexp.config import TrainConfig, to_yaml
from negexp.errors import InputError
from negexp.evaluation.metrics import Metrics, flatten, summarise
from negexp.tracking.files import write_bytes, write_csv, write_json, write_parquet

# what an epoch's seconds are counted by: `seconds_<phase>` in metrics.csv
PHASES = ("embed", "index", "sample", "train", "evaluate", "checkpoint")
PACKAGES = ("torch", "transformers", "tokenizers", "scikit-learn", "numpy", "pandas", "hydra-core")


class RunFolder:
    """The paths of a run and the writers of all its files but the checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.encoder = path / "encoder"
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.csv"
        self.negatives = path / "negatives"
        self.evaluation = path / "evaluation"
        self.result = path / "result.json"
        self._rows: list[dict[str, Any]] = []

    def refuse_a_run(self) -> None:
        """Raise `InputError` when the folder holds a run already."""
        if self.config.exists():
            state = "a finished run" if self.result.exists() else "an unfinished run"
            raise InputError(
                f"hydra.run.dir={self.path}: already holds {state}; give another folder "
                "(in a sweep: name=...), or move it away"
            )

    def create(self, config: TrainConfig) -> None:
        """Make the folders of a run and save its configuration."""
        self.refuse_a_run()
        for folder in (self.path, self.encoder, self.checkpoints, self.negatives, self.evaluation):
            folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.config, to_yaml(config).encode())

    def write_ledger(self, epoch: int, ledger: pd.DataFrame) -> None:
        """Write `negatives/epoch-NNN.parquet`."""
        write_parquet(self.negatives / f"epoch-{epoch:03d}.parquet", ledger)

    def append_metrics(self, row: dict[str, Any], scores: dict[str, Metrics]) -> None:
        """Add an epoch's row to metrics.csv; `scores` (split -> metrics) become `split/protocol/stage/task/metric`."""
        for split, metrics in scores.items():
            row = row | flatten(metrics, split)
        self._rows.append(row)
        write_csv(self.metrics, pd.DataFrame(self._rows))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json, the last file of a run."""
        write_json(self.result, {"status": "finished", **result})


def write_evaluation(folder: Path, split: str, ranks: pd.DataFrame) -> Metrics:
    """Write `<split>.json` and `<split>-ranks.parquet` into a folder, and return the metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = summarise(ranks)
    write_parquet(folder / f"{split}-ranks.parquet", ranks)
    write_json(folder / f"{split}.json", {"split": split, "metrics": metrics})
    return metrics


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = {name: version(name) for name in PACKAGES}
    return {"negexp": __version__, "python": platform.python_version(), **packages}
