"""`negexp search`: the ranks of the evaluation, kept embeddings, files of texts, outputs, and what is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import test_beir
import torch
from conftest import compose_train
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import load_file, save

from negexp.application.compose import quote_path, quote_text
from negexp.cli import main
from negexp.commands import train
from negexp.commands.search import COMMAND
from negexp.config import CONF_DIR, SearchConfig, load_run_config, parse_config
from negexp.corpus import SPLITS, Corpus, load_corpus
from negexp.corpus.limits import Limits
from negexp.errors import InputError
from negexp.evaluation import Combination
from negexp.index.backends.exact import ExactIndex
from negexp.kept.store import TextVectors, VectorStore, make_block, text_digests
from negexp.kept.tidy import remove_other_weights
from negexp.model import BuiltModel, Role, Vectors
from negexp.pair_tokens import PairReader
from negexp.runtime import choose_runtime
from negexp.search import embed
from negexp.search.candidates import Candidates
from negexp.search.embed import TextEmbedder
from negexp.search.output import Answer, table, text, write
from negexp.search.ranking import Ranking, nearest, reranked
from negexp.search.run import search
from negexp.search.texts import read_texts
from negexp.tokens import tokenize
from negexp.tracking.files import sha256
from negexp.training import TrainedRun

pytestmark = pytest.mark.runs

WORDS = ["tax", "school", "park", "train", "court", "farm", "port", "bank", "road", "mine", "zoo", "lab"]
SMOKE = ["experiment=smoke", "trainer.epochs=1", "data=pairs", "model.max_length=24", "evaluation.rerank_k=5"]
RUNS = {
    "pair": ["model.query_head=residual", "evaluation.rerank_weight=0.4"],
    "unshared": ["model.shared_encoder=false", "model.normalize=false", "evaluation.rerank_weight=0"],
    "cross": [
        *("loss=triplet", "model.reranker=cross", "trainer.monitor=clean/retrieval/epa/mrr"),
        *("reranker.epochs=1", "reranker.max_length=24", "evaluation.rerank_weight=0.5"),
    ],
}
LIMITS = Limits(max_bytes=2**24, max_files=1)


def pairs(path: Path) -> Path:
    """Write twelve pairs a split. In test, a counter and a point have copies with another spelling."""
    rng = np.random.default_rng(3)

    def sentence() -> str:
        return " ".join(rng.choice(WORDS, 8))

    rows = [
        {
            "point": sentence(),
            "counter": sentence(),
            "split": split,
            "theme": f"theme {i % 2}",
            "debate": f"debate {i % 4}",
        }
        for split in SPLITS
        for i in range(12)
    ]
    test = rows[24:]
    test[3]["counter"] = test[1]["counter"].upper()
    test[7]["point"] = test[5]["counter"].upper()
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that trains the run of a name once."""
    folder = tmp_path_factory.mktemp("search")
    data = f"data.path={pairs(folder / 'pairs.csv')}"

    def run(name: str) -> Path:
        if not (folder / name / "result.json").exists():
            train.run(compose_train(*SMOKE, data, *RUNS[name]), folder / name, [*SMOKE, data, *RUNS[name]])
        shutil.rmtree(folder / name / "search", ignore_errors=True)
        return folder / name

    return run


