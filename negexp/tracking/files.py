"""Write files and folders atomically: temporary name, flush, fsync, rename, fsync of the folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negexp.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def _nothing(operation: str, path: Path) -> None:
    pass


# Called before every file operation of a run: `write`, `sync`, `rename`, `sync folder`, `remove`. Tests replace it with
# a function that kills the process, fails, or inspects the folder at that moment.
before_operation: Callable[[str, Path], None] = _nothing


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Raises
    ------
    InputError
        When the system refuses, for example because the disk is full. The earlier file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with _explained(path):
        try:
            before_operation("write", temporary)
            temporary.unlink(missing_ok=True)
            with open(temporary, "xb") as file:  # x: does not follow a link that already exists there
                file.write(data)
                file.flush()
                before_operation("sync", temporary)
                os.fsync(file.fileno())
            before_operation("rename", path)
            os.replace(temporary, path)
        except Exception:
            temporary.unlink(missing_ok=True)  # otherwise a full disk stays full
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically. NaN and infinity are defects and raise ValueError."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as CSV, atomically. Floats keep all digits."""
    write_bytes(path, frame.to_csv(index=False).encode())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill. On success it replaces `path`; on failure it is removed."""
    temporary = start_folder(path)
    with filling(temporary):
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                sync_file(file)
    finish_folder(temporary, path)


def start_folder(path: Path) -> Path:
    """Make the empty temporary folder that will become `path`."""
    temporary = path.with_name(f".{path.name}.tmp")
    with _explained(path):
        remove_folder(temporary)
        before_operation("write", temporary)
        temporary.mkdir(parents=True)
    return temporary


@contextmanager
def filling(temporary: Path) -> Iterator[None]:
    """Remove a temporary folder when filling it fails. Otherwise a full disk stays full."""
    with _explained(temporary):
        try:
            yield
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def finish_folder(temporary: Path, path: Path) -> None:
    """Rename a temporary folder, whose files are synced, to `path`. An earlier folder there is removed."""
    with filling(temporary):
        sync_folder(temporary)
        remove_folder(path)
        rename_folder(temporary, path)


def rename_folder(path: Path, target: Path) -> None:
    """Rename a folder within its parent folder, and sync the parent folder."""
    with _explained(path):
        before_operation("rename", target)
        os.replace(path, target)
        sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder if it exists, and the hidden remains of an earlier removal that was killed."""
    doomed = path if path.name.startswith(".") else path.with_name(f".{path.name}.old")
    if doomed != path:
        remove_folder(doomed)
    if not path.exists():
        return
    with _explained(path):
        if doomed != path:
            before_operation("rename", doomed)
            os.replace(path, doomed)
        before_operation("remove", doomed)
        shutil.rmtree(doomed)


def remove_file(path: Path) -> None:
    """Remove a file if it exists, and sync its folder."""
    with _explained(path):
        before_operation("remove", path)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Sync a file that another library wrote, so that it survives a power cut."""
    before_operation("sync", path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and its parents, and sync its parent folder."""
    with _explained(path):
        before_operation("write", path)
        path.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it survives a power cut. Only POSIX systems can do this."""
    if os.name != "posix":
        return
    with _explained(folder):
        before_operation("sync folder", folder)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def shown(path: Path) -> str:
    """Return a path as it is printed: relative to the working folder where it lies below it."""
    here, path = Path.cwd(), path.absolute()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn a system error about writing into a one-line `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:
        code = re.search(r"\(os error (\d+)\)", str(error))  # safetensors passes on system errors in this form
        if code is None:
            raise
        reason = os.strerror(int(code[1]))
    else:
        return
    raise InputError(
        f"{path}: cannot be written ({reason}); all complete files are unchanged. Free space or repair the disk, then "
        "run the same command on the same folder again"
    )
