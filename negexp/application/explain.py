"""Hydra's errors in one line, with the name that was probably meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hydra.errors import MissingConfigException

from negexp.components import KINDS, names
from negexp.nearest import did_you_mean, nearest_key

WRONG_KEY = re.compile(r"Could not override '(.+?)'|'(.+?)' does not exist")


def explain(error: Exception, known: Callable[[str], Mapping[str, Any]] = lambda wrong: {}) -> str:
    """Return an error of Hydra or OmegaConf, and the first line of its cause, in one line.

    `known` returns the nested keys that there are, for a wrong one.
    """
    lines = str(error).split("\n")
    kept = [line for line in lines if not line.startswith(("Config search path", "\tprovider=", "To append to"))]
    cause = str(error.__cause__ or "").split("\n", 1)[0]
    if cause and cause not in str(error):
        kept.append(cause)
    message = " ".join(" ".join(kept).split())
    if "hydra/launcher/joblib" in message:
        return f"{message}; it comes with negexp's extra `joblib`: pip install '.[joblib]'"
    hint = "" if "Did you mean" in message else _suggestion(error, known)
    if not hint and "is not in struct" in message:
        hint = "; --cfg job lists the keys there are"
    return message.removesuffix(".") + hint if hint else message


def _suggestion(error: Exception, known: Callable[[str], Mapping[str, Any]]) -> str:
    if isinstance(error, MissingConfigException):
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        options = error.options or (names(group) if group in KINDS else [])  # Hydra has none for a list of names
        return did_you_mean(option, options, f"{group}=")
    found = WRONG_KEY.search(str(error))
    if found is None:
        return ""
    wrong = found[1] or found[2]
    near = nearest_key(wrong, known(wrong))
    return f"; did you mean {near}?" if near else ""
