"""Mining policies and the strategy `mixed` against loops over all arguments: what is taken, dropped and refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Train
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.stats import chisquare
from test_config import train_config
from test_neighbours import ranked
from test_sampling import BACKENDS, DUPLICATES, Problem, build_sampler, config, no_index, some_examples

from negexp.components import build
from negexp.components.parse import parse_component
from negexp.corpus import Split
from negexp.errors import InputError
from negexp.sampling import Arguments, EmbeddingSpace, Forbidden, MiningPolicy, Negatives, Neighbours, SamplingRound
from negexp.sampling.rescored_source import RescoredSource
from negexp.sampling.samplers.hard import Hard

NEAREST = {"name": "nearest"}
SCOPE = {"name": "scope", "origin": ["debate", "theme", "elsewhere"], "role": "any", "stance": "any", "policy": NEAREST}


@dataclass
class Case:
    """A problem with continuous embeddings, so that no two distances or cosines are equal, and metadata."""

    problem: Problem
    theme: np.ndarray
    debate: np.ndarray
    stance: np.ndarray
    candidates: str
    backend: str

    def split(self) -> Split:
        problem = self.problem
        ids = tuple(map(str, range(problem.pairs)))
        return Split(ids, problem.point_text, problem.counter_text, self.theme, self.debate, self.stance)

    def round(self, seed: int = 0, exclude: list[str] = DUPLICATES) -> SamplingRound:
        problem = self.problem
        arguments = Arguments(self.split())
        space = EmbeddingSpace(
            problem.queries, {"point": problem.points, "counter": problem.counters}, BACKENDS[self.backend]
        )
        forbidden, rng = Forbidden(arguments, exclude), np.random.default_rng(seed)
        return SamplingRound(arguments, forbidden, space, rng, num_negatives=problem.k, candidates=self.candidates).at(
            1.0
        )

    def allowed(self, pair: int) -> list[tuple[float, int, int]]:
        """Return distance, argument and rank of the pair's allowed arguments, nearest first."""
        return [entry[:3] for entry in ranked(self.problem, DUPLICATES, self.candidates, pair) if entry[3]]

    def cosine(self, pair: int, argument: int) -> float:
        problem, row = self.problem, argument % self.problem.pairs
        query = problem.queries[pair].astype(float)
        vector = (problem.points if argument < problem.pairs else problem.counters)[row].astype(float)
        return float(query @ vector / math.sqrt((query @ query) * (vector @ vector)))

    def in_scope(self, pair: int, argument: int, origin: list[str], role: str, stance: str) -> bool:
        n = self.problem.pairs
        row, is_counter = argument % n, argument >= n
        if self.debate[row] == self.debate[pair]:
            place = "debate"
        else:
            place = "theme" if self.theme[row] == self.theme[pair] else "elsewhere"
        argues_for = (1 - self.stance[row]) if is_counter else self.stance[row]  # of two stances
        side = "same" if argues_for == self.stance[pair] else "opposite"
        return place in origin and role in ("any", "counter" if is_counter else "point") and stance in ("any", side)


def case(seed: int, pairs: int = 9, k: int = 2, candidates: str = "both", backend: str = "exact") -> Case:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(3, pairs, 3)) * rng.uniform(0.2, 3, size=(3, pairs, 1))  # not normalised
    queries, points, counters = (vectors[one].astype(np.float32) for one in (rng.integers(2), 1, 2))
    text = rng.integers(0, 3 * pairs, (2, pairs))  # some copies
    debate = rng.integers(0, 4, pairs)
    return Case(
        Problem(queries, points, counters, text[0], text[1], k),
        debate // 2,
        debate,
        rng.integers(0, 2, pairs),
        candidates,
        backend,
    )


cases = st.builds(
    case,
    st.integers(0, 10**6),
    st.integers(2, 9),
    st.integers(1, 4),
    st.sampled_from(["both", "points", "counters"]),
    st.sampled_from(sorted(BACKENDS)),
)


def policy(**values: Any) -> MiningPolicy:
    built: MiningPolicy = build("mining", parse_component("mining", values, "sampler.mining"))
    return built


def taken(negatives: Negatives, pair: int) -> list[int]:
    return [int(one) for one in negatives.argument[pair][negatives.found[pair]]]


def check(one: Case, negatives: Negatives, expected: list[list[int]]) -> None:
    """Compare arguments, and all that belongs to them, in the order of distance."""
    for pair, wanted in enumerate(expected):
        assert taken(negatives, pair) == wanted
        check_entry(one, negatives, pair)