@pytest.fixture
def run(runs: Callable[[str], Path]) -> Path:
    """Return the run with a pair classifier, without kept embeddings."""
    return runs("pair")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("sys.argv", ["negexp"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return tmp_path / "here"


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the texts of every call that embeds."""
    calls: list[list[str]] = []

    def recorded(texts: Any, *arguments: Any) -> Any:
        calls.append(list(texts))
        return tokenize(texts, *arguments)

    monkeypatch.setattr(embed, "tokenize", recorded)
    return calls


@cache  # composing takes a fifth of a second
def composed() -> SearchConfig:
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        return parse_config(compose("search", ["run=RUN", "device=cpu", "progress=never"]), SearchConfig)


def configured(run: Path, **changes: Any) -> SearchConfig:
    """Return the configuration of `negexp search run=RUN KEY=VALUE ...`, with the run's data."""
    data = load_run_config(run / "config.yaml").data if (run / "config.yaml").exists() else composed().data
    return replace(composed(), run=str(run), data=data, **changes)


def answer(run: Path, **changes: Any) -> Answer:
    return search(configured(run, **changes), [])


def found_by(run: Path, **changes: Any) -> pd.DataFrame:
    """Return the table of a search."""
    return table(answer(run, **changes))


def corpus_of(run: Path) -> Corpus:
    return load_corpus(load_run_config(run / "config.yaml").data)


def write_queries(corpus: Corpus, split: str) -> dict[str, int]:
    """Write the distinct points of a split to queries.jsonl; return their ids, each with its row of the split."""
    own = corpus[split]
    rows = {own.ids[row]: row for row in range(len(own))}
    lines = [json.dumps({"_id": id_, "text": corpus.texts[own.point[row]]}) for id_, row in rows.items()]
    Path("queries.jsonl").write_text("\n".join(lines))
    return rows


# --- the order -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["retrieval", "reranked"])
@pytest.mark.parametrize(("task", "candidates"), [("epc", "counters"), ("epa", "all")])
@pytest.mark.parametrize("name", RUNS)
def test_the_candidates_have_the_ranks_of_the_evaluation(
    name: str, task: str, candidates: str, stage: str, runs: Callable[[str], Path]
) -> None:
    run = runs(name)
    corpus = corpus_of(run)
    split = corpus["test"]
    rows = write_queries(corpus, "test")
    rerank = stage == "reranked"
    found = found_by(run, queries="queries.jsonl", split="test", candidates=candidates, k=99, rerank=rerank)
    ranks = pd.read_parquet(run / "evaluation" / "test-ranks.parquet")
    ranks = ranks.query("protocol == 'clean' and task == @task and stage == @stage").set_index("query")
    assert len(ranks) > 10
    place = {
        f"{id_}/{part}": int(split.identify(getattr(split, part)[[row]])[0])
        for part in ("counter", "point")
        for row, id_ in enumerate(split.ids)
    }
    for query, expected in ranks.iterrows():
        own = found[found["query"] == query]
        assert own["rank"].tolist() == list(range(1, expected["candidates"] + 1))
        gold = split.counter_identity[rows[str(query)]]
        assert own["rank"][[place[id_] == gold for id_ in own["id"]]].tolist() == [expected["rank"]]
        assert own["id"].iloc[0] == expected["first"]
    assert ("combined" in found) == rerank
    if rerank:
        assert found.query("rank <= 5")["combined"].notna().all()
        assert found.query("rank > 5")["combined"].isna().all()


@pytest.fixture(scope="module")
def collection_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on a folder of BEIR: 24 queries, 42 documents, of which one is a test query in other words."""
    folder = test_beir.write(tmp_path_factory.mktemp("collection") / "made")
    with open(folder / "corpus.jsonl", "a", encoding="utf-8") as file:
        for id_, text in (("q17", "Parks are bad, in case 17 for example."), ("d40", "Statement 40 is about zoos.")):
            file.write(json.dumps({"_id": id_, "title": "", "text": text}) + "\n")
    keys = ["data=beir", f"data.path={folder}", "data.max_pairs=null", "trainer.monitor=clean/retrieval/epc/mrr"]
    keys = ["experiment=smoke", "trainer.epochs=1", *keys, "evaluation.rerank_k=5", "evaluation.rerank_weight=0.4"]
    train.run(compose_train(*keys), folder.with_name("run"), keys)
    return folder.with_name("run")


@pytest.mark.parametrize("stage", ["retrieval", "reranked"])
@pytest.mark.parametrize(("task", "candidates"), [("epc", "counters"), ("epa", "all")])
def test_documents_of_a_collection_have_the_ranks_of_the_evaluation(
    task: str, candidates: str, stage: str, collection_run: Path
) -> None:
    corpus = corpus_of(collection_run)
    write_queries(corpus, "test")
    asked = {"queries": "queries.jsonl", "split": "test", "candidates": candidates, "rerank": stage == "reranked"}
    found = found_by(collection_run, **asked, k=99)
    ranks = pd.read_parquet(collection_run / "evaluation" / "test-ranks.parquet")
    ranks = ranks.query("protocol == 'clean' and task == @task and stage == @stage").set_index("query")
    assert len(ranks) == 8
    for query, expected in ranks.iterrows():
        own = found[found["query"] == query]
        number = int(str(query).removeprefix("q"))
        golds = own["rank"][own["id"].isin([f"d{number}", f"d{number + 1}"])]
        assert (len(own), golds.min(), own["id"].iloc[0]) == (
            expected["candidates"],
            expected["rank"],
            expected["first"],
        )
        documents = own[own["source"] == "document"]
        assert len(documents) == 42 - (query == "q17")
        assert documents["split"].isna().all()
        assert ("q17" in set(own["id"])) == (query != "q17")
        assert (len(own) - len(documents), own["copies"].max()) == (7 if task == "epa" else 0, 1)
    everywhere = found_by(collection_run, query="Why?", k=99, candidates="all")
    assert everywhere["source"].value_counts().to_dict() == {"document": 42, "point": 24}


@pytest.mark.parametrize("name", ["pair", "unshared"])
def test_scores_are_those_of_single_forward_calls(name: str, runs: Callable[[str], Path]) -> None:
    run = runs(name)
    found = found_by(run, query="tax the farm", k=99, rerank=False)
    trained = TrainedRun.read(run)
    built = trained.model("off")
    built.model.eval()

    @torch.inference_mode()
    def vector(text: str, role: Any) -> torch.Tensor:
        tokens = built.tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
        retrieval, pooled = built.model(tokens["input_ids"], tokens["attention_mask"], role)
        return (built.model.as_queries(Vectors(retrieval, pooled)).retrieval if role == "query" else retrieval)[0]

    query = vector("tax the farm", "query")
    others = torch.stack([vector(text, "candidate") for text in found["text"]])
    expected = others @ query if name == "pair" else -torch.linalg.vector_norm(others - query, dim=1)
    assert np.allclose(found["score"], expected, atol=1e-5)
    assert (np.diff(found["score"]) <= 0).all()
    assert len(found) == 35


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_the_nearest_equal_a_plain_loop_without_the_own_text(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = rng.integers(0, 2, (6, 3)).astype(np.float32), rng.integers(0, 2, (4, 3)).astype(np.float32)
    own = rng.integers(-1, 6, (4, 2))
    index = ExactIndex(vectors, 2**20, torch.device("cpu"))
    found = nearest(index, queries, Candidates([""] * 6, {}, own), k)
    for row in range(4):
        rest = [c for c in range(6) if c not in own[row]]
        expected = sorted(rest, key=lambda c: (((queries[row] - vectors[c]) ** 2).sum(), c))[:k]
        kept = found.candidate[row] >= 0
        assert found.candidate[row][kept].tolist() == expected
        assert np.allclose(found.distance[row][kept] ** 2, [((queries[row] - vectors[c]) ** 2).sum() for c in expected])
        assert kept.tolist() == sorted(kept, reverse=True)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_second_stage_equals_a_plain_loop(weight: float) -> None:
    rng = np.random.default_rng(0)
    candidate = np.array([[3, 1, 4, 0, 2], [2, 0, -1, -1, -1]])
    distance = np.where(candidate < 0, np.inf, np.sort(rng.random((2, 5)), axis=1))
    odds = rng.standard_normal((2, 5))
    before = Ranking(candidate, distance, np.full((2, 5), np.nan))
    combination = Combination(weight, 2.0)
    after = reranked(before, 3, lambda query, found: odds[query[:, None], found], combination)
    for row, own in enumerate(([3, 1, 4], [2, 0])):
        score = {c: (1 - weight) * odds[row, c] - weight * 2 * distance[row, i] ** 2 for i, c in enumerate(own)}
        expected = sorted(own, key=lambda c: -score[c])
        assert after.candidate[row].tolist() == [*expected, *candidate[row, len(own) :]]
        assert np.allclose(after.combined[row, : len(own)], [score[c] for c in expected])
        assert np.isnan(after.combined[row, 3:]).all()


def test_copies_are_one_candidate_at_its_first_place(run: Path) -> None:
    found = found_by(run, query="tax", split="test", k=99)
    rows = {row["id"]: row for row in found.to_dict("records")}
    corpus = corpus_of(run)
    first, copy = (corpus["test"].ids[row] for row in (1, 3))
    assert f"{copy}/counter" not in rows
    stands = [rows[f"{first}/counter"][name] for name in ("source", "split", "theme", "debate", "copies")]
    assert stands == ["counter", "test", "theme 1", "debate 1", 2]
    assert found["stance"].isna().all()
    everything = found_by(run, query="tax", k=99, candidates="all")
    assert set(everything["split"]) == set(SPLITS)
    assert len(everything) == len({text.lower() for text in corpus.texts})


# --- kept embeddings -----------------------------------------------------------------------------------------------


def test_a_second_search_embeds_the_query_only(run: Path, embedded: list[list[str]]) -> None:
    first = found_by(run, query="tax the farm")
    assert [len(texts) for texts in embedded] == [1, 35]
    assert len(list(run.glob("search/*/*.safetensors"))) == 1
    embedded.clear()
    pd.testing.assert_frame_equal(found_by(run, query="tax the farm"), first)
    assert embedded == [["tax the farm"]]
    Path("more.txt").write_text("\n".join([*corpus_of(run).texts[:3], "a new one"]))
    found_by(run, query="school", documents="more.txt")
    assert embedded[2] == [text for text in Path("more.txt").read_text().split("\n") if text not in first_texts(run)]
    embedded.clear()
    found_by(run, query="tax the farm", keep=False)
    assert [len(texts) for texts in embedded] == [1, 35]


def first_texts(run: Path) -> set[str]:
    """Return the texts of the counters."""
    corpus = corpus_of(run)
    return {corpus.texts[row] for split in SPLITS for row in corpus[split].counter}


def test_what_was_embedded_before_a_stop_is_kept(
    run: Path, embedded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "BLOCK_TEXTS", 10)
    complete = found_by(run, query="tax", keep=False)
    made = iter(range(99))

    def stopping(*arguments: Any) -> Any:
        if next(made) == 2:
            raise KeyboardInterrupt
        return make_block(*arguments)

    monkeypatch.setattr(embed, "make_block", stopping)
    with pytest.raises(KeyboardInterrupt):
        found_by(run, query="tax")
    monkeypatch.setattr(embed, "make_block", make_block)
    embedded.clear()
    pd.testing.assert_frame_equal(found_by(run, query="tax"), complete)
    assert [len(texts) for texts in embedded] == [1, 10, 5]


def embedder(run: Path, precision: str = "float32", pooled: bool = True) -> TextEmbedder:
    trained = TrainedRun.read(run)
    return TextEmbedder(trained, trained.model("off"), choose_runtime("cpu", precision, None), pooled, "never")


def test_the_place_of_the_vectors_names_all_that_they_depend_on(run: Path, here: Path) -> None:
    copy = shutil.copytree(run, here / "run")
    base = embedder(copy)
    names = [base.store().folder.name, embedder(copy, "bfloat16").store().folder.name]
    names.append(embedder(copy, pooled=False).store().folder.name)
    for change in ({"max_length": 23}, {"pooling": "cls"}, {"normalize": False}):
        config = replace(base.run.config, model=replace(base.run.config.model, **change))
        names.append(replace(base, run=replace(base.run, config=config)).store().folder.name)
    for role in get_args(Role):
        store = VectorStore(copy, "0" * 64, base._key(role), {"retrieval": 16}, remove_other_weights)
        names.append(store.folder.name)
    tokenizer = copy / "encoder" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    names.append(base.store().folder.name)
    assert len(set(names)) == len(names)
    assert base.store().folder.name.startswith(sha256(base.run.commit.weights)[:16])


def test_vectors_of_other_weights_are_removed_and_no_other_folder(run: Path) -> None:
    found_by(run, query="tax")
    (own,) = (run / "search").iterdir()
    stale = run / "search" / f"{'0' * 16}-{own.name[17:]}"
    same = run / "search" / f"{own.name[:16]}-{'0' * 16}"
    for folder in (stale, same, run / "search" / "notes"):
        folder.mkdir()
    Path("documents.txt").write_text("a text that is new")
    found_by(run, query="tax", documents="documents.txt")
    assert sorted(path.name for path in (run / "search").iterdir()) == sorted([own.name, same.name, "notes"])


def named(folder: Path, data: bytes) -> Path:
    path = folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
    path.write_bytes(data)
    return path


def truncated(block: Path) -> None:
    block.write_bytes(block.read_bytes()[:-100])


def flipped(block: Path) -> None:
    data = bytearray(block.read_bytes())
    data[-7] ^= 1
    block.write_bytes(data)


def renamed(block: Path) -> None:
    block.rename(block.with_name(f"{'0' * 64}.safetensors"))


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Return a damage that leaves a complete file with the right name."""

    def damage(block: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(block).items()}
        change(tensors)
        block.unlink()
        named(block.parent, save(tensors))

    return damage


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["retrieval"][3, 2] = torch.nan


def pickled(block: Path) -> None:
    block.unlink()
    named(block.parent, pickle.dumps({"retrieval": [1.0]}))


def linked(block: Path) -> None:
    block.rename(Path("outside.safetensors"))
    block.symlink_to(Path("outside.safetensors").resolve())


def piped(block: Path) -> None:
    block.unlink()
    os.mkfifo(block)


def oversized(block: Path) -> None:
    with open(block, "r+b") as file:
        file.truncate(2**40)  # sparse: it takes no space


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": truncated,
    "one bit": flipped,
    "renamed": renamed,
    "empty": lambda block: block.write_bytes(b""),
    "not finite": changed(not_finite),
    "another size": changed(lambda tensors: tensors.update(retrieval=tensors["retrieval"][:, :3].contiguous())),
    "fewer vectors": changed(lambda tensors: tensors.update(retrieval=tensors["retrieval"][:-1].contiguous())),
    "a number": changed(lambda tensors: tensors.update(text=torch.tensor(1, dtype=torch.uint8))),
    "another type": changed(lambda tensors: tensors.update(retrieval=tensors["retrieval"].double())),
    "no vectors": changed(lambda tensors: tensors.pop("retrieval")),
    "a pickle": pickled,
    "a link": linked,
    "a pipe": piped,
    "oversized": oversized,
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_block_is_noticed_and_made_anew(case: str, run: Path) -> None:
    texts = [f"{one} {other}" for one in WORDS[:3] for other in WORDS]
    embedding = embedder(run)
    expected, new = embedding.candidates(texts, keep=True)
    (block,) = run.glob("search/*/*.safetensors")
    before = block.read_bytes()
    DAMAGES[case](block)
    found, embedded = embedding.candidates(texts, keep=True)
    assert (new, embedded) == (36, 36)
    assert torch.equal(found.part("retrieval"), expected.part("retrieval"))
    assert torch.equal(found.part("pooled"), expected.part("pooled"))
    assert [path.name for path in block.parent.iterdir()] == [block.name]
    assert block.read_bytes() == before
    assert embedding.candidates(texts, keep=True)[1] == 0
    outside = Path("outside.safetensors")
    assert not outside.exists() or outside.read_bytes() == before


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of warnings: whether others are logged depends on what ran before in this process."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_damaged_block_is_one_line(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    found_by(run, query="tax")
    (block,) = run.glob("search/*/*.safetensors")
    truncated(block)
    found_by(run, query="tax")
    assert warnings(caplog) == [f"{block.parent}: 1 of 1 files are damaged; their texts are embedded again"]


def a_file(root: Path) -> None:
    root.write_text("a file")


def a_link(root: Path) -> None:
    Path("elsewhere").mkdir()
    root.symlink_to(Path("elsewhere").resolve())


@pytest.mark.parametrize("make", [a_file, a_link])
def test_a_folder_that_cannot_be_written_is_one_line_and_no_error(
    make: Callable[[Path], None],
    run: Path,
    here: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embed, "BLOCK_TEXTS", 10)
    expected = found_by(run, query="tax")
    copy = shutil.copytree(run, here / "run", ignore=shutil.ignore_patterns("search"))
    make(copy / "search")
    pd.testing.assert_frame_equal(found_by(copy, query="tax"), expected)
    (line,) = warnings(caplog)
    assert "cannot be written" in line
    assert not list(Path().glob("elsewhere/*"))


def test_a_full_disk_leaves_no_part_of_a_block(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        texts, count = ["a", "b"], embedder(run).candidates(["a", "b"], keep=True)[1]
    assert count == len(texts)
    assert list(run.glob("search/*/*")) == []


def test_searches_at_the_same_time_do_not_disturb_each_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = [str(number) for number in range(40)]
    values = torch.arange(40.0)[:, None] * torch.ones(1, 500)
    start = threading.Barrier(4)

    def one(worker: int) -> bool:
        own = VectorStore(tmp_path / "search", "a" * 64, {}, {"retrieval": 500}, remove_other_weights)
        start.wait()
        for first in range(0, 40, 10):  # two workers write the same blocks, two write others
            size = 10 if worker % 2 else 7
            own.add(make_block(text_digests(texts[first : first + size]), {"retrieval": values[first : first + size]}))
            own.blocks()
        found = TextVectors(text_digests(texts))
        for block in own.blocks():
            found.add(block)
        there = found.block >= 0
        return bool(torch.equal(found.part("retrieval", np.flatnonzero(there)), values[torch.from_numpy(there)]))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(4)))
    assert caplog.text == ""
    names = [path.name for path in (tmp_path / "search").glob("*/*")]
    assert len(names) == 8
    assert all(name.endswith(".safetensors") and not name.startswith(".") for name in names)


# --- files ---------------------------------------------------------------------------------------------------------


def as_file(name: str, rows: list[dict[str, Any]]) -> Path:
    frame, path = pd.DataFrame(rows), Path(name)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_texts_of_every_table(name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"_id": "d1", "title": "Ports", "text": "They cost.", "theme": "trade"},
        {"_id": "d 2", "title": "", "text": " It is, \u201cfree\u201d ", "theme": None},
        {"_id": "d3", "title": "Nothing but a title", "text": "", "theme": "ports"},
    ]
    found = read_texts(as_file(name, rows), "documents", LIMITS)
    assert found.ids == ["d1", "d 2", "d3"]
    assert found.texts == ["Ports They cost.", "It is, \u201cfree\u201d", "Nothing but a title"]
    assert found.metadata == {"theme": ["trade", None, "ports"]}


