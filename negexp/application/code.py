"""Refuses a configuration that names code to run, other than Hydra's own parts and its plugins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from negexp.errors import InputError

PLUGINS = "hydra_plugins."  # the namespace of installed launchers and sweepers
CALLABLE = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra.experimental.callbacks.LogJobReturnCallback",
    "logging.Formatter",
    "logging.StreamHandler",
    "logging.FileHandler",
    "colorlog.ColoredFormatter",
}
NODES = ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging")  # where Hydra calls what a value names
# a text with references in it stays a text; any other ${} could become a mapping that names code. Hydra types the name
# of a job, to which submitit's launchers refer, as a text
TEXT_WITH_REFERENCES = re.compile(r"\$\{hydra\.job\.name\}|(?!\$\{[\w.]+\}$)([^$]|\$\{[\w.]+\})*")
# launchers run these, or can be made to: lines of a batch script, options of sbatch, the environment of Ray's processes
COMMANDS = re.compile(r"hydra\.launcher\.(setup|additional_parameters|ray\.(init|remote)\.runtime_env)\b")


def refuse_code(hydra: DictConfig, overrides: Sequence[str]) -> None:
    """Raise `InputError` when Hydra's own part of a configuration names other code.

    An overlay may come from a stranger, and Hydra calls whatever `_target_` names. Python's logging does the same with
    `()` and `class`. Launchers run commands; only `overrides`, which the user gives, may name these.
    """
    for node in NODES:
        for key, value in _leaves(OmegaConf.to_container(hydra, resolve=False)[node], f"hydra.{node}"):  # type: ignore[index, call-overload]
            names_code = key.endswith(("._target_", ".()", ".class"))
            allowed = value in CALLABLE or str(value).startswith(PLUGINS)
            if names_code and not allowed:
                raise InputError(f"{key}={value}: names code to run, which no configuration may do; remove it")
            if isinstance(value, str) and not TEXT_WITH_REFERENCES.fullmatch(value):
                raise InputError(f"{key}={value}: could come to name code to run; write the value itself")
    _refuse_commands(hydra, [override.lstrip("+~").partition("=")[0] for override in overrides])


def _refuse_commands(hydra: DictConfig, given: Sequence[str]) -> None:
    launcher = OmegaConf.to_container(hydra.launcher, resolve=True)
    for key, value in _leaves(launcher, "hydra.launcher"):
        by_user = any(re.match(rf"{re.escape(name)}(?![\w-])", key) for name in given)
        if COMMANDS.match(key) and value is not None and not by_user:
            raise InputError(f"{key}={value}: a launcher may run it; give {key} on the command line, or remove it")
        if "\n" in str(value):  # each would be a line of its own in a batch script
            raise InputError(f"{key}={value!r}: has several lines; write one")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield every value that is no collection, under its dotted key."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves(child, f"{key}.{name}")
    elif isinstance(value, list):
        for place, child in enumerate(value):
            yield from _leaves(child, f"{key}[{place}]")
    else:
        yield key, value