def check_entry(one: Case, negatives: Negatives, pair: int, candidates: list[int] | None = None) -> None:
    """Recompute rank, distance and the number of dropped candidates of a pair; None: all that are allowed."""
    entry = {argument: (distance, rank) for distance, argument, rank in one.allowed(pair)}
    counted = list(entry) if candidates is None else candidates
    arguments = taken(negatives, pair)
    count = len(arguments)
    assert negatives.found[pair].tolist() == [True] * count + [False] * (one.problem.k - count)
    assert negatives.neighbour_rank[pair][:count].tolist() == [entry[argument][1] for argument in arguments]
    np.testing.assert_allclose(negatives.distance[pair][:count], [entry[argument][0] for argument in arguments])
    passed_over = [
        sum(entry[other][1] < entry[argument][1] and other not in arguments for other in counted)
        for argument in arguments
    ]
    untaken = sum(other not in arguments for other in counted)
    assert negatives.dropped[pair].tolist() == passed_over + [untaken] * (one.problem.k - count)


# ---- margin ----------------------------------------------------------------------------------------------------------


@some_examples
@given(one=cases, margin=st.floats(-2, 2))
def test_an_absolute_margin_drops_what_is_too_near(one: Case, margin: float) -> None:
    round_, k = one.round(), one.problem.k
    negatives = round_.mine(np.arange(round_.pairs), policy(name="margin", margin=margin, share=None))
    expected = []
    for pair in range(round_.pairs):
        counter = one.problem.counters[pair].astype(float) - one.problem.queries[pair].astype(float)
        lowest = math.sqrt(counter @ counter) - margin
        expected.append([argument for distance, argument, _ in one.allowed(pair) if distance >= lowest][:k])
    check(one, negatives, expected)


@some_examples
@given(one=cases, share=st.floats(0, 0.999))
def test_a_relative_margin_drops_what_is_too_similar(one: Case, share: float) -> None:
    round_, k, n = one.round(), one.problem.k, one.problem.pairs
    negatives = round_.mine(np.arange(n), policy(name="margin", margin=None, share=share))
    expected = []
    for pair in range(n):
        own = one.cosine(pair, n + pair)
        highest = share * own if own >= 0 else (2 - share) * own
        expected.append([argument for _, argument, _ in one.allowed(pair) if one.cosine(pair, argument) <= highest][:k])
    check(one, negatives, expected)


@some_examples
@given(one=cases)
def test_cosines_equal_a_plain_loop(one: Case) -> None:
    n = one.problem.pairs
    found = one.round().similarity(np.arange(n), np.tile(np.arange(2 * n), (n, 1)))
    expected = [[one.cosine(pair, argument) for argument in range(2 * n)] for pair in range(n)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_cosine_with_a_zero_vector_is_zero() -> None:
    one = case(3)
    one.problem.queries[0] = 0
    one.problem.counters[1] = 0
    found = one.round().similarity(np.arange(9), np.full((9, 1), 9 + 1))
    assert (found == 0).all()


# ---- score -----------------------------------------------------------------------------------------------------------


@some_examples
@given(one=cases, edges=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), margin=st.floats(-0.5, 0.5), data=st.data())
@pytest.mark.runs
def test_bounds_of_the_score_drop_what_is_outside(
    one: Case, edges: tuple[float, float], margin: float, data: st.DataObject
) -> None:
    bounds = {"low": min(edges), "high": max(edges), "margin": margin}
    used = data.draw(st.sets(st.sampled_from(sorted(bounds)), min_size=1))
    round_, k, n = one.round(), one.problem.k, one.problem.pairs
    keys = {name: value if name in used else None for name, value in bounds.items()}
    negatives = round_.mine(np.arange(n), policy(name="score", **keys))
    expected = []
    for pair in range(n):
        own, kept = one.cosine(pair, n + pair), []
        for _, argument, _ in one.allowed(pair):
            score = one.cosine(pair, argument)
            holds = {"low": bounds["low"] <= score, "high": score <= bounds["high"], "margin": score <= own - margin}
            kept += [argument] if all(holds[name] for name in used) else []
        expected.append(kept[:k])
    check(one, negatives, expected)


