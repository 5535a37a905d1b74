"""Pair tables: CSV, JSONL or Parquet with columns point and counter; optional theme, debate, stance and split."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from negexp.corpus.arguments import Record
from negexp.corpus.limits import LONGEST_TEXT, Limits, check_length, decode
from negexp.errors import InputError

if TYPE_CHECKING:
    from pyarrow import RecordBatch

REQUIRED = ("point", "counter")
OPTIONAL = ("theme", "debate", "stance", "split")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
ROWS_AT_ONCE = 64  # of a Parquet table; a text has at most LONGEST_TEXT bytes

Row = tuple[str, dict[str, Any]]  # location (file:line or file:row N), cells


def read_pairs(path: Path, limits: Limits) -> list[Record]:
    """Read a pair table in the order of the file; `split` is None if the table has no such column.

    Raises
    ------
    InputError
        When the path is not a file, or the file has an unknown type, is too large or is not UTF-8; when a column is
        missing; when a cell is empty, too long, not a text or an unknown split (the message has the row).
    """
    rows, columns = read_rows(path, limits, "data.path", REQUIRED, OPTIONAL)
    numbers: Counter[str] = Counter()
    return [_record(location, cells, columns, numbers) for location, cells in rows]


def read_rows(
    path: Path, limits: Limits, key: str, required: Sequence[str], optional: Sequence[str]
) -> tuple[list[Row], list[str]]:
    """Return the rows of a table, and which of the columns it has. Cells are checked by `check_cell`.

    `key` is the one that names the file in a message.

    Raises
    ------
    InputError
        When the path is not a file, or the file has an unknown type, is too large, is not UTF-8, is empty or lacks a
        required column.
    """
    readers = {".csv": _csv_rows, ".jsonl": jsonl_rows, ".parquet": _parquet_rows}
    if path.suffix.lower() not in readers:
        raise InputError(f"{key}={path}: must end in .csv, .jsonl or .parquet")
    if not path.is_file():
        raise InputError(f"{key}={path}: is not a file; give a table with the columns {' and '.join(required)}")
    limits.check_bytes(path.stat().st_size, path)
    known = [*required, *optional]
    rows = list(_within(limits, path, readers[path.suffix.lower()](path, known)))
    if not rows:
        raise InputError(f"{key}={path}: holds no rows; write one {'pair' if 'point' in required else 'text'} per row")
    present = {column for _, cells in rows for column in cells}
    for column in required:
        if column not in present:
            raise InputError(f"{key}={path}: has no column {column!r}; found {', '.join(sorted(map(str, present)))}")
    return rows, [column for column in known if column in present]


def check_cell(value: Any, location: str) -> str:
    """Return a cell without white space around it, or raise `InputError` unless it is a text that can be used."""
    text = checked_text(value, location)
    if not text:
        raise InputError(f"{location} is empty; fill the cell or drop the row")
    return text


def checked_text(value: Any, location: str) -> str:
    """Return a cell as a text without white space around it, empty for null, or raise `InputError`."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{location}={value!r} is not a text; write it as a string")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{location} holds half of a surrogate pair; write the complete character")
    if "\0" in value:
        raise InputError(f"{location} holds a NUL character; remove it")
    check_length(len(value), location)
    return value.strip()


def titled_text(cells: Mapping[str, Any], location: str, titles: bool = True) -> str:
    """Return the title, a space and the text of a row; without `titles` the text alone. Empty if all of it is."""
    columns = ("title", "text") if titles else ("text",)
    return " ".join(checked_text(cells.get(name), f"{location}: {name}") for name in columns).strip()


