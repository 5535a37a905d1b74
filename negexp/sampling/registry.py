"""Strategies by name: the frozen built-in table, and what other packages register.

A package adds a strategy through the entry-point group `negexp.samplers`; a configuration only ever names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType

from negexp.config import SamplerConfig
from negexp.errors import InputError
from negexp.nearest import did_you_mean
from negexp.sampling.base import NegativeSampler
from negexp.sampling.strategies import DecaySampler, HardSampler, RandomSampler, StaticSampler

BUILT_IN: Mapping[str, Callable[[SamplerConfig], NegativeSampler]] = MappingProxyType(
    {"hard": HardSampler, "random": RandomSampler, "decay": DecaySampler, "static": StaticSampler}
)
ENTRY_POINT_GROUP = "negexp.samplers"


def build_sampler(config: SamplerConfig) -> NegativeSampler:
    """Return the strategy that `sampler.name` names, or raise `InputError` listing the names there are."""
    if config.name in BUILT_IN:
        return BUILT_IN[config.name](config)
    registered = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if config.name not in registered:
        names = [*BUILT_IN, *sorted(registered)]
        near = did_you_mean(config.name, names, "sampler.name=")
        raise InputError(f"sampler.name={config.name}: no such strategy; choose from {', '.join(names)}{near}")
    strategy = registered[config.name].load()
    if not (isinstance(strategy, type) and issubclass(strategy, NegativeSampler)):
        raise InputError(f"sampler.name={config.name}: {registered[config.name].value} is no NegativeSampler subclass")
    built: NegativeSampler = strategy(config)
    return built
