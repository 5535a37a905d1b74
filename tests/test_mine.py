"""`negexp mine`: the files, the report, what a run mines, and what is refused. No other library is needed for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_beir
import torch
from collections_of import Judged, judged
from conftest import compose_train
from hypothesis import assume, given
from hypothesis import strategies as st
from test_collection import round_of
from test_mining import Case, case, policy, taken
from test_sampling import some_examples
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from negexp.cli import main
from negexp.commands import train
from negexp.config.commands import NEGATIVE_FORMATS
from negexp.corpus import load_corpus
from negexp.mine.formats import FILES, FORMATS, rows_of
from negexp.mine.negatives import MinedPair
from negexp.mine.report import QUANTILES, quantiles, skipped_copies
from negexp.model import BuiltModel, build_model
from negexp.tracking import files

pytestmark = pytest.mark.runs

TINY = ["model=tiny", "model.hidden_size=16", "model.attention_heads=2", "model.max_length=32", "data.max_pairs=12"]
QUICK = ["device=cpu", "progress=never"]
SMOKE = ["experiment=smoke", "trainer.epochs=1", "trainer.threads=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same run, trained for one epoch (`one`) and for two (`two`)."""
    folder = tmp_path_factory.mktemp("mine")
    for name, epochs in (("one", 1), ("two", 2)):
        overrides = [*SMOKE, f"trainer.epochs={epochs}", "sampler.start_rate=0.5"]
        train.run(compose_train(*overrides), folder / name, overrides)
    return folder


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small cross-encoder with random weights."""
    return write_cross_encoder(tmp_path_factory.mktemp("cross-encoder"))


def write_cross_encoder(folder: Path, outputs: int = 1) -> Path:
    built: BuiltModel = build_model(compose_train("experiment=smoke").model, 0, ["parks and schools are good"] * 3)
    built.tokenizer.save_pretrained(folder)
    shape: Any = {
        "num_labels": outputs,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    torch.manual_seed(3)
    config = BertConfig(vocab_size=len(built.tokenizer), max_position_embeddings=48, **shape)
    model = BertForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight)  # as it starts, all scores are nearly the same
    model.save_pretrained(folder)
    return folder


def mine(*overrides: str) -> None:
    assert main(["mine", *QUICK, *overrides]) == 0


def texts_of(split: str = "train") -> tuple[list[str], list[str]]:
    """Return the points and the counters of the demo's pairs that `TINY` leaves."""
    corpus = load_corpus(compose_train("data.max_pairs=12").data)
    pairs = corpus[split]
    return [corpus.texts[row] for row in pairs.point], [corpus.texts[row] for row in pairs.counter]


# --- the formats ---------------------------------------------------------------------------------------------------