@some_examples
@given(one=cases, seed=st.integers(0, 10**6), high=st.floats(0.1, 0.9))
def test_scores_from_elsewhere_take_the_place_of_cosines(one: Case, seed: int, high: float) -> None:
    """Scores are per text: the neighbours and their distances stay those of the embeddings."""
    round_, k, n = one.round(), one.problem.k, one.problem.pairs
    table = np.random.default_rng(seed).uniform(size=(3 * n, 3 * n))
    round_.mining_from(RescoredSource(round_.space, round_.arguments, lambda point, text: table[point[:, None], text]))
    negatives = round_.mine(np.arange(n), policy(name="score", low=None, high=high, margin=None))
    text = np.concatenate([one.problem.point_text, one.problem.counter_text])
    expected = [
        [argument for _, argument, _ in one.allowed(pair) if table[text[pair], text[argument]] <= high][:k]
        for pair in range(n)
    ]
    check(one, negatives, expected)


# ---- no text twice ---------------------------------------------------------------------------------------------------

REPEATS = [*DUPLICATES, "repeats"]


def distinct(one: Case, pair: int) -> list[int]:
    """Return the pair's allowed arguments, nearest first, without those whose text stands before them."""
    text = np.concatenate([one.problem.point_text, one.problem.counter_text])
    first = {int(text[argument]): argument for _, argument, _ in reversed(one.allowed(pair))}
    return [argument for _, argument, _ in one.allowed(pair) if first[int(text[argument])] == argument]


@some_examples
@given(one=cases, low=st.integers(0, 3))
def test_mined_negatives_of_a_pair_have_different_texts(one: Case, low: int) -> None:
    k, pairs = one.problem.k, np.arange(one.problem.pairs)
    inside = [distinct(one, pair) for pair in pairs.tolist()]
    nearest = one.round(exclude=REPEATS).mine(pairs, policy(name="nearest"))
    assert not nearest.dropped[nearest.found].any()  # copies of nearer negatives are no choice of the policy
    window = policy(name="window", low=low, high=low + k)  # as wide as k, so nothing is left to chance
    later = one.round(exclude=REPEATS).mine(pairs, window)
    for pair, arguments in enumerate(inside):
        for negatives, first in ((nearest, 0), (later, low)):
            assert taken(negatives, pair) == arguments[first : first + k]
            check_entry(one, negatives, pair, candidates=arguments)


@some_examples
@given(one=cases, share=st.sampled_from([0.0, 0.5, 1.0]))
def test_drawn_negatives_have_different_texts_or_are_refused(one: Case, share: float) -> None:
    round_, k = one.round(exclude=REPEATS), one.problem.k
    fewest = min(len(distinct(one, pair)) for pair in range(round_.pairs))
    options = config("mixed", num_negatives=k, candidates=one.candidates, exclude=REPEATS, hard_share=share)
    sampler = build_sampler(options)
    if fewest < k:
        with pytest.raises(InputError, match=rf"pair \d has only {fewest} allowed candidates"):
            sampler.check_candidates(round_.forbidden)
        return
    sampler.check_candidates(round_.forbidden)
    negatives = sampler.sample(round_)
    assert negatives.found.all()
    for row in round_.arguments.identity[negatives.argument].tolist():
        assert len(set(row)) == k


def test_a_strategy_that_returns_a_text_twice_is_a_defect() -> None:
    class Twice(Hard):
        def choose(self, round_: SamplingRound) -> Negatives:
            return Negatives(np.tile([2, 3], (4, 1)), np.ones((4, 2), dtype=np.int64))

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, 4, 3)).astype(np.float32)
    problem = Problem(vectors[0], vectors[0], vectors[1], np.array([0, 1, 2, 2]), np.arange(3, 7), 2)
    zeros = np.zeros(4, dtype=np.int64)
    one = Case(problem, zeros, zeros, zeros, "both", "exact")
    with pytest.raises(ValueError, match="the same text twice"):
        Twice(config(num_negatives=2, exclude=REPEATS)).sample(one.round(exclude=REPEATS))


# ---- window ----------------------------------------------------------------------------------------------------------


@some_examples
@given(one=cases, low=st.integers(0, 6), width=st.integers(0, 8), seed=st.integers(0, 99))
def test_a_window_is_drawn_from_ranks_among_the_allowed(one: Case, low: int, width: int, seed: int) -> None:
    k = one.problem.k
    high = low + k + width
    negatives = one.round(seed).mine(np.arange(one.problem.pairs), policy(name="window", low=low, high=high))
    for pair in range(one.problem.pairs):
        inside = [argument for _, argument, _ in one.allowed(pair)][low:high]
        arguments = taken(negatives, pair)
        assert set(arguments) <= set(inside)
        assert len(set(arguments)) == min(k, len(inside))
        check_entry(one, negatives, pair)


