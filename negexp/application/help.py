"""`negexp COMMAND --help`: the groups with their names, and every key with its value and its line of help."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from negexp.command import find, purpose
from negexp.components import KINDS
from negexp.components.declared import Declared, component_options, options_of

WIDTH = 120
COLUMN = 44  # where lines of help begin
FLAGS = "Flags: -m sweeps over values with commas, --cfg job prints the configuration, --hydra-help lists Hydra's own."


def command_help(name: str, config: DictConfig) -> str:
    """Return the help of a command whose configuration was composed, with Hydra's part, in lines of 120 columns."""
    command = find(name)
    values = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
    hydra = values.pop("hydra")
    options = options_of(command.schema)
    first = purpose(name)
    lines = [f"negexp {name} - {first[:1].lower()}{first[1:]}", ""]
    for start, usage in zip(["usage: ", *["       "] * len(command.usage)], command.usage, strict=False):
        lines.append(start + usage)
    groups = list(_groups(options, hydra["runtime"]["choices"]))
    if groups:
        lines += ["", "Config groups (group=name):", *groups]
    return "\n".join([*lines, "", "Keys and their values (key=value):", *_keys(options, values), "", FLAGS])


def _groups(options: Mapping[str, Declared], chosen: Iterable[str]) -> Iterator[str]:
    """Yield a line for every group of a command: names with a YAML file, then components that have none."""
    helps = {}
    for key, option in options.items():
        helps[option.rule.kind or key] = option.rule.help
        if option.rule.kind is not None:  # some of its components may hold components of other kinds
            for name in KINDS[option.rule.kind].names():
                helps |= _kinds_inside(component_options(option.rule.kind, name)) | helps
    of_sections = [group for group in helps if group in chosen or group in KINDS]
    others = [group for group in chosen if not group.startswith("hydra/") and "@" not in group]
    for group in dict.fromkeys([*of_sections, *others]):
        files = GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)
        components = KINDS[group].names() if group in KINDS else []
        bare = [name for name in components if name not in files]
        line = f"{group}: {', '.join(files)}"
        if bare:
            line += f"{'; ' if files else ''}without a YAML file, by name=...: {', '.join(bare)}"
        lines = textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent=" " * (len(group) + 4))
        yield from lines[:-1]
        yield from _with_help(lines[-1], helps.get(group, ""))


def _kinds_inside(options: Mapping[str, Declared]) -> dict[str, str]:
    """Return the kinds of components that options hold, with their lines of help."""
    found: dict[str, str] = {}
    for option in options.values():
        if option.rule.number:
            found[str(option.rule.kind)] = "numbers that change while training: KEY=NUMBER, or schedule@KEY=NAME"
        elif option.rule.kind is not None:
            found[option.rule.kind] = option.rule.help
        found |= _kinds_inside(option.inside)
    return found


def _keys(options: Mapping[str, Declared], values: Mapping[str, Any], indent: str = "  ") -> Iterator[str]:
    """Yield the lines of a section: YAML with the lines of help as comments."""
    for key, value in values.items():
        option = options.get(key)
        text = "" if option is None else described(option)
        if isinstance(value, Mapping) and value:
            yield from _with_help(f"{indent}{key}:", text)
            yield from _keys(inside(option, value), value, indent + "  ")
        else:
            yield from _with_help(indent + shown(key, value), text)


def inside(option: Declared | None, value: Mapping[str, Any]) -> Mapping[str, Declared]:
    """Return the options inside a section, or of the component that the value names."""
    if option is None:
        return {}
    if option.rule.kind is None:
        return option.inside
    if "name" in value:
        return component_options(option.rule.kind, str(value["name"]))
    # components by names of their own
    return {name: Declared("", option.rule, {}) for name in value}


def described(option: Declared) -> str:
    """Return the choices, unless the line of help names them all, and the line of help."""
    text, choices = option.rule.help, option.rule.choices
    if option.rule.number:
        return f"{text}; a number, or {option.rule.kind}@KEY=NAME"
    if all(choice in text for choice in choices):
        return text
    return "; ".join(filter(None, [" | ".join(choices), text]))


def shown(key: str, value: Any) -> str:
    """Return a key and its value as a line of YAML."""
    if isinstance(value, str) and value.startswith(("${", "???")):
        return f"{key}: {value}"
    if isinstance(value, list | dict):
        return f"{key}: {yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)}".rstrip("\n")
    return yaml.safe_dump({key: value}, width=10**6, allow_unicode=True).rstrip("\n")


def _with_help(line: str, text: str) -> Iterator[str]:
    """Yield a line with a comment in a column of its own, over several lines where it is long."""
    if not text:
        yield line
        return
    column = max(COLUMN, len(line) + 2)
    if column > WIDTH - 40:  # no room beside the line
        yield line
        line, column = "", COLUMN
    for part in textwrap.wrap(text, WIDTH - column - 2, break_on_hyphens=False):
        yield f"{line:<{column}}# {part}"
        line = ""