def test_texts_without_ids_have_numbers() -> None:
    Path("t.txt").write_bytes(b"one\r\n\n  two, three\n")
    assert read_texts(Path("t.txt"), "queries", LIMITS) == (["1", "3"], ["one", "two, three"], {})
    assert read_texts(as_file("t.csv", [{"text": "one"}, {"text": "two"}]), "queries", LIMITS).ids == ["1", "2"]


WRONG: dict[str, tuple[str, bytes, str]] = {
    "no column": ("a.csv", b"id,words\n1,x\n", "queries=a.csv: has no column 'text'; found id, words"),
    "an empty cell": ("a.csv", b"id,text\n1,x\n2,\n", "a.csv:3: text is empty"),
    "an id twice": (
        "a.jsonl",
        b'{"id":"1","text":"x"}\n{"id":"1","text":"y"}',
        "a.jsonl:2: id=1 is that of a.jsonl:1 too",
    ),
    "no id": ("a.jsonl", b'{"id":"1","text":"x"}\n{"text":"y"}', "a.jsonl:2: id is empty"),
    "no JSON": ("a.jsonl", b'{"text":"x"}\n{"text":', "a.jsonl:2: is not JSON"),
    "a number": ("a.jsonl", b'{"text":5}', "a.jsonl:1: text=5 is not a text"),
    "half a pair": ("a.jsonl", b'{"text":"\\ud800"}', "a.jsonl:1: text holds half of a surrogate pair"),
    "not UTF-8": ("a.txt", b"x\n\xff", "a.txt: byte 2 is not UTF-8"),
    "no text": ("a.txt", b" \n\n", "queries=a.txt: holds no text; write one a line"),
    "no rows": ("a.csv", b"text\n", "queries=a.csv: holds no rows; write one text per row"),
    "a pickle": ("a.parquet", pickle.dumps([1]), "a.parquet: cannot be read as Parquet"),
    "too large": ("a.txt", b"x" * (LIMITS.max_bytes + 1), "data.max_bytes=16777216: a.txt holds more"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_with_its_line(case: str) -> None:
    name, content, message = WRONG[case]
    Path(name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read_texts(Path(name), "queries", LIMITS)
    assert str(error.value).startswith(message)


def test_documents_take_the_place_of_the_corpus(run: Path) -> None:
    rows = [{"id": f"d{i}", "text": f"{word} and {word}", "stance": "con"} for i, word in enumerate(WORDS)]
    as_file("documents.jsonl", [*rows, {"id": "copy", "text": "TAX and tax", "stance": None}])
    Path("queries.csv").write_text("text,id\nWho pays?,q 1\nZoo and  zoo,q2\n")
    copy = shutil.copytree(run, Path("run"))
    config = (copy / "config.yaml").read_text()
    assert "pairs.csv" in config
    (copy / "config.yaml").write_text(config.replace("pairs.csv", "gone.csv"))  # the corpus is not needed
    found = found_by(copy, queries="queries.csv", documents="documents.jsonl", k=20)
    assert found.groupby("query").size().to_dict() == {"q 1": 12, "q2": 11}
    assert set(found["source"]) == {"document"}
    assert found[found["id"] == "d0"]["copies"].tolist() == [2, 2]
    assert "d10" not in set(found.query("query == 'q2'")["id"])  # the query's own text
    assert found["split"].isna().all()
    assert (found["stance"] == "con").all()


# --- output --------------------------------------------------------------------------------------------------------


def test_every_output_says_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_file("q.jsonl", [{"id": "q 1", "text": "tax the zoo"}, {"id": "q2", "text": "a lab for the court"}])
    arguments = [f"run={run}", "queries=q.jsonl", "k=7", "device=cpu"]
    assert main(["search", *arguments, "output=o.parquet"]) == 0
    assert capsys.readouterr().out.endswith("\nthe candidates of 2 queries in o.parquet\n")
    found, same = pd.read_parquet("o.parquet"), answer(run, queries="q.jsonl", k=7)
    for kind in ("csv", "jsonl", "run"):
        write(same, Path(f"o.{kind}"))
    for other in (pd.read_csv("o.csv"), pd.read_json("o.jsonl", lines=True)):
        assert other[["query", "rank", "id", "text"]].equals(found[["query", "rank", "id", "text"]])
        assert np.allclose(other["score"], found["score"])
    lines = [line.split() for line in Path("o.run").read_text().splitlines()]
    ids = [[query, "Q0", id_, str(rank)] for query, id_, rank in found[["query", "id", "rank"]].to_numpy().tolist()]
    assert [line[:4] for line in lines] == [[cell.replace(" ", "%20") for cell in row] for row in ids]
    assert {line[5] for line in lines} == {"negexp-reranked"}
    scores = [float(line[4]) for line in lines]
    assert scores[:7] == sorted(scores[:7], reverse=True)
    assert main(["search", *arguments]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line[:6].strip().isdigit()][3].endswith(found["id"][3])
    assert "\nq 1: tax the zoo\n" in out
    assert "; the 5 nearest are ordered by combined = 60 % pair classifier + 40 % distance; the others follow, " in out


def test_the_cross_encoder_reads_the_nearest_only(runs: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []
    reader = TrainedRun.reader

    def recorded(self: TrainedRun, built: BuiltModel, texts: list[str], *rest: Any) -> PairReader | None:
        read.append(texts)
        return reader(self, built, texts, *rest)

    monkeypatch.setattr(TrainedRun, "reader", recorded)
    as_file("d.jsonl", [{"id": str(number), "text": f"{word} {number}"} for number, word in enumerate(WORDS)])
    found = found_by(runs("cross"), query="tax the zoo", documents="d.jsonl", k=12)
    assert len(found) == 12
    assert [sorted(texts) for texts in read] == [sorted(["tax the zoo", *found["text"][:5]])]  # rerank_k is 5


def test_a_terminal_gets_no_control_characters(run: Path) -> None:
    as_file("d.jsonl", [{"id": "\x1b]0;x\x07", "text": "red \x1b[31m\x9b2J \u202etext", "theme": "\x1b[1m"}])
    out = text(answer(run, query="\x1b[5m who?", documents="d.jsonl"))
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)
    assert "red [31m2J text" in out


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20))
@example("'Tis so, isn't it? ${x} {a: [b]}")
@example('"Free" trade = \\')
@example("\\'\\\\${y}\\\\'\n")
def test_a_query_is_taken_as_it_stands(value: str) -> None:
    if value == "null":
        return
    override = OverridesParser.create().parse_override(quote_text(f"query={value}", ["query"]))
    assert OmegaConf.to_container(OmegaConf.create({"query": override.value()}), resolve=True) == {"query": value}


@pytest.mark.parametrize("value", ["a\\b", "it's\\b", "ends with\\", "a,b=c"])
def test_a_path_keeps_its_backslashes(value: str) -> None:
    assert OverridesParser.create().parse_override(quote_path(f"run={value}", ["run"])).value() == value


# --- refusals ------------------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no query": ({}, 'query: needs query="..." or queries=FILE'),
    "both": ({"query": "x", "queries": "q.txt"}, "queries: is given beside query"),
    "empty": ({"query": ""}, 'query="": is empty'),
    "blank": ({"query": " \t"}, 'query="": is empty'),
    "a NUL": ({"query": "a\0b"}, "query holds a NUL"),
    "half a pair": ({"query": "a\udc80b"}, "query holds half of a surrogate pair"),
    "no file": ({"queries": "none.csv"}, "queries=none.csv: is not a file"),
    "a folder": ({"query": "x", "documents": "folder.csv"}, "documents=folder.csv: is not a file"),
    "a kind": ({"queries": "q.xml"}, "queries=q.xml: must end in .csv, .jsonl, .parquet or .txt"),
    "output kind": ({"query": "x", "output": "found.xml"}, "output=found.xml: must end in .csv"),
    "output exists": ({"query": "x", "output": "there.csv"}, "output=there.csv: exists already"),
    "output folder": ({"query": "x", "output": "no/a.csv"}, "output=no/a.csv: the folder no does not exist"),
}


