"""The options that a component or a section declares, read from its source without importing it.

Help and reference need names, types and lines of help only. Importing every loss for that would import torch, and
importing other packages would run their code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from negexp.components.options import SCHEDULE, Options, Rule
from negexp.components.registry import KINDS, PACKAGE
from negexp.modules import source_of


@dataclass(frozen=True)
class Declared:
    """An option as its source declares it: its type as written, its rule, and the options inside where it is a section.

    The options inside a component are those that all components of its kind share.
    """

    type: str
    rule: Rule
    inside: Mapping[str, Declared]


@dataclass(frozen=True)
class _Found:
    """A class, and the module that defines it."""

    module: str
    node: ast.ClassDef


def options_of(schema: type[Options]) -> dict[str, Declared]:
    """Return the options of a section, those of its bases first."""
    return _options(_find(schema.__module__, schema.__name__))


def component_options(kind: str, name: str) -> dict[str, Declared]:
    """Return the options of a component, those of its bases first; empty where its source cannot be read."""
    if name not in KINDS[kind].names():
        return {}
    module, attribute = KINDS[kind].place(name)
    classes = [attribute] if attribute else [node.name for node in _tree(module).body if isinstance(node, ast.ClassDef)]
    for one in classes:
        found = _find(module, one)
        schema = None if found is None else _schema(found)
        if schema is not None:
            return _options(schema)
    return shared_options(kind)


def shared_options(kind: str) -> dict[str, Declared]:
    """Return the options that all components of a kind share."""
    module, _, base = KINDS[kind].base.partition(":")
    found = _find(f"{PACKAGE}.{module}", base)
    return _options(None if found is None else _schema(found))


def who_has(kind: str, key: str) -> str:
    """Return `; key belongs to kind=name, ...` with the components of a kind that have a key of their own, or nothing.

    >>> who_has("mining", "low")
    '; low belongs to mining=score, mining=window'
    """
    if kind not in KINDS or key in shared_options(kind):
        return ""
    owners = [f"{kind}={name}" for name in KINDS[kind].names() if key in component_options(kind, name)]
    return f"; {key} belongs to {', '.join(owners)}" if owners else ""


def _schema(found: _Found) -> _Found | None:
    """Return the class that a component names as its `Options`, or that its base names."""
    for node in found.node.body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        targets = node.targets if isinstance(node, ast.Assign) else [target]
        if any(isinstance(one, ast.Name) and one.id == "Options" for one in targets):
            value = getattr(node, "value", None)
            return _find(found.module, value.id) if isinstance(value, ast.Name) else None
    for base in _bases(found):
        schema = _schema(base)
        if schema is not None:
            return schema
    return None


def _options(found: _Found | None) -> dict[str, Declared]:
    if found is None:
        return {}
    options: dict[str, Declared] = {}
    for base in reversed(_bases(found)):
        options |= _options(base)
    for node in found.node.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            inside = _find(found.module, node.annotation.id) if isinstance(node.annotation, ast.Name) else None
            options[node.target.id] = Declared(
                ast.unparse(node.annotation), _rule(found.module, node.value), _options(inside)
            )
    return options


def _rule(module: str, value: ast.expr | None) -> Rule:
    """Return the rule that `option`, `scheduled` or `component` declares; an empty one for anything else."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name):
        return Rule("")
    arguments = [_constant(module, one) for one in value.args]
    keywords = {one.arg: _constant(module, one.value) for one in value.keywords if one.arg is not None}
    if value.func.id == "component":
        kind, text = (*arguments, keywords.get("kind"), keywords.get("help"))[:2]
        return Rule(str(text), kind=str(kind))
    if value.func.id not in ("option", "scheduled"):
        return Rule("")
    kind = {"kind": SCHEDULE} if value.func.id == "scheduled" else {}
    return Rule(**{"help": arguments[0] if arguments else "", **keywords, **kind})


def _constant(module: str, value: ast.expr) -> Any:
    """Return the value of a literal, of a sum of literals, or of a name that a module assigns one to; else None."""
    try:
        return ast.literal_eval(value)
    except ValueError:
        pass
    if isinstance(value, ast.Name):
        for node in _tree(module).body:
            if isinstance(node, ast.Assign) and any(ast.unparse(one) == value.id for one in node.targets):
                return _constant(module, node.value)
        for imported, name in _imports(module, value.id):
            return _constant(imported, ast.Name(name))
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Pow | ast.Sub):  # 2**32 - 1
        left, right = _constant(module, value.left), _constant(module, value.right)
        if isinstance(left, int) and isinstance(right, int):
            return left**right if isinstance(value.op, ast.Pow) else left - right
    return None


def _bases(found: _Found) -> list[_Found]:
    bases = [_find(found.module, base.id) for base in found.node.bases if isinstance(base, ast.Name)]
    return [base for base in bases if base is not None]


def _find(module: str, name: str) -> _Found | None:
    """Return the class of a name in a module, or in the module that it is imported from."""
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _Found(module, node)
    for imported, original in _imports(module, name):
        return _find(imported, original)
    return None


def _imports(module: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield the module and the name there that `from ... import` gives a name in a module."""
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    yield node.module, alias.name


def _tree(module: str) -> ast.Module:
    path = source_of(module)
    return ast.Module(body=[], type_ignores=[]) if path is None else _parsed(path)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())
