"""Options: the typed keys of a configuration section, each with its range and a line of help."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

from negexp.errors import InputError
from negexp.nearest import did_you_mean

SCHEDULE = "schedule"  # the kind of the numbers that may change while training
LARGEST = 2**62  # a larger count is a typing mistake, and would not fit an array


@dataclass(frozen=True)
class Rule:
    """What an option may be.

    Attributes
    ----------
    help : what the option does, in one line.
    low, high : the smallest and the largest number allowed; None for no bound.
    choices : the values allowed; empty for any value.
    kind : the kind of component that the option holds.
    decides : whether the option, or section, can change the result of a run.
    form : what a value looks like, as in `DIR`, for an option that `conf/` leaves without a value.
    """

    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    kind: str | None = None
    decides: bool = True
    form: str = "..."

    def check(self, key: str, value: Any) -> None:
        """Raise `InputError` when a value is not allowed; null is left alone."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            near = did_you_mean(str(value), self.choices, f"{key}=")
            if "off" in self.choices and value == "False":  # YAML reads a bare off as false
                near = '; in a YAML file write "off" in quotes'
            raise InputError(f"{key}={value}: must be one of {', '.join(self.choices)}{near}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        finite = value <= LARGEST if isinstance(value, int) else math.isfinite(value)
        low_enough = self.high is None or value <= self.high
        if not (finite and low_enough and (self.low is None or value >= self.low)):
            raise InputError(f"{key}={value}: must be {self._range()}")

    @property
    def number(self) -> bool:
        """Return whether the option is a number that may follow a schedule."""
        return self.kind == SCHEDULE

    def allowed(self) -> str:
        """Return what is allowed, as the reference shows it; empty when nothing is excluded."""
        return " | ".join(self.choices) if self.choices else self._range()

    def _range(self) -> str:
        if self.low is not None and self.high is not None:
            return f"between {self.low} and {self.high}"
        if self.low is not None:
            return f"at least {self.low}"
        return "finite" if self.high is None else f"at most {self.high}"


def option(
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    decides: bool = True,
    form: str = "...",
) -> Any:
    """Declare an option, see `Rule`: a dataclass field without a default, since values live in YAML only."""
    return field(metadata={"rule": Rule(help, low, high, choices, None, decides, form)})


def component(kind: str, help: str) -> Any:
    """Declare an option that holds a component of a kind, itself a section with a `name`."""
    return field(metadata={"rule": Rule(help, kind=kind)})


def scheduled(help: str, *, low: float | None = None, high: float | None = None) -> Any:
    """Declare a number that may follow a schedule, of the type `ScheduleConfig` or `ScheduleConfig | None`.

    A plain number stands for the constant schedule. It must be in the range, and a schedule's value is clipped to it,
    see `negexp.sampling.ScheduledNumber`.
    """
    return field(metadata={"rule": Rule(help, low, high, kind=SCHEDULE)})


@dataclass
class Options:
    """Base of all sections; a subclass declares its keys with `option` and `component`."""

    def check(self) -> None:
        """Raise `InputError` when values contradict each other; single values were checked before.

        A message that begins with one of the section's own keys gets the section's key before it.
        """


def rules(schema: type[Options]) -> dict[str, tuple[Any, Rule]]:
    """Return the type and the rule of every key of a section, in order."""
    hints = get_type_hints(schema)
    return {one.name: (hints[one.name], one.metadata.get("rule", Rule(""))) for one in fields(schema)}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys."""
    return dict(_leaves(values, prefix))


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_section(annotation: Any) -> bool:
    """Return whether a type is a section of its own."""
    return isinstance(annotation, type) and is_dataclass(annotation) and issubclass(annotation, Options)