def draw_splits(
    records: list[Record], validation_share: float, test_share: float, seed: int, path: Path
) -> list[Record]:
    """Return the records with random splits: whole debates if the table has debates, else single queries.

    Debates go to validation in random order until it has its share of the pairs, then to test, then to training.
    """
    groups: list[object] = [
        (record.query or row) if record.debate is None else (record.theme, record.debate)
        for row, record in enumerate(records)
    ]
    sizes = Counter(groups)
    if len(sizes) < 3:
        unit = "rows" if records[0].query is None else "different points"
        unit = unit if records[0].debate is None else "debates"
        raise InputError(f"data.path={path}: {len(sizes)} {unit} cannot make three splits; add pairs or a split column")
    order = [list(sizes)[i] for i in np.random.default_rng(seed).permutation(len(sizes))]
    names = {}
    for name, share in (("validation", validation_share), ("test", test_share)):
        taken = 0
        while taken == 0 or (taken < share * len(records) and len(order) > 2):
            group = order.pop()
            names[group] = name
            taken += sizes[group]
    return [replace(one, split=names.get(group, "train")) for one, group in zip(records, groups, strict=True)]


def _record(location: str, cells: dict[str, Any], columns: list[str], numbers: Counter[str]) -> Record:
    values = {column: check_cell(cells.get(column), f"{location}: {column}") for column in columns}
    split = values.get("split")
    if split is not None and split.lower() not in SPLIT_NAMES:
        raise InputError(f"{location}: split={split!r} is not known; use train, validation or test")
    stance = values.get("stance", "pair")
    folder = "/".join([values[column] for column in ("theme", "debate") if column in values] + [stance])
    numbers[folder] += 1
    return Record(
        values["point"],
        values["counter"],
        None if split is None else SPLIT_NAMES[split.lower()],
        values.get("theme"),
        values.get("debate"),
        values.get("stance"),
        id=f"{folder}{numbers[folder]:02d}",
    )


def _within(limits: Limits, path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    total = 0
    for location, cells in rows:
        total += sum(len(value) for value in cells.values() if isinstance(value, str))
        limits.check_bytes(total, path)
        yield location, cells


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(pairs)
    if len(cells) < len(pairs):
        raise ValueError("a key occurs twice")
    return cells


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_TEXT)  # the default of the csv module (131072) is too small for some arguments
    reader = csv.reader(io.StringIO(decode(path.read_bytes(), str(path)), newline=""), strict=True)
    try:
        header = next(reader, [])
        twice = [name for name, count in Counter(header).items() if count > 1]
        if twice:
            raise InputError(f"{path}:1: column {twice[0]!r} occurs twice in the header; rename one")
        line = reader.line_num + 1
        for cells in reader:
            if cells:  # skip blank lines
                if len(cells) != len(header):
                    raise InputError(
                        f"{path}:{line}: has {len(cells)} cells, the header {len(header)}; quote the commas"
                    )
                yield f"{path}:{line}", dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:  # also for a cell that does not end, most often after an open quote
        raise InputError(f"{path}:{reader.line_num}: {error}; check the quotes around this cell") from None


def jsonl_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the location and the object of each line, or raise `InputError`."""
    parse = json.JSONDecoder(object_pairs_hook=_unique_keys).decode  # `json.loads` would make a decoder for each line
    for number, line in enumerate(decode(path.read_bytes(), str(path)).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = parse(line)
        except (ValueError, RecursionError) as error:  # broken JSON, or a number with thousands of digits
            raise InputError(f"{path}:{number}: is not JSON ({error}); write one object per line") from None
        if not isinstance(cells, dict):
            raise InputError(f"{path}:{number}: is not a JSON object; write one object per line")
        yield f"{path}:{number}", cells


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        columns = [name for name in columns if name in names]
        twice = [name for name in columns if names.count(name) > 1]
        if twice:
            raise InputError(f"{path}: column {twice[0]!r} occurs twice; rename one")
        # Dictionaries keep a repeated text once in memory, as in the file: a small file cannot become a huge table.
        file = pq.ParquetFile(path, read_dictionary=columns)
        row = 0
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
            _check_texts(batch, f"{path}: rows {row} to {row + len(batch) - 1}")
            for cells in batch.to_pylist():
                yield f"{path}: row {row}", cells
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a cell is not UTF-8 ({error}); write the table again") from None


def _check_texts(batch: RecordBatch, location: str) -> None:
    """Raise `InputError` for columns that are not texts, and for texts that are too long."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        if pa.types.is_null(values.type):
            continue
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise InputError(f"{location}: {name} holds {values.type}, not text; write it as a string")
        check_length(pc.max(pc.binary_length(values)).as_py() or 0, f"{location}: {name}")
