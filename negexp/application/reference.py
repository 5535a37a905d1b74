"""The reference of every key. Write it with `python -m negexp.application.reference > conf/README.md`.

It is made from what `negexp` has itself: the options' lines of help, types and ranges from their sources, and the
defaults from the YAML files. Components of other packages are left out; `negexp COMMAND --help` lists them too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import negexp.application.names  # noqa: F401  # the resolvers
from negexp.command import PACKAGE, find, purpose
from negexp.components import KINDS
from negexp.components.declared import Declared, component_options, options_of, shared_options
from negexp.config import CONF_DIR
from negexp.modules import modules_of

HEADER = """<!-- Written by `python -m negexp.application.reference > conf/README.md`; do not edit it by hand. -->
# Every key of the configuration

Give a key as `KEY=VALUE` on the command line, and choose a file of a group as `GROUP=NAME`. This page lists the keys,
files and components that are built in. `negexp COMMAND --help` lists those of other packages too, with the values after
your overrides. A default that reads `${other.key}` takes the value of that key. `null` stands for no value.

A key with `(no result)` cannot change the result of a run. It may be changed when a run continues, and it is not part
of the name of a sweep's job.
"""
TABLE = ("| key | type | default | allowed | help |", "| --- | --- | --- | --- | --- |")


def reference() -> str:
    """Return the reference as Markdown."""
    lines = [HEADER.rstrip()]
    seen: dict[str, Any] = {}  # the values of the sections above; a section with the same values is not shown again
    for name in sorted(modules_of(PACKAGE), key=lambda name: name != "train"):
        lines += _command(name, seen)
    lines += ["", "# Files of the groups, and components", ""]
    lines += ["A component's own keys are listed; those that all components of its group share stand above."]
    for folder in sorted(path for path in CONF_DIR.iterdir() if path.is_dir() and path.name != "hydra"):
        lines += _group(folder)
    return "\n".join(lines) + "\n"


def _command(name: str, seen: dict[str, Any]) -> Iterator[str]:
    values, options = _composed(name), options_of(find(name).schema)
    yield from ("", f"## `negexp {name}`", "", f"{purpose(name)}.", "")
    own = {key: option for key, option in options.items() if not _is_section(option)}
    yield from TABLE
    for key, option in own.items():
        yield _row(key, option, values[key])
    sections = [key for key, option in options.items() if _is_section(option)]
    shared = [f"`{key}`" for key in sections if seen.get(key) == values[key]]
    if shared:
        yield from ("", f"It also has the sections {', '.join(shared)} of `negexp train`, with the same defaults.")
    for key in sections:
        option = options[key]
        if seen.get(key) != values[key]:
            seen[key] = values[key]
            yield from ("", f"### `{key}`: {option.rule.help}{_beside(option)}", "")
            yield from TABLE
            yield from _rows(f"{key}.", option.inside, values[key])


def _is_section(option: Declared) -> bool:
    return bool(option.inside)


def _rows(prefix: str, options: Mapping[str, Declared], values: Mapping[str, Any]) -> Iterator[str]:
    for key, option in options.items():
        value = values.get(key)
        if option.rule.kind is None and _is_section(option) and isinstance(value, Mapping):
            yield from _rows(f"{prefix}{key}.", option.inside, value)
        else:
            yield _row(f"{prefix}{key}", option, value)


def _row(key: str, option: Declared, value: Any) -> str:
    rule = option.rule
    kind = f"`{option.type}`"
    if rule.number:
        kind = "`float` or a component of `schedule`"
    elif rule.kind is not None:
        kind = f"{'components' if option.type.startswith('dict') else 'a component'} of `{rule.kind}`"
    allowed = ", ".join(f"`{one}`" for one in rule.choices)
    if not allowed and ("int" in option.type or "float" in option.type or rule.number):
        allowed = rule.allowed()
    text = f"{rule.help}{_beside(option)}".replace("<", "&lt;")
    cells = [f"`{key}`", kind, _default(value), allowed, text]
    return "| " + " | ".join(cell.replace("|", "\\|").strip() for cell in cells) + " |"


def _beside(option: Declared) -> str:
    return "" if option.rule.decides else " (no result)"


def _default(value: Any) -> str:
    if value == "???":
        return "must be given"
    if isinstance(value, Mapping) and "name" in value:
        value = value["name"]
    return f"`{yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix('...' + chr(10)).strip()}`"


def _group(folder: Path) -> Iterator[str]:
    """Yield the files of a group, then every component of it that has keys of its own."""
    yield from ("", f"## `{folder.name}`", "", "| file | what it chooses |", "| --- | --- |")
    for path in sorted(folder.glob("*.yaml")):
        yield f"| `{folder.name}={path.stem}` | {_comment(path)} |"
    if folder.name not in KINDS:
        return
    base = shared_options(folder.name)
    for name in KINDS[folder.name].built_in():
        own = {key: one for key, one in component_options(folder.name, name).items() if base.get(key) != one}
        if own:
            yield from ("", f"`{folder.name}={name}` has", "")
            yield from TABLE
            values = _values(folder, name)
            yield from (_row(key, option, values.get(key)) for key, option in own.items())


def _comment(path: Path) -> str:
    """Return the comment that a file begins with."""
    text = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            text.append(line.removeprefix("#").strip())
    return " ".join(text).replace("|", "\\|") or "the keys above"


def _values(folder: Path, name: str) -> dict[str, Any]:
    """Return the values of a component's YAML file and of the files that it names first; empty where it has none."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        return {}
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for default in values.pop("defaults", []):
        if isinstance(default, str) and default != "_self_":
            found |= _values(folder, default)
        elif isinstance(default, dict):
            for key, value in default.items():
                group, _, place = key.removeprefix("/").partition("@")
                found[place or group] = _values(CONF_DIR / group, str(value))
    found |= values
    return found


def _composed(name: str) -> dict[str, Any]:
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        return cast(dict[str, Any], OmegaConf.to_container(compose(name), resolve=False))


if __name__ == "__main__":
    print(reference(), end="")
