"""A run as its folder shows it: configuration, tables, best epoch, and whether it is finished.

Reports, `negexp runs` and notebooks read the tables of a run through this module. Nothing is written, torch is not
needed, and the folder may come from a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from negexp.config import TrainConfig, load_run_config
from negexp.corpus import SPLITS
from negexp.errors import InputError
from negexp.evaluation.metrics import NDCG, RANK_COLUMNS
from negexp.evaluation.monitor import Monitor
from negexp.tracking.ledger import LEDGER_COLUMNS
from negexp.tracking.reading import read_csv, read_json, read_parquet
from negexp.tracking.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

LEDGER = re.compile(r"epoch-(\d{3,9})(?:-step-(\d{5,9}))?\.parquet")

State = Literal["finished", "running", "stopped"]


class Best(NamedTuple):
    """The best committed epoch of a run, and its value of `trainer.monitor` on validation."""

    epoch: int
    value: float


def best_of(values: pd.Series) -> Best | None:
    """Return the first epoch with the highest of some values by epoch (epochs,). None without a value."""
    known = values.dropna()
    if known.empty:
        return None
    place = int(known.to_numpy().argmax())
    return Best(int(known.index.to_numpy()[place]), float(known.iloc[place]))


@dataclass(frozen=True)
class StoredRun:
    """A run in its folder.

    Tables are read each time, so those of an unfinished run grow. What cannot be read raises `InputError`, in one line.
    """

    folder: Path
    config: TrainConfig

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Return the run of a folder that `negexp train` wrote.

        Raises
        ------
        InputError
            When the folder has no config.yaml that this version reads.
        """
        path = Path(folder).expanduser()
        return cls(path, load_run_config(RunFolder(path).config))

    @property
    def files(self) -> RunFolder:
        """Return the paths of the run."""
        return RunFolder(self.folder)

    @property
    def name(self) -> str:
        """Return the key `name` of the run."""
        return self.config.name

    @property
    def state(self) -> State:
        """Return `finished`, `running` (a process writes the folder), or `stopped`; the same command goes on then."""
        if self.files.result.exists():
            return "finished"
        if self.files.is_locked():
            return "running"
        return "finished" if self.files.result.exists() else "stopped"  # it may have ended in this moment

    @property
    def monitor(self) -> Monitor:
        """Return the validation metric that chooses the best epoch."""
        return Monitor.parse(self.config.trainer.monitor)

    @property
    def result(self) -> dict[str, Any]:
        """Return the contents of result.json, which only finished runs have."""
        return read_json(self.files.result, self.folder)

    @property
    def metrics(self) -> pd.DataFrame:
        """Return metrics.csv: a row for each committed epoch. Without rows before the first commit."""
        import pandas as pd

        if not self.files.metrics.exists() and not self.files.result.exists():
            return pd.DataFrame({"epoch": pd.Series(dtype="int64")})
        return read_csv(self.files.metrics, self.folder)

    def validation(self) -> pd.Series:
        """Return the monitored validation metric by epoch, of the committed epochs (epochs,).

        Raises
        ------
        InputError
            When metrics.csv is damaged.
        """
        import pandas as pd

        table, column = self.metrics, self.monitor.column("validation")
        if table.empty:
            return pd.Series(dtype="float64")
        for name in ("epoch", column):
            if name not in table or not pd.api.types.is_numeric_dtype(table[name]):
                raise InputError(f"{self.files.metrics}: has no numbers in the column {name}; it is damaged")
        return table.set_index("epoch")[column]

    def best(self) -> Best | None:
        """Return the best epoch so far: the first one with the highest value. None before the first commit."""
        return best_of(self.validation())

    def negatives(self, epoch: int) -> pd.DataFrame:
        """Return the ledger of an epoch: a row for each pair and negative, see outputs/README.md.

        The column `step` is the optimizer step of the epoch before which the negatives were sampled: 0, and more with
        `sampler.refresh.steps`. The epoch that a run is in has a ledger before it has a row in `metrics`. Negatives
        that `sampler.refresh.drift` kept at the start of the epoch are those of the last refresh before.

        Raises
        ------
        InputError
            When the run has no ledger of this epoch.
        """
        import pandas as pd

        found = {(number, step): path for number, step, path in self._ledgers()}
        own = {step: path for (number, step), path in found.items() if number == epoch}
        earlier = max((place for place in found if place < (epoch, 0)), default=None)
        if earlier is not None and self._kept(epoch):
            own[0] = found[earlier]
        if not own:
            epochs = sorted({number for number, _ in found})
            there = f"it has those of the epochs {epochs[0]} to {epochs[-1]}" if epochs else "it has none of any epoch"
            off = "" if self.config.tracker.ledger else " (tracker.ledger=false)"
            raise InputError(f"{self.files.negatives}: has no negatives of epoch {epoch}; {there}{off}")
        tables = [read_parquet(own[step], self.folder, LEDGER_COLUMNS) for step in sorted(own)]
        for step, table in zip(sorted(own), tables, strict=True):
            table.insert(0, "step", step)
        return pd.concat(tables, ignore_index=True)

    def ranks(self, split: str) -> pd.DataFrame:
        """Return the ranks of the gold counters, a row for each query, protocol, stage and task; see outputs/README.md.

        Parameters
        ----------
        split
            `test` or `validation`. Both are ranked once, at the end of the run, with its best epoch.

        Raises
        ------
        InputError
            When there is no such split, or the run has not ranked it yet.
        """
        if split not in SPLITS:
            raise InputError(f"split={split}: no such split; choose from {', '.join(SPLITS)}")
        return read_parquet(self.files.evaluation / f"{split}-ranks.parquet", self.folder, [*RANK_COLUMNS, NDCG])

    def _kept(self, epoch: int) -> bool:
        """Return whether drift kept the negatives at the start of a committed epoch."""
        if not self.files.refreshes.exists():
            return False
        table = read_csv(self.files.refreshes, self.folder)
        if "refreshed" not in table:
            return False
        return bool(table.query("epoch == @epoch and step == 0")["refreshed"].eq(0).any())

    def _ledgers(self) -> Iterator[tuple[int, int, Path]]:
        """Yield epoch, step and path of each file of the ledger."""
        for path in self.files.negatives.glob("epoch-*.parquet"):
            match = LEDGER.fullmatch(path.name)
            if match is not None:
                yield int(match[1]), int(match[2] or 0), path
