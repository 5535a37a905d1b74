"""Queries and documents from a file: a table with the column `text`, or a text a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from negexp.corpus.limits import Limits, decode
from negexp.corpus.tables import Row, check_cell, read_rows, titled_text
from negexp.errors import InputError

IDS = ("id", "_id")  # `_id`: in the files of BEIR
METADATA = ("theme", "debate", "stance")


class Texts(NamedTuple):
    """Texts of a file, their ids, and their metadata: name -> a value for each text, None where it has none."""

    ids: list[str]
    texts: list[str]
    metadata: dict[str, list[str | None]]


def read_texts(path: Path, key: str, limits: Limits) -> Texts:
    """Read the texts of a file, in its order; `key` is the one that names it.

    A text without an id has the number of its row as its id, from 1; in a .txt file, the number of its line. A title
    stands before the text, as in BEIR.

    Raises
    ------
    InputError
        When the file cannot be read, or a row has neither title nor text, or the id of an earlier row (the message has
        the line).
    """
    if path.suffix.lower() == ".txt":
        rows, columns = _lines(path, key, limits), ["text", "id"]
    else:
        rows, columns = read_rows(path, limits, key, ("text",), (*IDS, "title", *METADATA))
    ids = _ids(rows, next((column for column in IDS if column in columns), None))
    texts = [titled_text(cells, location) for location, cells in rows]
    for (location, _), text in zip(rows, texts, strict=True):
        if not text:
            raise InputError(f"{location}: text is empty; fill the cell or drop the row")
    return Texts(ids, texts, {name: [_cell(row, name) for row in rows] for name in METADATA if name in columns})


def check_file(path: Path, key: str) -> None:
    """Raise `InputError` unless there is a file whose name ends as one of texts."""
    if path.suffix.lower() not in (".csv", ".jsonl", ".parquet", ".txt"):
        raise InputError(f"{key}={path}: must end in .csv, .jsonl, .parquet or .txt")
    if not path.is_file():
        raise InputError(f"{key}={path}: is not a file; give a table with the column text, or .txt with a text a line")


def _lines(path: Path, key: str, limits: Limits) -> list[Row]:
    try:
        limits.check_bytes(path.stat().st_size, path)
        lines = decode(path.read_bytes(), str(path)).split("\n")
    except OSError as error:
        raise InputError(f"{key}={path}: cannot be read ({error.strerror})") from None
    rows: list[Row] = [
        (f"{path}:{number}", {"text": line, "id": str(number)}) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not rows:
        raise InputError(f"{key}={path}: holds no text; write one a line")
    return rows


def _ids(rows: Sequence[Row], column: str | None) -> list[str]:
    if column is None:
        return [str(number) for number in range(1, len(rows) + 1)]
    place: dict[str, str] = {}
    for location, cells in rows:
        id_ = check_cell(cells.get(column), f"{location}: {column}")
        if id_ in place:
            raise InputError(f"{location}: {column}={id_} is that of {place[id_]} too; give each text an id of its own")
        place[id_] = location
    return list(place)


def _cell(row: Row, column: str) -> str | None:
    """Return a cell that may be empty."""
    location, cells = row
    value: Any = cells.get(column)
    empty = value is None or (isinstance(value, str) and not value.strip())
    return None if empty else check_cell(value, f"{location}: {column}")