def test_a_window_is_drawn_uniformly_without_replacement() -> None:
    one = case(5, pairs=9, k=2)
    inside = [argument for _, argument, _ in one.allowed(4)][2:6]
    negatives = one.round().mine(np.full(6000, 4), policy(name="window", low=2, high=6))
    drawn = [frozenset(row) for row in negatives.argument.tolist()]
    couples = [frozenset(couple) for couple in itertools.combinations(inside, 2)]
    assert set(drawn) == set(couples)
    assert chisquare([drawn.count(couple) for couple in couples]).pvalue > 1e-3


def test_a_window_follows_its_schedules_and_keeps_room_for_k() -> None:
    one = case(5, pairs=9, k=3)
    steps = {"name": "steps", "values": [0, 4.4], "epochs": [1]}
    moving = policy(name="window", low=steps, high=5)
    for progress, inside in ((0.5, slice(0, 5)), (1.0, slice(4, 7))):
        negatives = one.round().at(progress).mine(np.full(300, 4), moving)
        expected = {argument for _, argument, _ in one.allowed(4)[inside]}
        assert set(negatives.argument.ravel().tolist()) == expected


# ---- weighted --------------------------------------------------------------------------------------------------------


def probabilities(one: Case, pair: int, a: float, b: float, depth: int) -> dict[int, float]:
    near = [argument for _, argument, _ in one.allowed(pair)][:depth]
    own = one.cosine(pair, one.problem.pairs + pair)
    weights = [math.exp(-a * (one.cosine(pair, argument) - own - b) ** 2) for argument in near]
    return {argument: weight / sum(weights) for argument, weight in zip(near, weights, strict=True)}


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (1.5, 0.0), (4.0, -0.3)])
def test_weighted_draws_have_the_probabilities_of_simans(a: float, b: float) -> None:
    one = case(8, pairs=9, k=1)
    p = probabilities(one, 4, a, b, depth=5)
    negatives = one.round().mine(np.full(6000, 4), policy(name="weighted", a=a, b=b, depth=5))
    drawn = negatives.argument.ravel().tolist()
    assert set(drawn) <= set(p)
    assert chisquare([drawn.count(one) for one in p], [6000 * value for value in p.values()]).pvalue > 1e-3


def test_two_weighted_draws_are_without_replacement() -> None:
    one = case(8, pairs=9, k=2)
    p = probabilities(one, 4, 1.5, 0.1, depth=4)
    drawn = [
        frozenset(row)
        for row in one.round().mine(np.full(6000, 4), policy(name="weighted", a=1.5, b=0.1, depth=4)).argument.tolist()
    ]
    expected = {
        frozenset((x, y)): p[x] * p[y] / (1 - p[x]) + p[y] * p[x] / (1 - p[y]) for x, y in itertools.combinations(p, 2)
    }
    counts = [drawn.count(couple) for couple in expected]
    assert sum(counts) == 6000
    assert chisquare(counts, [6000 * value for value in expected.values()]).pvalue > 1e-3


@some_examples
@given(one=cases, a=st.sampled_from([0.0, 50.0, 1e9]), depth=st.integers(4, 9))
def test_weighted_negatives_are_among_the_nearest_however_small_their_weights(one: Case, a: float, depth: int) -> None:
    k = one.problem.k
    with np.errstate(all="raise"):
        negatives = one.round().mine(np.arange(one.problem.pairs), policy(name="weighted", a=a, b=0.5, depth=depth))
    for pair in range(one.problem.pairs):
        near = [argument for _, argument, _ in one.allowed(pair)][:depth]
        assert set(taken(negatives, pair)) <= set(near)
        assert len(taken(negatives, pair)) == min(k, len(near))
        check_entry(one, negatives, pair)
        if a == 1e9 and near:  # every weight is 0 as a float; the largest log weight still wins
            own = one.cosine(pair, one.problem.pairs + pair)
            best = min(near, key=lambda argument: abs(one.cosine(pair, argument) - own - 0.5))
            assert best in taken(negatives, pair)


# ---- scope -----------------------------------------------------------------------------------------------------------

