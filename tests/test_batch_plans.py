"""Batch plans: properties of all, each plan against loops over pairs, copies apart against a plain first fit."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from attempts import differences
from collections_of import Judged, judged
from conftest import Train
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from negexp.cli import main
from negexp.components import build, names
from negexp.config import BatchConfig, load_run_config
from negexp.corpus import Split, load_corpus
from negexp.errors import InputError
from negexp.model import TextBatch
from negexp.randomness import generator
from negexp.sampling import Arguments, BatchPlan, BatchRound, EmbeddingSpace, Negatives
from negexp.sampling.apart import keep_copies_apart
from negexp.sampling.batches.neighbours import POWER_STEPS, spread_direction
from negexp.training.batch import BatchBuilder

PLANS = names("batch")
every_plan = pytest.mark.parametrize("plan", PLANS)
some_examples = settings(deadline=None, derandomize=True, max_examples=40)


class NoIndex:
    """The index of a plan that needs none."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("no plan searches")

    def statistics(self) -> dict[str, float]:
        return {}


def round_of(arguments: Arguments, size: int, epoch: int = 0, vectors: np.ndarray | None = None) -> BatchRound:
    """Return the start of an epoch; without vectors, they are drawn."""
    if vectors is None:
        vectors = np.random.default_rng(1).standard_normal((arguments.pairs, 3)).astype(np.float32)
    space = EmbeddingSpace(vectors, {"point": vectors, "counter": vectors}, lambda _: NoIndex())
    return BatchRound(arguments, lambda: space, size, generator(0, epoch, "batches"))


def planned(plan: str, round_: BatchRound, separate_copies: bool = True) -> list[list[int]]:
    component: BatchPlan = build("batch", BatchConfig(plan, separate_copies))
    return [batch.tolist() for batch in component.batches(round_)]


def arguments_of(texts: np.ndarray, debate: np.ndarray | None = None, theme: np.ndarray | None = None) -> Arguments:
    """Return the arguments of pairs with these texts (pairs, 2)."""
    ids = tuple(map(str, range(len(texts))))
    return Arguments(Split(ids, texts[:, 0], texts[:, 1], theme, debate, None))


@st.composite
def corpora(draw: st.DrawFn, copies: bool = True) -> Arguments:
    """Draw pairs in debates and themes; with copies, texts come from a pool of any size."""
    pairs, seed = draw(st.integers(1, 60)), draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    pool = draw(st.integers(2, 150))
    texts = rng.integers(0, pool, (pairs, 2)) if copies else np.arange(2 * pairs).reshape(pairs, 2)
    debate = rng.integers(0, draw(st.integers(1, 20)), pairs)
    return arguments_of(texts, debate, debate % draw(st.integers(1, 5)))


sizes = st.integers(1, 20)


def texts_of(arguments: Arguments) -> list[set[int]]:
    pairs = arguments.pairs
    return [{int(arguments.identity[pair]), int(arguments.identity[pairs + pair])} for pair in range(pairs)]


# --- all plans ----------------------------------------------------------------------------------------------------


@every_plan
@given(arguments=corpora(), size=sizes)
@some_examples
def test_each_pair_once_in_small_enough_batches_without_copies(plan: str, arguments: Arguments, size: int) -> None:
    batches = planned(plan, round_of(arguments, size))
    assert sorted(chain.from_iterable(batches)) == list(range(arguments.pairs))
    assert all(1 <= len(batch) <= size for batch in batches)
    texts = texts_of(arguments)
    for batch in batches:
        assert max(Counter(text for pair in batch for text in texts[pair]).values()) == 1
    # sizes stay near `size`: not many more batches than without copies, or than the copies of one pair demand
    sharing = [sum(bool(one & other) for other in texts) - 1 for one in texts]
    together = planned(plan, round_of(arguments, size), separate_copies=False)
    assert len(batches) <= max(len(together), (arguments.pairs - 1) / size + max(sharing) + 1)


@every_plan
@given(arguments=corpora(copies=False), size=sizes)
@some_examples
def test_without_copies_nothing_moves(plan: str, arguments: Arguments, size: int) -> None:
    together = planned(plan, round_of(arguments, size), separate_copies=False)
    assert planned(plan, round_of(arguments, size)) == together


@pytest.mark.parametrize("plan", ["shuffled", "neighbours"])
@given(case=judged(), size=st.integers(1, 4))
@some_examples
def test_with_documents_no_two_pairs_of_a_batch_share_a_text(plan: str, case: Judged, size: int) -> None:
    assume(case.grades)  # pairs of a query share its point, and queries may share a gold; any number of documents
    pairs = sorted(case.grades)
    texts = [{case.copies[case.queries[query]], case.copies[case.documents[document]]} for query, document in pairs]
    batches = planned(plan, round_of(Arguments(case.split()[1]), size))
    assert sorted(chain.from_iterable(batches)) == list(range(len(pairs)))
    for batch in batches:
        assert len(batch) <= size
        assert max(Counter(text for pair in batch for text in texts[pair]).values()) == 1


