"""BM25: scores against a plain loop of the formula, neighbours against brute force, runs that mine, the baseline."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Train, compose_train
from hypothesis import given
from hypothesis import strategies as st
from test_evaluation import reference_ranks
from test_sampling import DUPLICATES, build_sampler, config, no_index, some_examples

from negexp.cli import main
from negexp.config import BM25Config, SamplerConfig
from negexp.corpus import Split, load_corpus
from negexp.errors import InputError
from negexp.lexical import BM25
from negexp.randomness import generator
from negexp.sampling import Arguments, EmbeddingSpace, Forbidden, SamplingRound, Source
from negexp.sampling import lexical_source as module
from negexp.sampling.lexical_source import LexicalSource, mining_source

LUCENE = BM25Config(k1=1.5, b=0.75, method="lucene", stop_words="none")
METHODS = ("lucene", "robertson", "atire")


@cache
def words(text: str) -> list[str]:
    return re.findall(r"\w\w+", text.lower())


def formula(texts: Sequence[str], options: BM25Config) -> Callable[[str, str], float]:
    """Return the score of (query, document) as Kamphuis et al. (2020) define it; `texts` are the documents."""
    documents = [words(text) for text in texts]
    mean_length = sum(map(len, documents)) / len(documents)
    containing = Counter(word for document in documents for word in set(document))

    @cache
    def score(query: str, document: str) -> float:
        counts, length, total = Counter(words(document)), len(words(document)), 0.0
        for word in words(query):
            tf, df = counts[word], containing[word]
            if tf == 0:
                continue
            odds = (len(documents) - df + 0.5) / (df + 0.5)
            norm = options.k1 * (1 - options.b + options.b * length / mean_length)
            if options.method == "lucene":
                total += math.log(1 + odds) * tf / (tf + norm)
            elif options.method == "robertson":
                total += math.log(max(1.0, odds)) * tf / (tf + norm)
            else:
                total += math.log(len(documents) / df) * tf * (options.k1 + 1) / (tf + norm)
        return total

    return score


WORDS = ["Taxes", "taxes", "roads", "Zürich", "it", "a", "x", "...", "2nd", "non_stop"]
some_texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=7, unique=True)


@some_examples
@given(
    texts=some_texts,
    k1=st.sampled_from([0.0, 0.9, 1.5, 100.0]),
    b=st.sampled_from([0.0, 0.75, 1.0]),
    method=st.sampled_from(METHODS),
)
def test_scores_equal_the_formula(texts: list[str], k1: float, b: float, method: str) -> None:
    options, rows = BM25Config(k1, b, method, "none"), np.arange(len(texts))
    if not any(map(words, texts)):
        with pytest.raises(InputError, match="no text has a word"):
            BM25(texts, rows, options)
        return
    bm25 = BM25(texts, rows, options)
    score = formula(texts, options)
    expected = [[score(query, document) for document in texts] for query in texts]
    found = bm25.scores(rows, rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    # the same bits in any order, in any company, and pair by pair
    assert (bm25.scores(rows[::-1], rows[:1]) == found[::-1, :1]).all()
    query, document = np.divmod(np.arange(len(texts) ** 2), len(texts))
    assert (bm25.paired(query, document) == found.ravel()).all()


def test_only_the_given_texts_are_documents() -> None:
    texts = ["roads are roads", "taxes and more taxes", "taxes build roads", "zoos"]
    rows = np.array([0, 2, 3])
    found = BM25(texts, rows, LUCENE).scores(np.array([2, 3]), np.array([3, 0, 2, 0]))
    score = formula([texts[row] for row in rows], LUCENE)
    expected = [[score(texts[q], texts[d]) for d in (3, 0, 2, 0)] for q in (2, 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[1, 0] > 0 == found[1, 1]  # a word of one document, and no word in common


def test_stop_words_do_not_count() -> None:
    texts, without = ["The roads and taxes", "no taxes", "it is to be"], ["roads taxes", "taxes", ""]
    rows = np.arange(3)
    found = BM25(texts, rows, replace(LUCENE, stop_words="english")).scores(rows, rows)
    assert (found == BM25(without, rows, LUCENE).scores(rows, rows)).all()


# --- neighbours ---------------------------------------------------------------------------------------------------


def lexical(texts: Sequence[str], split: Split, options: SamplerConfig) -> tuple[SamplingRound, Source]:
    """Return a round whose neighbours are lexical, without an index over its embeddings, and the source."""
    arguments = Arguments(split)
    source = mining_source(options, texts, arguments)
    assert source is not None
    vectors = np.random.default_rng(0).normal(size=(3, len(split), 2)).astype(np.float32)
    space = EmbeddingSpace(vectors[0], {"point": vectors[1], "counter": vectors[2]}, no_index)
    forbidden = Forbidden(arguments, options.exclude)
    round_ = SamplingRound(
        arguments,
        forbidden,
        space,
        generator(0, 0, "negatives"),
        num_negatives=options.num_negatives,
        candidates=options.candidates,
    )
    return round_.mining_from(source), source


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[str], Split]:
    """Draw texts and pairs of them: many copies, ties, and texts without a word."""
    texts = [*draw(some_texts.filter(lambda texts: any(map(words, texts)))), "roads and zoos"]
    size = draw(st.integers(2, 8))
    numbers = st.lists(st.integers(0, len(texts) - 1), min_size=size, max_size=size)
    point, counter = (np.array(draw(numbers), dtype=np.int64) for _ in range(2))
    point[0] = len(texts) - 1  # so that some text has a word
    return texts, Split(tuple(map(str, range(size))), point, counter, None, None, None)


@some_examples
@given(
    candidates=st.sampled_from(["both", "points", "counters"]),
    exclude=st.sampled_from([["self"], DUPLICATES]),
    drawn=splits(),
    depths=st.lists(st.integers(1, 20), min_size=1, max_size=3),
)
def test_neighbours_equal_brute_force(
    candidates: str, exclude: list[str], drawn: tuple[list[str], Split], depths: list[int]
) -> None:
    texts, split = drawn
    round_, _ = lexical(texts, split, config(source="bm25", candidates=candidates, exclude=exclude))
    pairs, score = len(split), formula([texts[row] for row in split.texts()], LUCENE)
    argument_texts = [texts[row] for row in (*split.point, *split.counter)]
    bm25 = BM25(texts, split.texts(), LUCENE)
    first, last = round_.span
    for depth in depths:  # a later search may use what an earlier one kept
        found = round_.neighbours(np.arange(pairs), depth)
        for pair in range(pairs):
            # exact ties need exact scores; the test above compares these with the formula
            scores = bm25.scores(split.point[[pair]], np.concatenate([split.point, split.counter]))[0]
            others = sorted((a for a in range(first, last) if a != pair), key=lambda a: (-scores[a], a))
            free = [not bool(round_.forbidden.contains(np.array([pair]), np.array([a]))[0]) for a in others]
            wanted = [a for place, a in enumerate(others) if sum(free[:place]) < depth and any(free[place:])]
            if sum(free) < depth:
                wanted = others
            known = found.rank[pair] > 0
            assert found.argument[pair][known].tolist() == wanted
            expected = [-score(argument_texts[pair], argument_texts[a]) for a in wanted]
            np.testing.assert_allclose(found.distance[pair][known], expected, rtol=1e-12, atol=1e-12)
    own = [-score(argument_texts[pair], argument_texts[pairs + pair]) for pair in range(pairs)]
    np.testing.assert_allclose(round_.positive_distance, own, rtol=1e-12, atol=1e-12)


def test_what_is_not_kept_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(["roads", "taxes", "zoos", "farms"], 5)) for _ in range(40)]
    split = Split(tuple(map(str, range(20))), np.arange(20), np.arange(20, 40), None, None, None)
    some, everything = np.array([4, 7]), np.arange(20)
    searched: list[int] = []
    scores = BM25.scores

    def counted(self: BM25, query: np.ndarray, document: np.ndarray) -> np.ndarray:
        searched.append(len(query))
        return scores(self, query, document)

    monkeypatch.setattr(BM25, "scores", counted)
    for room, expected in ((module.KEPT_NEIGHBOURS, [2, 18, 20]), (0, [2, 20, 20, 20, 20]), (4 * 10, None)):
        monkeypatch.setattr(module, "KEPT_NEIGHBOURS", room)
        arguments = Arguments(split)
        bm25 = BM25(texts, np.arange(40), LUCENE)
        source, fresh = LexicalSource(arguments, bm25), LexicalSource(arguments, bm25)
        searched.clear()
        answers = [source.search("point", some, 3), source.search("point", everything, 4)]
        answers += [source.search("point", everything[::-1], 2), source.search("point", everything, 5)]
        answers.append(source.search("point", everything, 8))
        if expected is not None:
            assert searched == expected
        for found, pair, k in zip(
            answers, (some, everything, everything[::-1], everything, everything), (3, 4, 2, 5, 8), strict=True
        ):
            again = fresh.search("point", pair, k)
            assert all((mine == other).all() for mine, other in zip(found, again, strict=True))


def test_the_ledger_keeps_euclidean_distances() -> None:
    texts = ["roads and taxes", "taxes and roads", "zoos", "farms and zoos", "roads", "roads and zoos"]
    split = Split(("0", "1", "2"), np.arange(3), np.arange(3, 6), None, None, None)
    options = config(source="bm25", num_negatives=2)
    round_, source = lexical(texts, split, options)
    negatives = build_sampler(options).sample(round_)
    pair = np.arange(3)
    assert negatives.argument.tolist()[0] == [1, 5]  # all three words, then two of them
    assert (negatives.distance == round_.space.distance(pair, negatives.argument)).all()
    assert (round_.draw(pair).distance > 0).all()
    assert (round_.distance(pair, negatives.argument) == source.distance(pair, negatives.argument)).all()


# --- runs ---------------------------------------------------------------------------------------------------------


def test_a_run_mines_the_highest_scores_in_every_epoch(run_training: Train) -> None:
    folder = run_training("experiment=smoke", "sampler=bm25", "sampler.num_negatives=2")
    corpus = load_corpus(compose_train("experiment=smoke").data)
    train = corpus["train"]
    score = formula([corpus.texts[row] for row in train.texts()], LUCENE)
    both = [corpus.texts[row] for row in (*train.point, *train.counter)]
    for epoch in (0, 1):
        ledger = pd.read_parquet(folder / "negatives" / f"epoch-{epoch:03d}.parquet")
        assert (ledger["distance"] > 0).all()
        for pair in range(len(train)):
            mine = ledger[ledger["pair"] == pair]
            others = [a for a in range(len(both)) if a % len(train) != pair]  # the demo has no copies
            scores = {a: score(both[pair], both[a]) for a in others}
            best = sorted(others, key=lambda a: (-scores[a], a))[:2]
            found = [
                row + len(train) * (source == "counter")
                for source, row in zip(mine["source"], mine["row"], strict=True)
            ]
            np.testing.assert_allclose([scores[a] for a in found], [scores[a] for a in best], rtol=1e-9)
    assert (pd.read_csv(folder / "metrics.csv")["seconds_index"] == 0).all()  # no index over embeddings


def test_the_sampler_file_is_hard_with_another_source() -> None:
    assert compose_train("sampler=bm25") == compose_train("sampler=hard", "sampler.source=bm25")


# --- the baseline -------------------------------------------------------------------------------------------------


def test_evaluate_ranks_by_bm25(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["negexp"])
    keys = ["model.bm25.k1=0.9", "model.bm25.b=0.4", "model.bm25.method=atire", "data.max_pairs=12", "trec=true"]
    assert main(["evaluate", "model=bm25", *keys, "split=validation", "output=here"]) == 0
    ranks = pd.read_parquet("here/evaluation/validation-ranks.parquet")
    corpus = load_corpus(compose_train("data.max_pairs=12").data)
    split = corpus["validation"]
    by_text = formula([corpus.texts[row] for row in split.texts()], BM25Config(0.9, 0.4, "atire", "none"))

    def score(query: int, document: int) -> float:
        return by_text(corpus.texts[query], corpus.texts[document])

    table = {key: value for key, value in reference_ranks(split, score, score, 1).items() if key[2] == "retrieval"}
    columns = ["query", "protocol", "stage", "task", "rank", "candidates"]
    assert {tuple(row[:4]): tuple(row[4:]) for row in ranks[columns].itertuples(index=False)} == table
    assert set(ranks["stage"]) == {"retrieval"}
    assert len(list(Path("here/trec").glob("*.run"))) == 16
    run = pd.read_csv("here/trec/validation-clean-retrieval-epa.run", sep=" ", header=None)
    text = dict(
        zip(
            [f"{i}/point" for i in split.ids] + [f"{i}/counter" for i in split.ids],
            [*split.point, *split.counter],
            strict=True,
        )
    )
    query = dict(zip(split.ids, split.point, strict=True))
    expected = [score(query[q], text[d]) for q, d in zip(run[0], run[2], strict=True)]
    np.testing.assert_allclose(run[4], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "model=bm25"],
            "model.encoder=bm25: BM25 learns nothing; rank with it by negexp evaluate model=bm25",
        ),
        (["train", "sampler=bm25", "sampler.bm25.b=1.01"], "sampler.bm25.b=1.01: must be between 0 and 1"),
        (["bench", "sampler=bm25"], "sampler.source=bm25: bench times the search among embeddings; leave it out"),
        (["train", "sampler.source=bm52"], "sampler.source=bm52: must be one of embeddings, bm25"),
        (["evaluate", "model=bm25", "model.bm25.k1=-1"], "model.bm25.k1=-1.0: must be between 0 and 100"),
        (["evaluate", "model=bm25", "model.bm25.method=okapi"], "model.bm25.method=okapi: must be one of lucene, "),
        (["evaluate", "model=bm25", "data=pairs", "data.path=empty.csv"], "BM25: no text has a word that counts"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["negexp"])
    rows = [f"{split} ? {row},{split} ! {row},{split}" for split in ("t", "v", "e") for row in range(3)]
    names = {"t": "train", "v": "validation", "e": "test"}
    lines = [",".join([*row.split(",")[:2], names[row[-1]]]) for row in rows]
    Path("empty.csv").write_text("\n".join(["point,counter,split", *lines]), encoding="utf-8")
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_bm25_does_not_start_jax(tmp_path: Path) -> None:
    package = tmp_path / "jax"
    package.mkdir()
    (package / "__init__.py").write_text("print('jax was imported')\n", encoding="utf-8")
    (package / "lax.py").write_text("def top_k(scores, k): print('jax was started')\n", encoding="utf-8")
    script = "import negexp.lexical, sys; assert 'jax' not in sys.modules; print('then'); import jax"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert found.stdout.split("\n") == ["then", "jax was imported", ""]