scopes = st.fixed_dictionaries(
    {
        "origin": st.lists(st.sampled_from(["debate", "theme", "elsewhere"]), min_size=1, unique=True),
        "role": st.sampled_from(["any", "point", "counter"]),
        "stance": st.sampled_from(["any", "same", "opposite"]),
    }
)


@some_examples
@given(one=cases, scope=scopes, low=st.integers(0, 3))
@pytest.mark.runs
def test_another_policy_chooses_among_the_arguments_in_the_scope(one: Case, scope: dict[str, Any], low: int) -> None:
    k, pairs = one.problem.k, np.arange(one.problem.pairs)
    inside = [
        [argument for _, argument, _ in one.allowed(pair) if one.in_scope(pair, argument, **scope)]
        for pair in range(len(pairs))
    ]
    nearest = one.round().mine(pairs, policy(name="scope", **scope, policy=NEAREST))
    check(one, nearest, [arguments[:k] for arguments in inside])
    window = {"name": "window", "low": low, "high": low + k}  # as wide as k, so nothing is left to chance
    negatives = one.round().mine(pairs, policy(name="scope", **scope, policy=window))
    check(one, negatives, [arguments[low : low + k] for arguments in inside])


@some_examples
@given(one=cases, scope=scopes, low=st.integers(0, 3))
def test_a_scope_or_window_without_candidates_is_refused(one: Case, scope: dict[str, Any], low: int) -> None:
    window = {"name": "window", "low": low, "high": low + 9}
    sizes = [
        sum(one.in_scope(pair, argument, **scope) for _, argument, _ in one.allowed(pair))
        for pair in range(one.problem.pairs)
    ]
    round_ = one.round()
    scoped = policy(name="scope", **scope, policy=window)

    def refusal() -> str:
        try:
            scoped.check_candidates(round_.forbidden, round_.tables, np.zeros(round_.pairs, int), "sampler.mining")
        except InputError as error:
            return str(error)
        return ""

    empty = [pair for pair, size in enumerate(sizes) if size == 0]
    short = [pair for pair, size in enumerate(sizes) if size <= low]
    if empty:
        assert f"training pair {empty[0]} has no candidate in the scope" in refusal()
        assert (f"nor have {len(empty) - 1} more pairs" in refusal()) == (len(empty) > 1)
    elif short:
        assert refusal().startswith(f"sampler.mining.policy.low={low}: training pair {short[0]} has only ")
        assert (f"and {len(short) - 1} more pairs" in refusal()) == (len(short) > 1)
    else:
        assert refusal() == ""


@pytest.mark.parametrize(
    ("scope", "missing", "message"),
    [
        ({"origin": ["debate"]}, ["debate"], "sampler.mining.origin=[debate]: the corpus has no column debate; give"),
        ({"origin": ["theme", "debate"]}, ["theme"], "the corpus has no column theme"),
        ({"origin": ["elsewhere"]}, ["theme", "debate"], "has no column debate and no column theme"),
        ({"stance": "same"}, ["stance"], "sampler.mining.stance=same: the corpus has no column stance"),
    ],
)
def test_a_scope_that_the_corpus_does_not_describe_is_refused(
    scope: dict[str, Any], missing: list[str], message: str
) -> None:
    one = case(1)
    for name in missing:
        setattr(one, name, None)
    sampler = build_sampler(config(mining={**SCOPE, **scope}))
    with pytest.raises(InputError) as caught:
        sampler.check_candidates(one.round().forbidden)
    assert message in str(caught.value)
    build_sampler(config("random", mining={**SCOPE, **scope})).check_candidates(one.round().forbidden)  # never mines


# ---- the search ------------------------------------------------------------------------------------------------------


class Farther(MiningPolicy):
    """Takes those of the last pairs only, so that some pairs find enough early and others late or never."""

    def eligible(self, neighbours: Neighbours, round_: SamplingRound) -> np.ndarray:
        found: np.ndarray = round_.arguments.row(neighbours.argument) >= round_.pairs - 12
        return found

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        return policy(**NEAREST).select(neighbours, round_)


