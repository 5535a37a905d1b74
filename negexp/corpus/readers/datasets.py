"""A dataset of the library `datasets` (extra `datasets`): from the Hugging Face hub, or a local folder.

Tables only: Parquet, JSON, CSV and Arrow. No format that is loaded with pickle is read, and datasets cannot run code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negexp.components import Options, option
from negexp.config import DataConfig
from negexp.corpus.arguments import Record
from negexp.corpus.collection import Document
from negexp.corpus.limits import Limits
from negexp.corpus.reader import CorpusReader, Reading
from negexp.corpus.tables import SPLIT_NAMES, checked_text
from negexp.errors import InputError
from negexp.modules import is_installed
from negexp.nearest import did_you_mean

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
TABLES = ("arrow", "csv", "json", "parquet")  # modules of datasets.packaged_modules
METADATA = ("theme", "debate", "stance")


@dataclass
class ColumnOptions(Options):
    """The keys below `data.columns`: the column of the dataset for each part of a pair."""

    point: str = option("the column with the point, a text")
    counter: str = option("the column with the counter: a text, or a list of texts for several golds")
    document: str | None = option(
        "the column with further candidates: a text or a list of texts, e.g. negatives; null and empty ones are skipped"
    )
    theme: str | None = option("the column with the theme")
    debate: str | None = option("the column with the debate")
    stance: str | None = option("the column with the stance")


@dataclass
class DatasetsOptions(DataConfig):
    """The keys of `data=datasets`."""

    config: str | None = option("configuration of a dataset on the hub that has several")
    columns: ColumnOptions = option("which column of the dataset holds what")


class Datasets(CorpusReader):
    """The splits train, validation and test of a dataset; of a dataset with one split, splits are drawn."""

    Options = DatasetsOptions
    options: DatasetsOptions
    reads_only_path = True  # of a folder; what is on the hub has no stamp, and is read for each job
    wants = "a name on the Hugging Face hub, a folder of save_to_disk, or a folder of Parquet, JSON or CSV files"

    def check(self) -> None:
        """Raise `InputError` if the library is missing, or the path is neither a folder nor a name."""
        if not is_installed("datasets"):
            raise InputError("data=datasets: needs the library datasets; pip install 'negexp[datasets]'")
        if self.options.path is None:
            raise InputError(f"data.path: data=datasets needs data.path=... ({self.wants})")
        if not self.path.exists() and not HUB_NAME.fullmatch(self.options.path):
            raise InputError(f"data.path={self.options.path}: does not exist; give {self.wants}")
        if self.path.exists() and not self.path.is_dir():
            raise InputError(
                f"data.path={self.options.path}: is not a folder; use data=pairs for a file, or give {self.wants}"
            )

    def remedy(self, split: str) -> str:
        """Return what to do when the dataset has no row of a split that is needed."""
        return "give a dataset with the splits train, validation and test, or with one split, from which they are drawn"

    def read(self, limits: Limits) -> Reading:
        """Read the columns of all rows."""
        splits = self._splits()
        used = {name: SPLIT_NAMES[name.lower()] for name in splits if name.lower() in SPLIT_NAMES}
        if len(splits) == 1:
            used = dict.fromkeys(splits)  # type: ignore[assignment]
        if not used:
            raise InputError(
                f"data.path={self.options.path}: has the splits {', '.join(splits)}; rename them to train, validation "
                "and test"
            )
        rows = _Rows(self.options, limits)
        for name, split in used.items():
            rows.add(splits[name], name, split)
        ignored = sorted(set(splits) - set(used))
        return rows.reading(f"The splits {', '.join(ignored)} are not used." if ignored else "")

    def _splits(self) -> Mapping[str, Any]:
        """Return the dataset of each split, or raise `InputError` with the library's own message in one line."""
        import datasets

        try:
            if self.path.is_dir():
                saved = [file for name in ("dataset_dict.json", "state.json") if (file := self.path / name).is_file()]
                if saved:
                    _check_saved(self.path)
                    found = datasets.load_from_disk(str(self.path))
                    return found if isinstance(found, dict) else {"train": found}
            name = str(self.path) if self.path.is_dir() else str(self.options.path)
            builder = datasets.load_dataset_builder(name, self.options.config)
            self._check_builder(builder)
            builder.download_and_prepare()
            return dict(builder.as_dataset())
        except InputError:
            raise
        except Exception as error:  # the library raises errors of many kinds
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(f"data.path={self.options.path}: cannot be read as a dataset ({reason})") from None

    def _check_builder(self, builder: Any) -> None:
        """Raise `InputError` for other formats than tables, and for files outside a local folder."""
        kind = type(builder).__module__.removeprefix("datasets.packaged_modules.").split(".")[0]
        if kind not in TABLES:
            raise InputError(
                f"data.path={self.options.path}: holds {kind} data; only tables are read: Parquet, JSON, CSV, Arrow"
            )
        if self.path.is_dir():
            root = self.path.resolve()
            for file in (file for files in (builder.config.data_files or {}).values() for file in files):
                if not Path(file).resolve().is_relative_to(root):
                    raise InputError(f"data.path={self.options.path}: names {file}, outside the folder; remove it")