@every_plan
def test_batches_depend_on_the_epoch_alone(plan: str) -> None:
    rng = np.random.default_rng(0)
    arguments = arguments_of(rng.integers(0, 300, (90, 2)), np.arange(90) // 6, np.arange(90) // 24)
    epochs = [planned(plan, round_of(arguments, 16, epoch)) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2]
    members = [{frozenset(batch) for batch in batches} for batches in epochs]
    assert len(members[0] & members[1]) <= 1  # themes keep a rest of their own, when it is alone


@every_plan
def test_a_text_in_half_of_the_pairs(plan: str) -> None:
    texts = np.arange(4000).reshape(-1, 2)
    texts[::2, 1] = 0  # the point of pair 0 is the counter of every second pair
    arguments = arguments_of(texts, np.arange(2000) // 8, np.arange(2000) // 500)
    batches = planned(plan, round_of(arguments, 32))
    assert [sum(pair % 2 == 0 for pair in batch) for batch in batches] == [1] * 1000
    # the planned batches keep their other pairs; each new one has a pair with the text alone
    lengths = sorted(map(len, batches))
    assert lengths[:900] == [1] * 900
    assert min(lengths[-62:]) > 5


class Broken(BatchPlan):
    def __init__(self, batches: list[list[int]]) -> None:
        super().__init__(BatchConfig("broken", False))
        self.made = [np.array(batch, dtype=np.int64) for batch in batches]

    def compose(self, round_: BatchRound) -> list[np.ndarray]:
        return self.made


@pytest.mark.parametrize("batches", [[[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], []], []])
def test_a_plan_that_loses_or_repeats_a_pair_is_found(batches: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"Broken\.compose must return each pair exactly once"):
        Broken(batches).batches(round_of(arguments_of(np.arange(6).reshape(3, 2)), 2))


@given(arguments=corpora(), size=sizes, width=sizes)
@some_examples
def test_copies_apart_is_first_fit(arguments: Arguments, size: int, width: int) -> None:
    texts = texts_of(arguments)
    order = np.random.default_rng(0).permutation(arguments.pairs).tolist()
    batches = [order[start : start + width] for start in range(0, len(order), width)]
    most = [max(size, len(batch)) for batch in batches]
    expected: list[list[int]] = []
    moved: list[int] = []
    for batch in batches:
        first: list[int] = []
        for place, pair in enumerate(batch):
            shared = any(texts[pair] & texts[earlier] for earlier in batch[:place])
            (moved if shared else first).append(pair)
        expected.append(first)
    for pair in moved:
        for number, batch in enumerate(expected):
            if len(batch) < most[number] and not any(texts[pair] & texts[other] for other in batch):
                batch.append(pair)
                break
        else:
            expected.append([pair])
            most.append(size)
    found = keep_copies_apart(
        [np.array(batch) for batch in batches], arguments.pair_texts, size, np.random.default_rng(0)
    )
    if len(expected) > len(batches):
        assert sorted(batch.tolist() for batch in found) == sorted(expected)
    else:
        assert [batch.tolist() for batch in found] == expected


# --- single plans -------------------------------------------------------------------------------------------------


@given(arguments=corpora(), size=sizes, epoch=st.integers(0, 3))
@some_examples
def test_shuffled_cuts_one_random_order(arguments: Arguments, size: int, epoch: int) -> None:
    order = generator(0, epoch, "batches").permutation(arguments.pairs).tolist()
    expected = [order[start : start + size] for start in range(0, len(order), size)]
    assert planned("shuffled", round_of(arguments, size, epoch), separate_copies=False) == expected


@given(arguments=corpora(copies=False), size=sizes)
@some_examples
def test_debates_stay_whole_unless_they_are_too_large(arguments: Arguments, size: int) -> None:
    batches = planned("debates", round_of(arguments, size))
    assert sum(2 * len(batch) <= size for batch in batches) <= 1  # first fit
    assert arguments.debate is not None
    debate = arguments.debate.tolist()
    for code, pairs in Counter(debate[: arguments.pairs]).items():
        parts = [count for batch in batches if (count := sum(debate[pair] == code for pair in batch))]
        if pairs <= size:
            assert parts == [pairs]
        else:  # near-equal parts, of which two may meet again in a batch
            number = -(-pairs // size)
            assert min(parts) >= pairs // number
            assert len(parts) <= number


@given(arguments=corpora(copies=False), size=sizes)
@some_examples
def test_themes_fill_batches_and_share_them_for_their_rests_only(arguments: Arguments, size: int) -> None:
    batches = planned("themes", round_of(arguments, size))
    assert sum(2 * len(batch) <= size for batch in batches) <= 1
    assert arguments.theme is not None
    theme = arguments.theme.tolist()
    for code, pairs in Counter(theme[: arguments.pairs]).items():
        parts = sorted(count for batch in batches if (count := sum(theme[pair] == code for pair in batch)))
        rest = [pairs % size] if pairs % size else []
        assert parts == rest + [size] * (pairs // size)


@given(arguments=corpora(copies=False), size=sizes)
@some_examples
def test_sizes_of_neighbours_differ_by_one_at_most(arguments: Arguments, size: int) -> None:
    found = sorted(map(len, planned("neighbours", round_of(arguments, size))))
    number = -(-arguments.pairs // size)
    assert found == sorted(len(part) for part in np.array_split(np.arange(arguments.pairs), number))


@pytest.mark.parametrize("clusters", [1, 2, 5, 8, 13])
def test_neighbours_finds_clusters(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    cluster = rng.permutation(np.repeat(np.arange(clusters), 6))
    vectors = 10 * rng.standard_normal((clusters, 7))[cluster] + 1e-4 * rng.standard_normal((len(cluster), 7))
    arguments = arguments_of(np.arange(2 * len(cluster)).reshape(-1, 2))
    batches = planned("neighbours", round_of(arguments, 6, vectors=vectors.astype(np.float32)))
    assert sorted(cluster[batch].tolist() for batch in batches) == [[code] * 6 for code in range(clusters)]


def test_neighbours_of_equal_vectors_are_drawn() -> None:
    arguments = arguments_of(np.arange(48).reshape(-1, 2))
    same = np.ones((24, 3), dtype=np.float32)
    first, second = (planned("neighbours", round_of(arguments, 8, epoch, same)) for epoch in (0, 1))
    assert sorted(map(len, first)) == [8, 8, 8]
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))


def test_the_direction_is_a_power_of_the_covariance() -> None:
    vectors = (np.random.default_rng(0).standard_normal((50, 6)) * np.arange(1, 7) + 5).astype(np.float32)
    start = np.random.default_rng(1).standard_normal(6)
    expected = np.linalg.matrix_power(np.cov(vectors.T.astype(np.float64)), POWER_STEPS) @ start
    found = spread_direction(vectors, np.random.default_rng(1))
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-3, atol=1e-5)


# --- runs ---------------------------------------------------------------------------------------------------------

SMALL = ("experiment=smoke", "data.max_pairs=20", "trainer.batch_size=6")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return a list to which every batch is added that is trained on."""
    batches: list[list[int]] = []
    build_batch = BatchBuilder.build

    def watched(self: BatchBuilder, pair: np.ndarray, negatives: Negatives) -> TextBatch:
        batches.append(pair.tolist())
        return build_batch(self, pair, negatives)

    monkeypatch.setattr(BatchBuilder, "build", watched)
    return batches


@pytest.mark.parametrize(("plan", "codes"), [("debates", "debate"), ("themes", "theme")])
def test_a_run_trains_on_the_planned_batches(
    plan: str, codes: str, run_training: Train, trained: list[list[int]]
) -> None:
    folder = run_training(*SMALL, f"batch={plan}", "trainer.epochs=1")
    split = load_corpus(load_run_config(folder / "config.yaml").data)["train"]
    assert trained == planned(plan, round_of(Arguments(split), 6))
    code = getattr(split, codes)
    assert len({(number, code[pair]) for number, batch in enumerate(trained) for pair in batch}) < len(split)
    metrics = pd.read_csv(folder / "metrics.csv").iloc[0]
    assert split.debate is not None
    debates: list[Counter[int]] = [Counter(split.debate[batch].tolist()) for batch in trained]
    assert metrics["batch_size"] == len(split) / len(trained)
    with_mates = sum(count for batch in debates for count in batch.values() if count > 1)
    assert metrics["batch_debate_share"] == pytest.approx(with_mates / len(split))


@pytest.mark.runs
def test_a_run_that_continues_has_the_same_neighbours(run_training: Train, trained: list[list[int]]) -> None:
    whole = run_training(*SMALL, "batch=neighbours", folder="whole")
    batches, trained[:] = [*trained], []
    assert [len(batch) for batch in batches] == [5] * 8
    continued = run_training(*SMALL, "batch=neighbours", "trainer.epochs=1")
    run_training(*SMALL, "batch=neighbours")
    assert trained == batches
    assert set(differences(continued, whole)) <= {"result.json"}


def test_a_corpus_without_the_column_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without: BatchPlan = build("batch", BatchConfig("themes", True))
    with pytest.raises(InputError, match="batch=themes: needs a theme for every pair, and the corpus has no column"):
        without.check_corpus(arguments_of(np.arange(6).reshape(3, 2), debate=np.arange(3)))
    table = tmp_path / "pairs.csv"
    table.write_text("point,counter\n" + "".join(f"point {row},counter {row}\n" for row in range(20)))
    overrides = ["experiment=smoke", "data=pairs", f"data.path={table}", "batch=debates"]
    assert main(["train", *overrides, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "negexp: batch=debates: needs a debate for every pair, and the corpus has no column debate; give the column, "
        "or choose batch=shuffled or batch=neighbours"
    )
    assert not (tmp_path / "run" / "config.yaml").exists()
