"""Where modules are, found without importing them, and imports that are kept from finding one."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def modules_of(package: str) -> list[str]:
    """Return the names of the public modules in one of negexp's packages, sorted."""
    spec = find_spec(package)
    assert spec is not None
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it.

    >>> is_installed("numpy"), is_installed("no_such_package")
    (True, False)
    """
    spec = find_spec(package)
    return spec is not None and spec.origin is not None  # without an origin: a folder of that name in the present one


def source_of(module: str) -> Path | None:
    """Return the source file of a module in any package, or None where there is none. Nothing is imported.

    >>> source_of("negexp.losses.triplet").name
    'triplet.py'
    >>> source_of("negexp.losses").parent.name
    'losses'
    """
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)  # of a top-level module: this imports nothing
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest and spec.origin is not None:
        return Path(spec.origin) if spec.origin.endswith(".py") else None
    for place in spec.submodule_search_locations or []:
        for path in (Path(place, *rest).with_suffix(".py"), Path(place, *rest, "__init__.py")):
            if path.is_file():
                return path
    return None


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Let imports in a block fail to find a package, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
