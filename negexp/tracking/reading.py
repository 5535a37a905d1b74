"""Read the files of a run, which may come from a stranger: with size limits, inside the run's folder, without code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negexp.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LARGEST_TEXT = 256 * 2**20  # bytes of a JSON or CSV file; 200 epochs of ArguAna need a hundredth of this
LARGEST_TABLE = 2 * 2**30  # bytes of an unpacked Parquet table; a million queries need a fifth of this


def own_file(path: Path, folder: Path) -> Path:
    """Return `path` if it is a regular file inside the run's `folder`, after following links.

    Raises
    ------
    InputError
        When the file is missing, lies elsewhere, or is not a regular file (reading a device or a pipe may never end).
    """
    if not path.exists():
        raise InputError(f"{path}: not found; the run has not reached this point, or its folder is damaged")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{path}: is a link out of the run's folder; such links are not read")
    if not path.is_file():
        raise InputError(f"{path}: is not a regular file")
    return path


def read_json(path: Path, folder: Path) -> dict[str, Any]:
    """Return the JSON object of a file inside a run's folder, or raise `InputError`."""
    _check_size(own_file(path, folder))
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: does not contain a JSON object")
    return value


def read_csv(path: Path, folder: Path) -> pd.DataFrame:
    """Return the table of a CSV file inside a run's folder, or raise `InputError`."""
    import pandas as pd

    _check_size(own_file(path, folder))
    try:
        return pd.read_csv(path)
    except (OSError, ValueError, OverflowError) as error:  # errors of the CSV reader and of UTF-8 are ValueErrors
        raise InputError(f"{path}: cannot be read ({error})") from None


def read_parquet(path: Path, folder: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return those of the given columns that a Parquet file inside a run's folder has, or raise `InputError`."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    own_file(path, folder)
    try:
        file = pq.ParquetFile(path)
        rows, groups = file.metadata.num_rows, range(file.metadata.num_row_groups)
        size = sum(file.metadata.row_group(group).total_byte_size for group in groups)
        if max(size, 8 * rows * len(columns)) > LARGEST_TABLE:
            raise InputError(f"{path}: has {rows} rows; no run writes such a file")
        names = [column for column in columns if file.schema_arrow.names.count(column) == 1]
        # repeated texts stay shared in memory, otherwise a small file could become a huge table
        text = [name for name in names if _is_text(file.schema_arrow.field(name).type)]
        table = pq.ParquetFile(path, read_dictionary=text).read(columns=names)
        return pd.DataFrame(table.to_pandas(ignore_metadata=True))
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _check_size(path: Path) -> None:
    if path.stat().st_size > LARGEST_TEXT:
        raise InputError(f"{path}: is larger than {LARGEST_TEXT} bytes; no run writes such a file")


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
