"""Components: parts that are found by name, each a class with its typed options beside it."""

from negexp.components.options import Options, component, flatten, option, scheduled
from negexp.components.parse import parse
from negexp.components.registry import KINDS, Kind, build, names

__all__ = ["KINDS", "Kind", "Options", "build", "component", "flatten", "names", "option", "parse", "scheduled"]
