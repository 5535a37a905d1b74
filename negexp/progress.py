"""Progress bars that stay out of logs."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress_bar(total: int, description: str, unit: str, mode: str) -> tqdm[Any]:
    """Return a bar on stderr: `auto` shows it on a terminal only, `always` and `never` say so; it leaves no line."""
    disable = {"auto": None, "always": False, "never": True}[mode]
    return tqdm(total=total, desc=description, unit=unit, disable=disable, leave=False, dynamic_ncols=True)
