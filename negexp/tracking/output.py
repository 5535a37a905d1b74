"""The output folder of a command: what can be said about it before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from negexp.errors import InputError


def check_output_folder(path: Path) -> None:
    """Raise `InputError` unless a folder can be made at `path`, or an empty one is there."""
    if path.is_symlink():
        raise InputError(f"output={path}: is a link; give the folder that it points to")
    if path.resolve() == Path.cwd():
        raise InputError(f"output={path}: is the current folder; give a new one in it, as in output=new")
    if path.exists() and not path.is_dir():
        raise InputError(f"output={path}: is a file; give a folder")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"output={path}: holds something already; give another folder, or remove this one")