def test_the_search_goes_deeper_for_the_pairs_that_have_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    one = case(2, pairs=80, k=3)
    round_, asked = one.round(), []
    search = round_.neighbours

    def neighbours(pair: np.ndarray, allowed: int) -> Neighbours:
        asked.append((set(pair.tolist()), allowed))
        return search(pair, allowed)

    monkeypatch.setattr(round_, "neighbours", neighbours)
    farther = Farther(config().mining)
    negatives = round_.mine(np.arange(80), farther)
    for pair in range(80):
        last = [argument for _, argument, _ in one.allowed(pair) if argument % 80 >= 68]
        assert taken(negatives, pair) == last[:3]
        check_entry(one, negatives, pair)
        depths = [depth for pairs, depth in asked if pair in pairs]
        third = [argument for _, argument, _ in one.allowed(pair)].index(last[2]) + 1
        assert depths == [3 * 2**step for step in range(len(depths))]
        assert depths[-1] >= third > (depths[-2] if len(depths) > 1 else 0)


def test_commits_of_earlier_versions_know_no_dropped_candidates() -> None:
    fields = {"argument": np.array([[3, 4]]), "neighbour_rank": np.array([[1, 2]])}
    assert Negatives(**fields).dropped.tolist() == [[0, 0]]


# ---- mixed -----------------------------------------------------------------------------------------------------------


@some_examples
@given(share=st.floats(0, 1), k=st.integers(1, 4), seed=st.integers(0, 99))
def test_mixed_has_an_exact_share_of_hard_negatives(share: float, k: int, seed: int) -> None:
    one = case(seed, pairs=20, k=k)
    sampler = build_sampler(config("mixed", hard_share=share, num_negatives=k))
    negatives = sampler.sample(one.round(seed))
    assert sampler.random_rate(0) == pytest.approx(1 - share)
    assert negatives.mined.sum() == round(share * 20 * k)
    hard = negatives.mined.sum(axis=1)
    assert hard.max() - hard.min() <= 1
    for pair in range(20):
        nearest = [argument for _, argument, _ in one.allowed(pair)]
        assert negatives.argument[pair][: hard[pair]].tolist() == nearest[: hard[pair]]
        assert negatives.mined[pair].tolist() == [True] * hard[pair] + [False] * (k - hard[pair])
        assert set(negatives.argument[pair].tolist()) <= set(nearest)
        assert len(set(negatives.argument[pair].tolist())) == k


def test_draws_are_uniform_over_what_is_not_taken() -> None:
    one = case(5, pairs=9, k=1)
    first, *left = [argument for _, argument, _ in one.allowed(4)]
    taken = np.tile([-1, first], (3000, 1))  # -1 where the mining policy found none
    drawn = one.round().draw(np.full(3000, 4), taken).argument.ravel().tolist()
    assert set(drawn) <= set(left)
    assert chisquare([drawn.count(argument) for argument in left]).pvalue > 1e-3