@pytest.fixture
def files(here: Path) -> Path:
    """Write the files that refusals name, and return their folder."""
    for name, content in {"q.txt": "x", "there.csv": "mine", "q.xml": "x", "bad.jsonl": '{"text": "x"}\n{'}.items():
        Path(name).write_text(content)
    Path("folder.csv").mkdir()
    return here


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_refused_before_anything_is_loaded(case: str, run: Path, files: Path) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(InputError) as error:
        COMMAND.check(configured(run, **changes), [])
    assert message in str(error.value)


@pytest.mark.parametrize("override", ["split=test", "candidates=all", "data.path=pairs.csv", "data=arguana"])
def test_documents_beside_keys_of_the_corpus_are_refused(override: str, run: Path, files: Path) -> None:
    with pytest.raises(InputError, match=f"documents=q.txt: .*leave out {override.partition('=')[0]}"):
        COMMAND.check(configured(run, query="x", documents="q.txt"), [override])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query=x"], "run: needs run=DIR"),
        (["run=nowhere", "query=x"], "nowhere/config.yaml: not found; run= must name a folder"),
        (["run=RUN", "query="], 'query="": is empty'),
        (["run=RUN", "queries=bad.jsonl", "output=new.csv"], "bad.jsonl:2: is not JSON"),
        (["-m", "run=RUN", "query=x"], "--multirun: negexp search is no sweep"),
        (["run=RUN", "query=x", "data.path=gone.csv"], "data.path=gone.csv: does not exist"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(
    arguments: list[str], message: str, run: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(files.rglob("*"))
    capsys.readouterr()
    assert main(["search", *(one.replace("RUN", str(run)) for one in arguments)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert sorted(files.rglob("*")) == before
    assert not (run / "search").exists()


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no epoch": (lambda run: shutil.rmtree(run / "checkpoints"), "has no committed epoch yet"),
    "weights": (
        lambda run: next(run.glob("checkpoints/*/model.safetensors")).write_bytes(b"x"),
        "does not match its manifest",
    ),
    "a target": (lambda run: (run / "config.yaml").write_text("model:\n  _target_: os.system\n"), "_target_"),
}


def checked_search(config: SearchConfig) -> None:
    COMMAND.check(config, [])
    search(config, [])


@pytest.mark.parametrize("case", HARMS)
def test_a_run_that_cannot_be_used_is_refused(case: str, run: Path, here: Path) -> None:
    harm, message = HARMS[case]
    copy, config = shutil.copytree(run, here / "run"), configured(run, query="x")
    harm(copy)
    with pytest.raises(InputError) as error:
        checked_search(replace(config, run="run"))
    assert message in str(error.value)
    assert not (copy / "search").exists()


def test_a_run_of_version_0_1_is_searched(here: Path) -> None:
    copy = shutil.copytree(Path(__file__).parent / "data" / "run-0.1", here / "run-0.1")
    found = found_by(copy, query="Ban cars from the city.", k=3)
    assert found["rank"].tolist() == [1, 2, 3]
    assert found["combined"].notna().all()
