"""From a plain mapping to typed and checked options: unknown keys, types, ranges, choices, then cross-field checks."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

from omegaconf import BooleanNode, FloatNode, IntegerNode, StringNode
from omegaconf.errors import ValidationError

from negexp.components.declared import who_has
from negexp.components.options import Options, Rule, is_section, rules
from negexp.components.registry import KINDS
from negexp.errors import InputError
from negexp.nearest import did_you_mean

MISSING = "???"  # what a YAML file says where a value must be given
Section = TypeVar("Section", bound=Options)

# OmegaConf's conversion to each type: `lr=1` and a YAML file's text `1e-5` are numbers.
NODES: dict[Any, tuple[type[Any], str]] = {
    bool: (BooleanNode, "true or false"),
    int: (IntegerNode, "a whole number"),
    float: (FloatNode, "a number"),
    str: (StringNode, "a text"),
}


def parse(
    schema: type[Section], values: Any, key: str = "", kinds: frozenset[str] | None = None, owner: str = ""
) -> Section:
    """Return a section's options from a mapping of its keys.

    Parameters
    ----------
    schema
        The section. A component's options are those that its class has beside it.
    values
        Plain values, as YAML has them, interpolations resolved.
    key
        Dotted key of the section, for messages.
    kinds
        Kinds of components to parse; those of another kind stay plain mappings. None: all of them.
    owner
        The component that has these keys, for messages.

    Raises
    ------
    InputError
        Naming the first key that is wrong, its value and what is allowed.
    """
    declared = rules(schema)
    if not isinstance(values, Mapping):
        raise InputError(
            f"{key}={_shown(values)}: must be a mapping of keys to values, as in {key}.{next(iter(declared))}=..."
        )
    prefix = f"{key}." if key else ""
    for name in values:
        if name not in declared:
            remedy, near = who_has(owner.partition("=")[0], str(name)), did_you_mean(str(name), list(declared), prefix)
            if owner and (remedy or not near):
                remedy += f"; {owner} as a whole brings its own keys, {key}.name alone keeps those of another"
            remedy = remedy or near
            whose = f" of {owner}" if owner else ""
            raise InputError(f"{prefix}{name}: no such key{whose}; there are {', '.join(declared)}{remedy}")
    found = {name: _value(*declared[name], value, f"{prefix}{name}", kinds) for name, value in values.items()}
    for name in declared:
        if name not in values:
            raise InputError(f"{prefix}{name}: has no value; give {prefix}{name}=...")
    options = schema(**found)
    for level in reversed(type(options).__mro__):  # a subclass cannot forget the checks of its base
        if issubclass(level, Options) and "check" in vars(level):
            _check(level, options, prefix)
    return options


def _check(level: type[Options], options: Options, prefix: str) -> None:
    """Run the check of one class of the options; a message that begins with one of their keys gets the prefix."""
    try:
        level.check(options)
    except InputError as error:
        if str(error).partition("=")[0] not in rules(type(options)):
            raise
        raise InputError(f"{prefix}{error}") from None


def parse_component(kind: str, values: Any, key: str, kinds: frozenset[str] | None = None) -> Options:
    """Return the options of the component that `values` names."""
    if isinstance(values, str) and values in KINDS[kind].names():
        place = f"{kind}@{key}={values} where it is a part of another {KINDS[kind].what}"
        raise InputError(f"{key}={values}: is a name; choose it by {kind}={values}, or by {place}")
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        raise InputError(f"{key}: needs a name; choose from {_names(kind)}")
    found = KINDS[kind].find(values["name"], f"{key}.name")
    options: Options = parse(found.Options, values, key, kinds, owner=f"{kind}={values['name']}")
    return options


def _names(kind: str) -> str:
    return ", ".join(KINDS[kind].names()) or "none, there is none"


def _value(annotation: Any, rule: Rule, value: Any, key: str, kinds: frozenset[str] | None) -> Any:
    optional = get_origin(annotation) in (Union, types.UnionType)
    if optional:
        if value is None:
            return None
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    if rule.kind is not None:
        return _components(annotation, rule, value, key, kinds)
    if is_section(annotation):
        return parse(annotation, value, key, kinds)
    if value == MISSING:
        raise InputError(f"{key}: needs {key}={rule.form}{': ' if rule.help else ''}{rule.help}")
    if get_origin(annotation) is list:
        if not isinstance(value, list):
            raise InputError(f"{key}={_shown(value)}: must be a list, as in [a, b]")
        return [_leaf(get_args(annotation)[0], rule, one, key) for one in value]
    if get_origin(annotation) is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{key}={_shown(value)}: must be a mapping, as in {{a: 1}}")
        return {str(name): _leaf(get_args(annotation)[1], rule, one, f"{key}.{name}") for name, one in value.items()}
    return _leaf(annotation, rule, value, key, " or null" if optional else "")


def _components(annotation: Any, rule: Rule, value: Any, key: str, kinds: frozenset[str] | None) -> Any:
    """Return one component's options, or with a type of `dict` those of any number of them, by name."""
    kind = rule.kind
    assert kind is not None
    if kinds is not None and kind not in kinds:
        return value
    if get_origin(annotation) is not dict:
        return parse_component(kind, _written_out(kind, rule, value, key), key, kinds)
    if not isinstance(value, Mapping):
        raise InputError(f"{key}={_shown(value)}: must be a mapping of names to components")
    return {name: parse_component(kind, one, f"{key}.{name}", kinds) for name, one in value.items()}


def _written_out(kind: str, rule: Rule, value: Any, key: str) -> Any:
    """Return the component that a plain number is short for, the number checked; another value as it is."""
    short = KINDS[kind].number
    if not short:
        return value
    if isinstance(value, Mapping):
        if value.get("name") == short:
            rule.check(key, value.get(short))
        return value
    if isinstance(value, bool) or value is None or value in KINDS[kind].names():
        raise InputError(f"{key}={_shown(value)}: must be a number; {kind}@{key}=NAME chooses one of {_names(kind)}")
    return {"name": short, short: _leaf(float, rule, value, key)}


def _shown(value: Any) -> str:
    """Return a value as YAML and the command line write it."""
    return "null" if value is None else str(value)


def _leaf(annotation: Any, rule: Rule, value: Any, key: str, or_null: str = "") -> Any:
    node, what = NODES[annotation]
    if value is None:  # OmegaConf would leave it as it is
        raise InputError(f"{key}=null: needs a value, {what}")
    try:
        typed = node(value)._value()
    except ValidationError:
        raise InputError(f"{key}={value}: must be {what}{or_null}") from None
    if annotation is bool and not isinstance(value, bool):  # OmegaConf also accepts any integer, and "on"
        raise InputError(f"{key}={value}: must be {what}")
    rule.check(key, typed)
    return typed