class _Rows:
    """The rows of a dataset, as pairs and documents. Rows with the same point are one query with several golds."""

    def __init__(self, options: DatasetsOptions, limits: Limits) -> None:
        self.options, self.limits, self.bytes = options, limits, 0
        self.records: list[Record] = []
        self.documents: dict[str, int] = {}  # text -> row
        self.gold: dict[tuple[str | None, str], int] = {}  # split and point -> row of the first counter
        self.several = options.columns.document is not None  # whether there are documents, or points with several golds

    def add(self, dataset: Any, name: str, split: str | None) -> None:
        """Add the rows of one split."""
        columns = {part: column for part, column in vars(self.options.columns).items() if column is not None}
        for part, column in columns.items():
            if column not in dataset.column_names:
                raise InputError(
                    f"data.columns.{part}={column}: split {name} of {self.options.path} has no such column, but "
                    f"{', '.join(dataset.column_names)}{did_you_mean(column, dataset.column_names)}"
                )
        rows = dataset.with_format(None).select_columns(list(dict.fromkeys(columns.values())))
        for number, cells in enumerate(rows):
            self._add_row(
                f"{self.options.path}: {name}, row {number}",
                {part: cells[column] for part, column in columns.items()},
                f"{name}/{number}",
                split,
            )

    def _add_row(self, location: str, cells: dict[str, Any], id_: str, split: str | None) -> None:
        point = self._text(cells["point"], location, "point")
        theme, debate, stance = (
            self._text(cells[part], location, part) if part in cells else None for part in METADATA
        )
        for counter in dict.fromkeys(self._texts(cells["counter"], location, "counter")):
            document = self.documents.setdefault(counter, len(self.documents))
            self.several |= self.gold.setdefault((split, point), document) != document
            self.records.append(Record(point, counter, split, theme, debate, stance, id_, point, document))
        for text in self._texts(cells.get("document", []), location, "document"):
            self.documents.setdefault(text, len(self.documents))

    def _texts(self, value: Any, location: str, part: str) -> Iterator[str]:
        """Yield the texts of a cell: of a list, or one."""
        values = value if isinstance(value, list) else [value]
        if not values and part == "counter":
            raise InputError(f"{location}: {self._column(part)} is an empty list; give a text, or drop the row")
        for one in values:
            if text := self._text(one, location, part):
                yield text

    def _text(self, value: Any, location: str, part: str) -> str:
        """Return a text; only a document may be null or empty."""
        text = checked_text(value, f"{location}: {self._column(part)}")
        if not text and part != "document":
            raise InputError(f"{location}: {self._column(part)} is empty; fill it or drop the row")
        self.bytes += len(text)
        self.limits.check_bytes(self.bytes, Path(str(self.options.path)))
        return text

    def _column(self, part: str) -> str:
        return str(getattr(self.options.columns, part))

    def reading(self, note: str) -> Reading:
        """Return all pairs; documents only if there are more than the pairs' counters, or several golds."""
        if not self.records:
            raise InputError(f"data.path={self.options.path}: holds no rows; give a dataset with one pair per row")
        documents = [Document(f"document-{row}", text) for text, row in self.documents.items()] if self.several else []
        return Reading(self.records, note=note, documents=documents)


def _check_saved(folder: Path) -> None:
    """Raise `InputError` if a folder of `save_to_disk` names files outside of it."""
    root = folder.resolve()
    for state in sorted(folder.rglob("state.json")):
        if not state.resolve().is_relative_to(root):
            raise InputError(f"{state}: is a link to a file outside the folder; do not trust it")
        for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]:
            if not (state.parent / entry["filename"]).resolve().is_relative_to(root):
                raise InputError(f"{state}: names {entry['filename']}, outside the folder; do not trust it")
    names = folder / "dataset_dict.json"
    for name in json.loads(names.read_text(encoding="utf-8"))["splits"] if names.is_file() else []:
        if not (folder / name).resolve().is_relative_to(root):
            raise InputError(f"{names}: names {name}, outside the folder; do not trust it")
