"""One registry for all kinds of components: a name is a module of the kind's folder, or another package's entry point.

Names are listed without importing a component. A configuration only ever names a component, so reading a stranger's
configuration runs nothing.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType, ModuleType
from typing import Any

from negexp.components.options import Options
from negexp.errors import InputError
from negexp.modules import modules_of
from negexp.nearest import did_you_mean

PACKAGE = "negexp"


@dataclass(frozen=True)
class Kind:
    """A kind of component.

    Attributes
    ----------
    name : the configuration group.
    what : the word for such a component in messages.
    folder : the package of negexp whose modules are the built-in components.
    base : `module:Class` that every component of the kind extends.
    group : the group of other packages' entry points.
    number : the component that a plain number is short for; the number is the value of its key of the same name. Empty
        if a number stands for none.
    """

    name: str
    what: str
    folder: str
    base: str
    group: str
    number: str = ""

    def names(self) -> list[str]:
        """Return the names of the built-in components, then those of other packages."""
        built_in = self.built_in()
        return built_in + sorted(set(self._registered()) - set(built_in))

    def find(self, name: str, key: str) -> type[Any]:
        """Return the class of a name; another package cannot replace a built-in component.

        Raises
        ------
        InputError
            When there is no such component, or another package registers something else; `key` is named.
        """
        base = _load(f"{PACKAGE}.{self.base}")
        if name in self.built_in():
            return _component_of(importlib.import_module(f"{PACKAGE}.{self.folder}.{name}"), base)
        entry = self._registered().get(name)
        if entry is None:
            near = did_you_mean(name, self.names(), f"{key}=")
            raise InputError(f"{key}={name}: no such {self.what}; choose from {', '.join(self.names())}{near}")
        try:
            found = entry.load()
        except Exception as error:
            raise InputError(
                f"{key}={name}: {entry.value} cannot be imported ({error}); repair that package"
            ) from error
        if not (isinstance(found, type) and issubclass(found, base)):
            raise InputError(f"{key}={name}: {entry.value} is no {base.__name__} subclass")
        return found

    def built_in(self) -> list[str]:
        """Return the names of the components that negexp has itself."""
        return modules_of(f"{PACKAGE}.{self.folder}")

    def place(self, name: str) -> tuple[str, str | None]:
        """Return the module that defines a component, and the class where an entry point names one."""
        if name in self.built_in():
            return f"{PACKAGE}.{self.folder}.{name}", None
        entry = self._registered()[name]
        return entry.module, entry.attr

    def _registered(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}


_ALL = (
    Kind("data", "corpus reader", "corpus.readers", "corpus.reader:CorpusReader", "negexp.readers"),
    Kind("sampler", "strategy", "sampling.samplers", "sampling.sampler:NegativeSampler", "negexp.samplers"),
    Kind("mining", "mining policy", "sampling.mining", "sampling.policy:MiningPolicy", "negexp.mining"),
    Kind("schedule", "schedule", "sampling.schedules", "sampling.schedule:Schedule", "negexp.schedules", "constant"),
    Kind("batch", "batch plan", "sampling.batches", "sampling.batch_plan:BatchPlan", "negexp.batches"),
    Kind("index", "index", "index.backends", "index.base:NeighbourIndex", "negexp.indexes"),
    Kind("loss", "loss", "losses", "model.loss:Loss", "negexp.losses"),
    Kind("tracker", "tracker", "tracking.trackers", "tracking.listener:Listener", "negexp.trackers"),
)
KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})


def names(kind: str) -> list[str]:
    """Return the names of all components of a kind."""
    return KINDS[kind].names()


def build(kind: str, options: Options, **runtime: Any) -> Any:
    """Return the component with these options; `runtime` holds the arguments that all components of the kind get.

    The class's `from_options` makes it, where there is one, else its constructor.
    """
    name = options.name  # type: ignore[attr-defined]
    found = KINDS[kind].find(name, f"{kind}.name")
    return getattr(found, "from_options", found)(options, **runtime)


def _load(path: str) -> type[Any]:
    module, _, name = path.partition(":")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def _component_of(module: ModuleType, base: type[Any]) -> type[Any]:
    """Return the one component that a module defines."""
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and issubclass(value, base)
    ]
    assert len(found) == 1, f"{module.__name__} must define one {base.__name__}"
    return found[0]
