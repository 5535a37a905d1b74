"""What can be said about an export before anything is loaded: its run, its place on the hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import get_token

from negexp.config import load_run_config
from negexp.errors import InputError
from negexp.tracking import RunFolder

PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
HUB_NAME = re.compile(rf"(?!.*(?:--|\.\.|\.git$)){PART}/{PART}", re.ASCII)
LONGEST_HUB_NAME = 96


def is_hub_name(name: str) -> bool:
    """Return whether the hub accepts a name as ORGANISATION/NAME.

    >>> [is_hub_name(name) for name in ("my-lab/counters", "counters", "a/b/c", "../b", "a/b--c", "~/b")]
    [True, False, False, False, False, False]
    """
    return len(name) <= LONGEST_HUB_NAME and HUB_NAME.fullmatch(name) is not None


def check_run(path: Path) -> None:
    """Raise `InputError` unless the folder is that of a finished run."""
    run = RunFolder(path)
    load_run_config(run.config)
    if not run.result.exists():
        raise InputError(
            f"run={path}: has no result.json, so it is unfinished; give its command to negexp train again to finish it"
        )


def check_hub(name: str) -> None:
    """Raise `InputError` unless `name` is ORGANISATION/NAME and this machine has a token of the hub."""
    if not is_hub_name(name):
        raise InputError(
            f"hub={name}: is no ORGANISATION/NAME, of letters, digits, - _ and .; as in hub=my-lab/counters"
        )
    if get_token() is None:
        raise InputError(
            f"hub={name}: this machine has no token of the hub; run `hf auth login`, or set HF_TOKEN; a token "
            "never stands in a configuration"
        )
