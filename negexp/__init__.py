"""Experiments that show which negatives a dense retriever should see, and when.

`load_run` reads the folder of a run, in a notebook or a script; see negexp/notebook/README.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from negexp.notebook import load_run

__all__ = ["load_run"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for, and only then: every module of negexp imports this one."""
    if name == "load_run":
        from negexp.notebook import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