PAIRS = [
    MinedPair("p", "c", ["m", "n"], 0.5, [0.4, 0.25]),
    MinedPair("q", "d", ["m"], 0.75, [-0.5]),
    MinedPair("r", "e", [], 1.0, []),
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "triplet": [
        {"anchor": "p", "positive": "c", "negative": "m"},
        {"anchor": "p", "positive": "c", "negative": "n"},
        {"anchor": "q", "positive": "d", "negative": "m"},
    ],
    "n-tuple": [{"anchor": "p", "positive": "c", "negative_1": "m", "negative_2": "n"}],
    "n-tuple-scores": [
        {"anchor": "p", "positive": "c", "negative_1": "m", "negative_2": "n", "scores": [0.5, 0.4, 0.25]}
    ],
    "labeled-pair": [
        {"anchor": "p", "document": "c", "label": 1},
        {"anchor": "p", "document": "m", "label": 0},
        {"anchor": "p", "document": "n", "label": 0},
        {"anchor": "q", "document": "d", "label": 1},
        {"anchor": "q", "document": "m", "label": 0},
    ],
    "labeled-list": [
        {"anchor": "p", "documents": ["c", "m", "n"], "labels": [1, 0, 0]},
        {"anchor": "q", "documents": ["d", "m"], "labels": [1, 0]},
    ],
    "flagembedding": [
        {"query": "p", "pos": ["c"], "neg": ["m", "n"], "pos_scores": [0.5], "neg_scores": [0.4, 0.25]},
        {"query": "q", "pos": ["d"], "neg": ["m"], "pos_scores": [0.75], "neg_scores": [-0.5]},
    ],
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_these_rows_in_both_files(name: str, tmp_path: Path) -> None:
    assert rows_of(name, PAIRS, k=2) == ROWS[name]
    lines = FILES["jsonl"](ROWS[name]).decode().splitlines()
    assert [json.loads(line) for line in lines] == ROWS[name]
    (tmp_path / "rows.parquet").write_bytes(FILES["parquet"](ROWS[name]))
    table = pd.read_parquet(tmp_path / "rows.parquet")
    read = [
        {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]
    assert read == ROWS[name]


GRADED = [  # two queries, the first with two golds
    MinedPair("p", "c", ["m", "n"], 0.5, [0.4, 0.25], query=0),
    MinedPair("p", "d", [], 0.75, [], query=0),
    MinedPair("q", "c", ["m"], 1.0, [0.125], query=1),
    MinedPair("p", "e", ["n", "o"], 0.375, [0.25, 0.0], query=0),
]


def test_a_list_has_all_golds_of_its_query() -> None:
    assert rows_of("labeled-list", GRADED, k=2) == [
        {"anchor": "p", "documents": ["c", "d", "e", "m", "n", "o"], "labels": [1, 1, 1, 0, 0, 0]},
        {"anchor": "q", "documents": ["c", "m"], "labels": [1, 0]},
    ]
    first: dict[str, Any] = {"query": "p", "pos": ["c", "d", "e"], "neg": ["m", "n", "o"]}
    first |= {"pos_scores": [0.5, 0.75, 0.375], "neg_scores": [0.4, 0.25, 0.0]}
    second = {"query": "q", "pos": ["c"], "neg": ["m"], "pos_scores": [1.0], "neg_scores": [0.125]}
    assert rows_of("flagembedding", GRADED, k=2) == [first, second]
    assert [row["positive"] for row in rows_of("triplet", GRADED, k=2)] == ["c", "c", "c", "e", "e"]


def test_the_formats_are_the_choices_of_the_key() -> None:
    assert FORMATS == NEGATIVE_FORMATS


# --- the command ---------------------------------------------------------------------------------------------------


def test_a_run_mines_what_its_next_epoch_was_trained_with(runs: Path, here: Path) -> None:
    strategy = ["sampler=decay", "sampler.start_rate=0.5", "sampler.num_negatives=1"]
    mine(f"run={runs / 'one'}", *strategy, "sampler.exclude=[self,duplicates]", "output=out")
    found = pd.read_parquet("out/ledger.parquet")
    first, trained = (pd.read_parquet(runs / f"two/negatives/epoch-00{epoch}.parquet") for epoch in (0, 1))
    assert 0 < found["mined"].sum() < len(found)
    pd.testing.assert_frame_equal(found, trained)
    assert not found["row"].equals(first["row"])


def test_files_hold_the_ledgers_negatives_with_the_cross_encoders_scores(here: Path, cross_encoder: Path) -> None:
    """Draws, a cross-encoder that takes part in mining, and both files: the same command gives the same bytes."""
    strategy = ["sampler=scheduled", "sampler.random_rate=0.3", "mining=weighted", "sampler.mining.a=5"]
    command = [*TINY, *strategy, f"rescore={cross_encoder}", "format=n-tuple-scores", "split=validation", "seed=3"]
    mine(*command, "output=one", "file=parquet")
    mine(*command, "output=two", "file=parquet")
    names = sorted(path.name for path in Path("one").iterdir())
    assert names == ["distances.png", "ledger.parquet", "negatives.parquet", "report.json", "report.md"]
    for name in names:
        assert (here / "one" / name).read_bytes() == (here / "two" / name).read_bytes(), name
    points, counters = texts_of("validation")
    ledger = pd.read_parquet("one/ledger.parquet")
    assert 0 < ledger["mined"].sum() < len(ledger)
    rows = pd.read_parquet("one/negatives.parquet").to_dict("records")
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    model = AutoModelForSequenceClassification.from_pretrained(cross_encoder).eval()
    for pair, (point, counter) in enumerate(zip(points, counters, strict=True)):
        own = ledger[ledger["pair"] == pair]
        negatives = [
            (points if source == "point" else counters)[row]
            for source, row in zip(own["source"], own["row"], strict=True)
        ]
        row = rows[pair]
        assert [row["anchor"], row["positive"], *(row[f"negative_{one}"] for one in (1, 2, 3))] == [
            point,
            counter,
            *negatives,
        ]
        for text, score in zip([counter, *negatives], row["scores"], strict=True):
            tokens = tokenizer(point, text, truncation=True, max_length=48, return_tensors="pt")
            with torch.inference_mode():
                assert score == pytest.approx(model(**tokens).logits.sigmoid().item(), abs=1e-5)


def test_scores_are_cosines_and_the_report_counts_what_is_missing(here: Path) -> None:
    mine(*TINY, "mining=margin", "sampler.mining.share=0.999", "format=flagembedding", "output=out")
    ledger, report = pd.read_parquet("out/ledger.parquet"), json.loads(Path("out/report.json").read_text())
    points, _ = texts_of()
    lines = {row["query"]: row for row in map(json.loads, Path("out/negatives.jsonl").read_text().splitlines())}
    counts = [int((ledger["pair"] == pair).sum()) for pair in range(12)]
    for pair, point in enumerate(points):
        own = ledger[ledger["pair"] == pair]
        if counts[pair]:  # of unit vectors, a squared distance is 2 - 2 cos
            scores = lines.pop(point)
            np.testing.assert_allclose(scores["neg_scores"], 1 - own["distance"] ** 2 / 2, atol=1e-6)
            np.testing.assert_allclose(scores["pos_scores"], 1 - own["positive_distance"][:1] ** 2 / 2, atol=1e-6)
    assert lines == {}
    fewer = sum(count < 3 for count in counts)
    assert 0 < fewer < 12
    mined = report["mined"]
    assert mined["fewer"] == {
        "pairs": fewer,
        "without_negatives": counts.count(0),
        "why": {"too near, by the margin to the pair's own counter": fewer},
    }
    assert (mined["pairs"], mined["negatives"], mined["rows"]) == (12, len(ledger), 12 - counts.count(0))
    assert mined["nearer_share"] == (ledger["distance"] < ledger["positive_distance"]).mean()
    assert mined["quantiles"]["negative_distance"]["50%"] == pytest.approx(np.median(ledger["distance"]))
    assert mined["quantiles"]["distance_difference"]["max"] == (ledger["distance"] - ledger["positive_distance"]).max()
    text = Path("out/report.md").read_text()
    assert f"{fewer} pairs ({fewer / 12:.1%}) have fewer than 3" in text
    assert "![" in text
    assert Path("out/distances.png").read_bytes().startswith(b"\x89PNG")


def test_copies_are_no_negatives_and_the_report_counts_them(here: Path) -> None:
    words = ["park", "school", "tax", "train", "court", "port", "bridge", "farm", "mine", "river"]
    points = [f"the {word} should be free for everybody" for word in words]
    counters = [f"nobody pays for a {word} that is free" for word in words]
    points[1] = points[0].upper()
    counters[2], counters[5] = counters[3].replace(" ", "  "), counters[4]
    splits = ["train"] * 8 + ["validation", "test"]
    table = pd.DataFrame({"point": points, "counter": counters, "split": splits})
    table.to_csv("pairs.csv", index=False)
    mine(*TINY[:-1], "data=pairs", "data.path=pairs.csv", "sampler.num_negatives=5", "format=triplet", "output=out")
    rows = [json.loads(line) for line in Path("out/negatives.jsonl").read_text().splitlines()]
    assert len(rows) == 8 * 5
    plain = {
        number: [" ".join(row[name].lower().split()) for name in ("anchor", "positive", "negative")]
        for number, row in enumerate(rows)
    }
    golds: dict[str, set[str]] = {}
    for anchor, positive, _ in plain.values():
        golds.setdefault(anchor, set()).add(positive)
    for anchor, _, negative in plain.values():
        assert negative != anchor
        assert negative not in golds[anchor]
    by_pair = [[plain[number][2] for number in range(5 * pair, 5 * pair + 5)] for pair in range(8)]
    assert all(len(set(negatives)) == 5 for negatives in by_pair)
    copies = json.loads(Path("out/report.json").read_text())["mined"]["copies"]
    assert copies["skipped"] > 0
    assert copies["share"] == copies["skipped"] / (copies["skipped"] + 40)


def test_a_folder_of_beir_needs_the_split_that_is_mined_alone(here: Path) -> None:
    folder = test_beir.write(here / "beir")
    for name in ("dev", "test"):
        (folder / "qrels" / f"{name}.tsv").unlink()
    data = ["data=beir", f"data.path={folder}", *TINY[:-1]]
    mine(*data, "format=flagembedding", "output=out")
    rows = [json.loads(line) for line in Path("out/negatives.jsonl").read_text().splitlines()]
    assert len(rows) == 8  # of 16 pairs
    assert [len(row["pos"]) for row in rows] == [2] * 8
    assert not any(set(row["pos"]) & set(row["neg"]) for row in rows)
    assert json.loads(Path("out/report.json").read_text())["mined"]["copies"]["skipped"] == 0


def test_a_run_below_the_home_folder_is_found(
    runs: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(runs))
    mine("run=~/one", "output=out")
    assert Path("out/report.json").is_file()


# --- the report's numbers ------------------------------------------------------------------------------------------

tables = st.sampled_from(["both", "points"])
cases = st.builds(case, st.integers(0, 10**6), st.integers(3, 9), st.integers(1, 3), tables)


@some_examples
@given(one=cases, low=st.integers(0, 2))
def test_skipped_copies_are_those_nearer_than_the_last_negative(one: Case, low: int) -> None:
    round_, n = one.round(), one.problem.pairs
    negatives = round_.mine(np.arange(n), policy(name="window", low=low, high=low + one.problem.k))
    every = range(n) if one.candidates == "points" else range(2 * n)
    vectors = np.concatenate([one.problem.points, one.problem.counters]).astype(float)
    for pair, skipped in enumerate(skipped_copies(round_, negatives).tolist()):
        distance = {argument: distance for distance, argument, _ in one.allowed(pair)}
        last = max([distance[argument] for argument in taken(negatives, pair)], default=0.0)
        query = one.problem.queries[pair].astype(float)
        copies = [other for other in every if other not in distance and other not in (pair, n + pair)]
        assert skipped == sum(math.dist(query, vectors[copy]) < last for copy in copies)


@some_examples
@given(one=judged(), k=st.integers(1, 3), candidates=st.sampled_from(["both", "points", "counters"]))
def test_golds_of_a_query_are_no_skipped_copies(one: Judged, k: int, candidates: str) -> None:
    assume(len(one.grades) > 1)
    split, queries = one.split()[1], [query for query, _ in sorted(one.grades)]
    round_, n = round_of(one, split, candidates, "exact", k), len(split)
    negatives = round_.mine(np.arange(n), policy(name="nearest"))
    vectors = [*round_.space.candidate["point"], *round_.space.candidate["document"]]
    numbers = [*range(n), *range(2 * n, 2 * n + len(one.documents))]
    for pair, skipped in enumerate(skipped_copies(round_, negatives).tolist()):
        place = {
            number: (math.dist(round_.space.query[pair], vector), number)
            for number, vector in zip(numbers, vectors, strict=True)
            if candidates == "both" or (number < n) == (candidates == "points")
        }
        last = max((place[number] for number in taken(negatives, pair)), default=(-1.0, 0))
        own = {pair, *(2 * n + document for document in one.golds(queries[pair]))}
        own.add(2 * n + one.itself.get(queries[pair], -1 - 2 * n))
        nearer = np.array([number for number in place if place[number] < last and number not in own], dtype=int)
        assert skipped == round_.forbidden.contains(np.array(pair), nearer).sum()


def test_quantiles_of_a_few_numbers_and_of_none() -> None:
    found = quantiles(np.arange(21.0))
    assert found == {"mean": 10.0, **dict(zip(QUANTILES, [0.0, 1.0, 5.0, 10.0, 15.0, 19.0, 20.0], strict=True))}
    assert quantiles(np.empty(0)) is None


def test_a_scope_says_whether_it_or_its_policy_leaves_out_the_others() -> None:
    one = case(1, pairs=9, k=3)
    round_ = one.round()
    scope = {"name": "scope", "origin": ["debate"], "role": "counter", "stance": "any"}
    inner = {"name": "score", "low": None, "high": -1.0, "margin": None}
    reasons = policy(**scope, policy=inner).why_fewer(round_, np.arange(9))
    for pair, reason in enumerate(reasons):
        size = sum(one.in_scope(pair, argument, ["debate"], "counter", "any") for _, argument, _ in one.allowed(pair))
        assert reason == ("outside of the scope" if size < 3 else "outside of the bounds of the similarity")
    assert len(set(reasons)) == 2


# --- refusals ------------------------------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that refuses a command; no file is written or changed."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert main(["mine", *QUICK, *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("negexp: ")
    assert err.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return err.removeprefix("negexp: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=tiny"], "output: needs output=DIR: where negatives"),
        (["output=new"], "run=null: nothing says whose embeddings are searched; give run=DIR, or an encoder, as in"),
        (["output=full", "model=tiny"], "output=full: holds something already"),
        (["output=full/notes.txt", "model=tiny"], "output=full/notes.txt: is a file"),
        (["output=new", "model=tiny", "format=triplets"], "format=triplets: must be one of triplet, n-tuple, "),
        (["output=new", "model=tiny", "format=flagembedding", "file=parquet"], "file=parquet: FlagEmbedding reads"),
        (["output=new", "model=tiny", "file=csv"], "file=csv: must be one of jsonl, parquet"),
        (["output=new", "model=bm25"], "model.encoder=bm25: has no embeddings, whose distances are reported; use sam"),
        (["output=new", "model=tiny", "rescore=full"], "rescore=full: has no config.json; give the folder of a cross"),
        (["output=new", "run=nowhere"], "nowhere/config.yaml: not found; run= must name a folder"),
        (["output=new", "model=tiny", "data=pairs", "data.path=no.csv"], "data.path=no.csv: does not exist"),
        (["output=new", "model=tiny", "epoch=-1"], "epoch=-1: must be at least 0"),
        (["output=new", *TINY, "sampler.num_negatives=99"], "sampler.num_negatives=99: training pair 0 has only 22"),
        (["output=new", *TINY, "mining=score", "sampler.mining.high=-1"], "sampler.name=hard: found no negative for"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    assert refusal(capsys, *arguments).startswith(message)


def test_a_run_brings_its_own_model(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, f"run={runs / 'one'}", "model=tiny", "output=new")
    assert "the run brings its own model; leave out model, or leave out run" in message


def test_a_folder_that_is_no_cross_encoder_is_refused(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*TINY, "output=new", "rescore=folder"]
    folder = write_cross_encoder(here / "folder", outputs=2)
    assert "rescore=folder: has 2 outputs; give a cross-encoder with one score" in refusal(capsys, *command)
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert "rescore=folder: cannot be loaded" in refusal(capsys, *command)
    model = BertForSequenceClassification.from_pretrained(write_cross_encoder(folder)).bert
    model.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "num_labels": 1}))
    assert "rescore=folder: is no cross-encoder, since it has no weights for classifier" in refusal(capsys, *command)


def test_no_complete_tuple_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scope = ["mining=scope", "sampler.mining.origin=[debate]", "sampler.mining.role=counter", "data.max_pairs=5"]
    command = [*TINY[:-1], *scope, "output=new", "format=n-tuple", "sampler.num_negatives=6"]
    assert "format=n-tuple: no pair has all 6 negatives; lower sampler.num_negatives" in refusal(capsys, *command)


def test_a_full_disk_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(operation: str, path: Path) -> None:
        if operation == "sync" and path.name == "report.json":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "before_operation", fail)
    assert "cannot be written (No space left on device)" in refusal(capsys, *TINY, "output=new")
