"""Hydra's errors in one line, with the name that was probably meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.errors import MissingConfigException

from negexp.components import KINDS, names
from negexp.components.declared import who_has
from negexp.nearest import did_you_mean, nearest_key

GUESS = re.compile(r"(?P<said>.*'\S+?@(?P<above>\S+)\.(?P<key>\S+)'\.) Did you mean to override (?P<guess>\S+)\?")
LAUNCHER = re.compile(r"hydra/launcher/(joblib|ray|submitit)(?:_local|_slurm)?\b")
WRONG_KEY = re.compile(r"Could not override '(.+?)'|'(.+?)' does not exist")


def explain(
    error: Exception, known: Callable[[str], Mapping[str, Any]] = lambda wrong: {}, overrides: Sequence[str] = ()
) -> str:
    """Return an error of Hydra or OmegaConf, and the first line of its cause, in one line.

    `known` returns the nested keys that there are, for a wrong one; `overrides` are those of the command line.
    """
    lines = str(error).split("\n")
    kept = [line for line in lines if not line.startswith(("Config search path", "\tprovider=", "To append to"))]
    cause = str(error.__cause__ or "").split("\n", 1)[0]
    if cause and cause not in str(error):
        kept.append(cause)
    message = " ".join(" ".join(kept).split())
    launcher = LAUNCHER.search(message)
    if launcher is not None:
        return f"{message}; it comes with negexp's extra `{launcher[1]}`: pip install '.[{launcher[1]}]'"
    message = _without_a_far_guess(message)
    hint = "" if "Did you mean" in message else _suggestion(error, known, overrides)
    if not hint and "is not in struct" in message:
        hint = "; --cfg job lists the keys there are"
    if not hint and "No match in the defaults list" in message:
        hint = "; --help lists the groups there are"
    return message.removesuffix(".") + hint if hint else message


def _suggestion(error: Exception, known: Callable[[str], Mapping[str, Any]], overrides: Sequence[str]) -> str:
    if isinstance(error, MissingConfigException):
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        options = error.options or (names(group) if group in KINDS else [])  # Hydra has none for a list of names
        hint = did_you_mean(option, options, f"{_as_given(group, option, overrides)}=")
        key = None if hint else nearest_key(group, known(group))  # the key of that name, if it is elsewhere too
        return f"; did you mean {key}={option}?" if key is not None and "." in key else hint
    found = WRONG_KEY.search(str(error))
    if found is None:
        return ""
    wrong = found[1] or found[2]
    above, _, key = wrong.replace("@", ".").rpartition(".")
    near = nearest_key(wrong, known(wrong))
    if near is None or near.rpartition(".")[2] != key:
        belongs = who_has(above.rpartition(".")[2], key)
        if belongs:
            return belongs
    return f"; did you mean {near}?" if near else ""


def _without_a_far_guess(message: str) -> str:
    """Cut Hydra's guess of another place for a group, where the key of the wrong place belongs to a component."""
    found = GUESS.fullmatch(message)
    if found is None:
        return message
    above, key, guess = found["above"], found["key"], found["guess"]
    near = guess.replace("@", ".").rpartition(".")[2] == key or not who_has(above.rpartition(".")[2], key)
    return message if near else found["said"]


def _as_given(group: str, option: str, overrides: Sequence[str]) -> str:
    """Return a group with the place that the command line gave it, as in `schedule@loss.hardness`."""
    given = [override.lstrip("+").partition("=") for override in overrides]
    places = [key for key, _, value in given if key.partition("@")[0] == group and option in value.split(",")]
    return places[0] if places else group