def test_mixed_without_hard_negatives_builds_no_index() -> None:
    one = case(5)
    round_ = one.round()
    object.__setattr__(round_.space, "build", no_index)
    assert not build_sampler(config("mixed", hard_share=0.0, num_negatives=2)).sample(round_).mined.any()


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mining", "message"),
    [
        ({"name": "window", "low": 9, "high": 9}, "sampler.mining.high=9: must be above sampler.mining.low=9"),
        (
            {"name": "window", "low": 8, "high": 9},
            "sampler.num_negatives=2: the window has 1 ranks (sampler.mining.low=8",
        ),
        ({"name": "window", "low": -1, "high": 9}, "sampler.mining.low=-1.0: must be at least 0"),
        ({"name": "margin", "margin": 0.1, "share": 0.9}, "sampler.mining.margin and sampler.mining.share: both are"),
        (
            {"name": "margin", "margin": None, "share": None},
            "sampler.mining.margin and sampler.mining.share: neither is",
        ),
        ({"name": "margin", "margin": None, "share": 95}, "sampler.mining.share=95.0: must be between 0 and 1"),
        (
            {"name": "score", "low": None, "high": None, "margin": None},
            "sampler.mining.low, sampler.mining.high and sampler.mining.margin: all are null",
        ),
        (
            {"name": "score", "low": 0.9, "high": 0.5, "margin": None},
            "sampler.mining.low=0.9: is above sampler.mining.high=0.5; lower it",
        ),
        ({"name": "weighted", "a": -1, "b": 0, "depth": 9}, "sampler.mining.a=-1.0: must be between 0 and"),
        ({"name": "weighted", "a": 1, "b": 0, "depth": 1}, "sampler.mining.depth=1: below sampler.num_negatives=2"),
        ({**SCOPE, "origin": []}, "sampler.mining.origin=[]: must name one of"),
        ({**SCOPE, "role": "point"}, "sampler.mining.role=point: contradicts sampler.candidates=counters; use"),
        (
            {**SCOPE, "policy": {"name": "window", "low": 3, "high": 4}},
            "sampler.num_negatives=2: the window has 1 ranks (sampler.mining.policy.low=3",
        ),
    ],
    ids=str,
)
def test_contradicting_keys_are_refused(mining: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        config(num_negatives=2, candidates="counters", mining=mining)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_window_that_moves_beyond_the_candidates_is_refused() -> None:
    one = case(1)
    fewest = min(range(9), key=lambda pair: len(one.allowed(pair)))
    rising = {"name": "linear", "start": 3, "step": 1, "end": 50}
    sampler = build_sampler(config(num_negatives=2, mining={"name": "window", "low": rising, "high": 60}))
    with pytest.raises(InputError, match=r"sampler\.mining\.low=50: training pair 0 has only .* and 8 more pairs"):
        sampler.check_candidates(one.round().forbidden)
    size = len(one.allowed(fewest))
    sampler = build_sampler(config(num_negatives=2, mining={"name": "window", "low": size, "high": 60}))
    with pytest.raises(InputError, match=rf"sampler\.mining\.low={size}: training pair \d has only {size} candidates"):
        sampler.check_candidates(one.round().forbidden)
    low = size - 1
    build_sampler(config(num_negatives=2, mining={"name": "window", "low": low, "high": 60})).check_candidates(
        one.round().forbidden
    )


@some_examples
@given(one=cases, low=st.integers(0, 12))
def test_with_different_texts_a_window_is_refused_only_beyond_the_last_text(one: Case, low: int) -> None:
    sizes = [len(distinct(one, pair)) for pair in range(one.problem.pairs)]
    window = {"name": "window", "low": low, "high": low + 9}
    options = config(num_negatives=1, candidates=one.candidates, exclude=REPEATS, mining=window)
    forbidden = one.round(exclude=REPEATS).forbidden
    if min(sizes) > low:
        build_sampler(options).check_candidates(forbidden)
        return
    with pytest.raises(InputError) as caught:
        build_sampler(options).check_candidates(forbidden)
    if min(sizes) > 0:
        short = [pair for pair, size in enumerate(sizes) if size <= low]
        message = f"sampler.mining.low={low}: training pair {short[0]} has only {sizes[short[0]]} candidates"
        assert str(caught.value).startswith(message)
        assert (f"and {len(short) - 1} more pairs" in str(caught.value)) == (len(short) > 1)


# ---- the command line ------------------------------------------------------------------------------------------------


def mining(*overrides: str) -> Any:
    return train_config(*overrides).sampler.mining


@pytest.mark.runs
def test_numbers_of_policies_are_numbers_or_schedules_on_the_command_line() -> None:
    assert mining("mining=margin").share.constant == 0.95
    assert mining("mining=margin", "sampler.mining.share=0.5").share.constant == 0.5
    cosine = mining("mining=margin", "schedule@sampler.mining.share=cosine", "sampler.mining.share.end=0.2").share
    assert (cosine.name, cosine.end) == ("cosine", 0.2)
    absolute = mining("mining=margin", "schedule@sampler.mining.margin=adaptive", "sampler.mining.share=null")
    assert (absolute.margin.name, absolute.share) == ("adaptive", None)
    both = ["mining=window", "schedule@sampler.mining.high=steps", "sampler.mining.low=3"]
    with pytest.raises(InputError, match=r"sampler\.mining\.high=0\.8: must be above sampler\.mining\.low=3"):
        mining(*both)
    falling = mining(*both, "sampler.mining.high.values=[90,20,9]").high
    assert falling.extremes() == (90.0, 20.0, 9.0)
    assert mining(*both, "sampler.mining.high=50").high.constant == 50  # a number replaces a schedule


def test_a_scope_takes_another_policy_on_the_command_line() -> None:
    scoped = mining(
        "mining=scope", "mining@sampler.mining.policy=window", "schedule@sampler.mining.policy.low=constant"
    )
    assert (scoped.policy.name, scoped.policy.low.constant, scoped.policy.high.constant) == ("window", 0.5, 210)
    assert mining("mining=scope").policy.name == "nearest"


SMOKE = [
    "experiment=smoke",
    "data.max_pairs=10",
    "trainer.epochs=1",
    "sampler.num_negatives=2",
    "evaluation.train_queries=0",
]
RUNS = [
    ["sampler=mixed", "mining=window", "sampler.mining.low=2", "sampler.mining.high=7"],
    ["sampler=hard", "mining=margin", "sampler.mining.margin=0.3", "sampler.mining.share=null"],
    ["sampler=scheduled", "schedule@sampler.random_rate=steps", "mining=weighted", "sampler.mining.depth=6"],
    ["sampler=decay", "sampler.start_rate=0.2", "mining=scope", "sampler.mining.stance=opposite"],
]


@pytest.mark.parametrize("overrides", RUNS, ids=lambda overrides: overrides[1])
def test_a_demo_run_with_each_policy(overrides: list[str], run_training: Train) -> None:
    run = run_training(*SMOKE, *overrides)
    refreshes = pd.read_csv(run / "refreshes.csv")
    ledger = pd.read_parquet(run / "negatives" / "epoch-000.parquet")
    dropped = ledger["dropped"].dropna()
    assert len(dropped) == ledger["mined"].sum() > 0
    assert refreshes["missing_share"].iloc[0] == pytest.approx(1 - len(ledger) / 20)
    if len(ledger) == 20:
        assert refreshes["dropped"].iloc[0] == pytest.approx(dropped.mean())
        assert refreshes["dropped_share"].iloc[0] == pytest.approx((dropped > 0).mean())
    else:  # where nothing was found, everything was dropped
        assert refreshes["dropped"].iloc[0] > dropped.mean()
        assert refreshes["dropped_share"].iloc[0] >= (dropped > 0).mean()
    if "mining=window" in overrides:
        assert (dropped.between(1, 6)).all()
    if "mining=scope" in overrides:
        assert (ledger.loc[ledger["mined"], "origin"] == "debate").all()


def forget_dropped(commit: Path) -> None:
    """Make a commit what it was before negatives had `dropped`."""
    file, manifest = commit / "negatives.safetensors", commit / "manifest.json"
    tensors = load_file(file)
    del tensors["dropped"]
    save_file(tensors, file)
    values = json.loads(manifest.read_text())
    values["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(values))


@pytest.mark.runs
def test_a_policy_with_an_adaptive_schedule_continues_to_the_same_bits(run_training: Train) -> None:
    window = ["mining=window", "sampler.mining.low=1", "schedule@sampler.mining.high=adaptive"]
    window += ["sampler.mining.high.start=3", "sampler.mining.high.step=9", "sampler.mining.high.end=15"]
    still = ["sampler=mixed", "trainer.lr=0", "trainer.head_lr=0"]  # so no epoch is better than the first
    for folder, epochs in (("whole", 3), ("parts", 2), ("parts", 3)):
        run = run_training(*SMOKE, *still, *window, f"trainer.epochs={epochs}", folder=folder)
        if epochs == 2:
            forget_dropped(run / "checkpoints" / "epoch-001")
    ledgers = [
        [pd.read_parquet(run.with_name(folder) / "negatives" / f"epoch-00{epoch}.parquet") for epoch in range(3)]
        for folder in ("whole", "parts")
    ]
    for whole, parts in zip(*ledgers, strict=True):
        pd.testing.assert_frame_equal(whole, parts)
    ranks = [ledger["dropped"].max() for ledger in ledgers[0]]
    assert ranks[0] <= 2
    assert ranks[1] <= 2 < ranks[2]  # the second epoch is the first without a better value


def test_every_strategy_that_mines_takes_every_policy() -> None:
    one = case(4, pairs=14, k=2)
    policies = [
        {"name": "window", "low": 1, "high": 6},
        {"name": "margin", "margin": 5.0, "share": None},
        {"name": "weighted", "a": 10, "b": 0, "depth": 6},
        {**SCOPE, "role": "counter"},
    ]
    strategies: list[tuple[str, dict[str, Any]]] = [
        ("hard", {}),
        ("decay", {"start_rate": 0.3, "step": 0.0, "end_rate": 0.0}),
        ("scheduled", {"random_rate": 0.3}),
        ("mixed", {"hard_share": 0.7}),
    ]
    for mined, (name, keys) in itertools.product(policies, strategies):
        negatives = build_sampler(config(name, num_negatives=2, mining=mined, **keys)).sample(one.round())
        assert negatives.mined.any()
        assert not negatives.dropped[~negatives.mined].any()
        allowed = [{argument for _, argument, _ in one.allowed(pair)} for pair in range(14)]
        assert all(set(taken(negatives, pair)) <= allowed[pair] for pair in range(14))
