"""Progress bars on stderr."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress_bar(total: int, description: str, unit: str, mode: str) -> tqdm[Any]:
    """Return a bar on stderr: shown `always`, `never`, or (`auto`) on a terminal only; it is erased at the end."""
    disable = {"auto": None, "always": False, "never": True}[mode]
    return tqdm(total=total, desc=description, unit=unit, disable=disable, leave=False, dynamic_ncols=True)
