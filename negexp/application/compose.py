"""Compose a command's configuration as Hydra would, with one line for every mistake, and check it."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from negexp.application.explain import explain
from negexp.command import Command
from negexp.config import CONF_DIR, parse_config
from negexp.errors import InputError

ALWAYS_PATHS = ("hydra.run.dir",)  # in every command
BEFORE_QUOTE = re.compile(
    r"(\\*)('|\Z)"
)  # the backslashes before a quote inside the value, and before the one that ends it
INTERPOLATION = re.compile(r"(\\*)(\$\{)")


def configure(command: Command[Any], config: DictConfig, overrides: Sequence[str]) -> Any:
    """Return the typed and checked configuration of a command, or raise `InputError`.

    `config` may hold Hydra's own part. `overrides` are those that it was composed with.
    """
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    composed = cast(dict[str, Any], OmegaConf.to_container(own, resolve=False))
    parsed = parse_config(OmegaConf.create(dict(command.complete(composed, overrides))), command.schema)
    command.check(parsed, overrides)
    return parsed


def quote_path(override: str, paths: Sequence[str]) -> str:
    """Quote a path for Hydra, whose grammar reads a comma as a sweep, and refuses stars and equals signs."""
    key, equals, value = override.partition("=")
    if key not in (*paths, *ALWAYS_PATHS) or not value or value[0] in "'\"" or value == "null":
        return override
    return f"{key}{equals}{_quoted(value)}"


def quote_text(override: str, texts: Sequence[str]) -> str:
    r"""Quote a text for Hydra as it stands: with its quotes, and with `${` that names no other key.

    >>> print(quote_text("query='Tis ${5}, isn't it?", ["query"]))
    query='\'Tis \${5}, isn\'t it?'
    """
    key, equals, value = override.partition("=")
    if key not in texts or not equals or value == "null":
        return override
    return f"{key}{equals}{_quoted(INTERPOLATION.sub(_escaped, value))}"


def _quoted(value: str) -> str:
    """Return a value in single quotes. Hydra reads a backslash as an escape only before a quote."""
    return f"'{BEFORE_QUOTE.sub(_escaped, value)}'"


def _escaped(found: re.Match[str]) -> str:
    """Return a quote or `${` with an escape, and the backslashes before it doubled."""
    return 2 * found[1] + ("\\" + found[2] if found[2] else "")


def accept_key(override: str, sections: Sequence[str]) -> str:
    """Let Hydra accept an unknown key of the given sections. It is checked when the configuration is parsed.

    >>> [accept_key(override, ["data"]) for override in ("data.titles=drop", "data=demo", "~data.path", "seed=1")]
    ['++data.titles=drop', 'data=demo', '~data.path', 'seed=1']
    """
    section, dot, _ = override.partition("=")[0].partition(".")
    return f"++{override}" if dot and section in sections else override


@contextmanager
def config_dir(command: str, args: Namespace) -> Iterator[tuple[str, list[str]]]:
    """Set Hydra to the folder that the flags name; yield the primary config's name and all overrides."""
    folder = Path(args.config_path or CONF_DIR).resolve()
    overrides = list(args.overrides)
    if args.config_dir is not None:
        overrides.append(f"hydra.searchpath=[file://{Path(args.config_dir).resolve()}]")
    with initialize_config_dir(config_dir=str(folder), version_base="1.3", job_name=command):
        yield args.config_name or command, overrides


def compose_or_explain(name: str, overrides: list[str], return_hydra_config: bool = False) -> DictConfig:
    """Compose a configuration, or raise `InputError` with the name that was probably meant."""
    try:
        return compose(name, overrides, return_hydra_config)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(explain(error, partial(_known_keys, name, overrides), overrides)) from None
    except ValueError as error:  # Hydra's, when a group gets anything but a name: sampler=3
        raise InputError(f"{' '.join(overrides)}: {error}; --help lists groups and names") from None
    except TypeError:  # Hydra's, when a list holds anything but names: sampler=[3]
        raise InputError(f"{' '.join(overrides)}: a group takes a name; --help lists groups and names") from None
    except yaml.YAMLError as error:  # names the file and the line
        raise InputError(f"--config-dir: {error}") from None


def _known_keys(name: str, overrides: list[str], wrong: str) -> dict[str, Any]:
    """Return the nested keys, and groups, that there are without the override of a wrong key."""
    others = [override for override in overrides if override.lstrip("+~").partition("=")[0] != wrong]
    for kept in (others, []):  # the others may be wrong too
        with suppress(HydraException, OmegaConfBaseException, ValueError, TypeError):
            config = compose(name, kept, return_hydra_config=wrong.startswith("hydra"))
            groups = GlobalHydra.instance().config_loader().list_groups("")
            keys = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
            return dict.fromkeys(groups) | keys
    return {}
