"""Another package, installed for a test: its components are found as those of a package that pip installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def installed(package: str, files: Mapping[str, str], entry_points: str, folder: Path) -> Iterator[Path]:
    """Install a package below `folder`; within, it can be imported, and an empty folder is the working directory.

    `files` are named below the package, `entry_points` is the text of entry_points.txt.
    """
    site, work = folder / "site", folder / "work"
    for name, content in {"__init__.py": "", **files}.items():
        (path := site / package / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (info := site / f"{package}-1.dist-info").mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(entry_points)
    work.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.chdir(work)
        yield work
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[module]
