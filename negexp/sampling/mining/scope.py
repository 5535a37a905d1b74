"""Neighbours of some debates, roles or stances only, among which another mining policy chooses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from negexp.components import build, component, option
from negexp.config import MiningConfig, SamplerConfig
from negexp.errors import InputError
from negexp.sampling.arguments import ORIGINS, Arguments
from negexp.sampling.forbidden import Forbidden, first_of_each_text
from negexp.sampling.negatives import Negatives, Neighbours
from negexp.sampling.policy import Mask, MiningPolicy
from negexp.sampling.round import SamplingRound
from negexp.sampling.source import BLOCK_NUMBERS, Ints, blocks


@dataclass
class ScopeOptions(MiningConfig):
    """Which arguments are in the scope, and who chooses among them."""

    origin: list[str] = option(
        "debate: of the pair's debate; theme: of its theme, but another debate; elsewhere: of neither",
        choices=("debate", "theme", "elsewhere"),
    )
    role: str = option(
        "of the negatives; document: documents of a collection that are no counter of a training pair",
        choices=("any", "point", "counter", "document"),
    )
    stance: str = option(
        "same: texts that argue for the point's side, so points of its stance and counters of another; "
        "opposite: the other texts",
        choices=("any", "same", "opposite"),
    )
    policy: MiningConfig = component("mining", "chooses among the arguments in the scope")

    def check(self) -> None:
        """Raise `InputError` if nothing is in the scope."""
        if not self.origin:
            raise InputError(f"origin=[]: must name one of {', '.join(ORIGINS)}")

    def check_sampler(self, sampler: SamplerConfig, key: str) -> None:
        """Raise `InputError` if the strategy has no candidates of the role."""
        roles = {"points": ("point",), "counters": ("counter", "document")}.get(sampler.candidates)
        if roles is not None and self.role not in ("any", *roles):
            raise InputError(
                f"{key}.role={self.role}: contradicts sampler.candidates={sampler.candidates}; use {key}.role=any, or "
                "sampler.candidates=both"
            )
        self.policy.check_sampler(sampler, f"{key}.policy")


class Scope(MiningPolicy):
    """The choice of another policy, which sees the arguments in the scope only."""

    Options = ScopeOptions
    options: ScopeOptions

    def __init__(self, options: ScopeOptions) -> None:
        super().__init__(options)
        self.policy: MiningPolicy = build("mining", options.policy)

    def depth(self, round_: SamplingRound) -> int:
        """Return the depth of the other policy."""
        return self.policy.depth(round_)

    def eligible(self, neighbours: Neighbours, round_: SamplingRound) -> Mask:
        """Return which neighbours are in the scope, and eligible to the other policy."""
        inside = neighbours.allowed & self.contains(round_.arguments, neighbours.pair[:, None], neighbours.argument)
        return inside & self.policy.eligible(neighbours._replace(allowed=inside), round_)

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        """Let the other policy select."""
        return self.policy.select(neighbours, round_)

    def why_fewer(self, round_: SamplingRound, pair: Ints) -> list[str]:
        """Return `outside of the scope` where that has fewer than k allowed arguments, else the other policy's word."""
        inside = self._inside(round_.forbidden, round_.tables, pair)
        others = self.policy.why_fewer(round_, pair)
        few = inside < round_.num_negatives
        return ["outside of the scope" if is_few else other for is_few, other in zip(few, others, strict=True)]

    def contains(self, arguments: Arguments, pair: Ints, argument: Ints) -> Mask:
        """Return whether each argument is in the scope of its pair; `pair` and `argument` are broadcast."""
        options = self.options
        inside: Mask = np.ones(np.broadcast(pair, argument).shape, dtype=np.bool_)
        if set(options.origin) != set(ORIGINS):
            codes = [ORIGINS.index(name) for name in options.origin]
            inside &= np.isin(arguments.origin(pair, argument), codes)
        source = arguments.source(argument)[0]
        if options.role != "any":
            inside &= source == options.role
        if options.stance != "any":
            assert arguments.stance is not None
            stance = arguments.stance[argument]
            same_side = (arguments.stance[pair] == stance) != (source == "counter")  # counters disagree
            inside &= (same_side == (options.stance == "same")) & (stance >= 0)
        return inside

    def _inside(self, forbidden: Forbidden, tables: tuple[str, ...], pair: Ints) -> Ints:
        """Return how many allowed candidates of each pair are in the scope (pairs,); with `repeats`, how many texts."""
        arguments = forbidden.arguments
        every = arguments.candidates(tables)
        inside = np.empty(len(pair), dtype=np.int64)
        for some in blocks(len(pair), BLOCK_NUMBERS // len(every)):
            one = pair[some, None]
            free = self.contains(arguments, one, every) & ~forbidden.contains(one, every)
            if forbidden.repeats:
                free = first_of_each_text(free, np.broadcast_to(arguments.identity[every], free.shape))
            inside[some] = free.sum(axis=1)
        return inside

    def check_candidates(self, forbidden: Forbidden, tables: tuple[str, ...], candidates: Ints, key: str) -> None:
        """Raise `InputError` if the corpus lacks a column, or if the scope of a pair is empty."""
        arguments = forbidden.arguments
        self._check_columns(arguments, key)
        inside = self._inside(forbidden, tables, np.arange(arguments.pairs))
        empty = inside == 0
        if empty.any():
            others = f", nor have {empty.sum() - 1} more pairs" if empty.sum() > 1 else ""
            raise InputError(
                f"{key}.name={self.options.name}: training pair {int(np.argmax(empty))} has no candidate in the scope"
                f"{others}; widen {key}.origin, role or stance"
            )
        self.policy.check_candidates(forbidden, tables, inside, f"{key}.policy")

    def _check_columns(self, arguments: Arguments, key: str) -> None:
        """Raise `InputError` if the corpus does not have what the scope is about."""
        options = self.options
        if options.stance != "any" and arguments.stance is None:
            raise InputError(f"{key}.stance={options.stance}: the corpus has no column stance; use {key}.stance=any")
        if set(options.origin) == set(ORIGINS):
            return
        origin, every = f"{key}.origin=[{','.join(options.origin)}]", f"{key}.origin=[{','.join(ORIGINS)}]"
        for name, codes in (("debate", arguments.debate), ("theme", arguments.theme)):
            if name in options.origin and codes is None:
                raise InputError(f"{origin}: the corpus has no column {name}; give the column, or use {every}")
        if arguments.debate is None and arguments.theme is None:
            raise InputError(f"{origin}: the corpus has no column debate and no column theme; give one, or use {every}")
