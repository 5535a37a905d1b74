"""What a command is, and which commands there are.

A command is a module of `negexp/commands/`, or an entry point of the group `negexp.commands` in another package. Its
name is the module's or the entry point's, its values stand in `conf/NAME.yaml`. Commands are listed without importing
them, so that `negexp --help` starts fast.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from negexp.errors import InputError
from negexp.modules import modules_of, source_of
from negexp.nearest import did_you_mean

if TYPE_CHECKING:
    from negexp.components import Options

PACKAGE = "negexp.commands"  # of the built-in commands
GROUP = "negexp.commands"  # of other packages' entry points

Schema = TypeVar("Schema", bound="Options")


def _accept(config: Any, overrides: Sequence[str]) -> None:
    """Accept every configuration that its schema accepts."""


def _as_composed(values: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, Any]:
    """Return the composed configuration: nothing is filled in."""
    return values


@dataclass(frozen=True)
class Command(Generic[Schema]):
    """A command.

    Attributes
    ----------
    schema : the keys of its configuration.
    run : does the work, from the configuration, Hydra's run folder and the overrides of the command line. It returns
        `done`, `continued` or `skipped`; None stands for `done`. It imports torch itself where it needs torch, so that
        the command line starts without it.
    check : raises `InputError` when the configuration cannot be run, from the configuration and the overrides. All
        jobs of a sweep are checked before the first one starts.
    complete : fills in what a file brings that the configuration names, such as the data of a run, from the composed
        values (interpolations unresolved) and the overrides. Its result is parsed.
    completed : sections that `complete` fills in. Their keys are known only then, so Hydra accepts any key of them.
    usage : lines for `negexp NAME --help`.
    paths : keys whose values are paths. They may hold characters that Hydra's grammar reserves.
    texts : keys whose values are texts of the user, taken as they stand.
    sweeps : whether `-m` is allowed.
    processes : how many processes of this machine do the work of a configuration together; None: always one.
    after_sweep : name of a command that is run as `negexp NAME runs=FOLDER` on the folder of a sweep at its end.
    """

    schema: type[Schema]
    run: Callable[[Schema, Path, list[str]], str | None]
    check: Callable[[Schema, Sequence[str]], None] = _accept
    complete: Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]] = _as_composed
    completed: tuple[str, ...] = ()
    usage: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    sweeps: bool = True
    processes: Callable[[Schema], int] | None = None
    after_sweep: str | None = None


def names() -> list[str]:
    """Return the names of the built-in commands, then those of other packages."""
    built_in = modules_of(PACKAGE)
    return built_in + sorted(set(_registered()) - set(built_in))


def check_name(name: str) -> None:
    """Raise `InputError` when there is no command of that name."""
    if name not in names():
        raise InputError(f"{name}: no such command; choose from {', '.join(names())}{did_you_mean(name, names())}")


def find(name: str) -> Command[Any]:
    """Return the command of a name; another package cannot replace a built-in command.

    Raises
    ------
    InputError
        When there is no such command, or another package registers something else.
    """
    check_name(name)
    if name in modules_of(PACKAGE):
        found: Any = importlib.import_module(f"{PACKAGE}.{name}").COMMAND
    else:
        found = _load(name)
    assert isinstance(found, Command), f"{PACKAGE}.{name}.COMMAND must be a Command"
    return found


def purpose(name: str) -> str:
    """Return what a command is for in one line: the first line of its module's docstring. Nothing is imported."""
    entry = None if name in modules_of(PACKAGE) else _registered()[name]
    source = source_of(f"{PACKAGE}.{name}" if entry is None else entry.module)
    documentation = None if source is None else ast.get_docstring(ast.parse(source.read_bytes()))
    if documentation is None:
        return "" if entry is None else f"from {entry.value}"
    return documentation.splitlines()[0].rstrip(".")


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(name: str) -> Any:
    entry = _registered()[name]
    try:
        found = entry.load()
    except Exception as error:
        raise InputError(f"{name}: {entry.value} cannot be imported ({error}); repair that package") from error
    if not isinstance(found, Command):
        raise InputError(f"{name}: {entry.value} is no negexp.command.Command; repair that package")
    return found
