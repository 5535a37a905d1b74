"""`data=beir`: folders made here are read back, trained on and evaluated; broken and hostile ones are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Train

from negexp.components import build
from negexp.config import BatchConfig
from negexp.corpus import load_corpus
from negexp.corpus.readers.beir import BeirOptions
from negexp.errors import InputError
from negexp.evaluation.metrics import table_metrics
from negexp.report.runs import read_runs
from negexp.sampling import Arguments, BatchRound, EmbeddingSpace

TOPICS = ["trams", "parks", "zoos", "ferries", "schools", "markets", "bridges", "museums"]
HEADER = "query-id\tcorpus-id\tscore\n"


def options(path: Path, **changes: object) -> BeirOptions:
    keys = {"train_overlap": "queries", "copies": "merge", "match": "normalized", "max_pairs": None}
    numbers = {"validation_share": 0.15, "test_share": 0.15, "split_seed": 0, "max_bytes": 2**24, "max_files": 1000}
    own = {"titles": "keep", "identical_ids": "ignore"}
    return replace(BeirOptions(name="beir", path=str(path), **keys, **numbers, **own), **changes)  # type: ignore[arg-type]


def write(folder: Path) -> Path:
    """Write 24 queries, eight of each split, and 40 documents; query n has the golds dn (grade 2) and d(n + 1)."""
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"d{n}", "title": f"On {TOPICS[n % 8]}", "text": f"Statement {n} says that {TOPICS[n // 5]} are good."}
        for n in range(40)
    ]
    queries = [{"_id": f"q{n}", "text": f"Why are {TOPICS[n % 8]} bad in case {n}?"} for n in range(24)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for place, name in enumerate(("train", "dev", "test")):
        lines = [f"q{n}\td{n}\t2\nq{n}\td{n + 1}\t1\nq{n}\td30\t0\n" for n in range(8 * place, 8 * place + 8)]
        (folder / "qrels" / f"{name}.tsv").write_text(HEADER + "".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "made")


def test_a_folder_is_read_with_titles_golds_and_grades(folder: Path) -> None:
    corpus = load_corpus(options(folder))
    split = corpus["test"]
    collection = split.collection
    assert collection is not None
    assert split.ids[:3] == ("q16", "q16~2", "q17")
    assert corpus.texts[split.point[0]] == "Why are trams bad in case 16?"
    assert corpus.texts[split.counter[1]] == "On parks Statement 17 says that ferries are good."
    documents, grades = collection.golds.table(collection.query[[0, 2]])
    assert [[collection.ids[row] for row in rows] for rows in documents] == [["d17", "d16"], ["d18", "d17"]]
    assert grades.tolist() == [[1, 2], [1, 2]]
    assert len(collection) == 40
    assert corpus.counts["test"] == {"points": 8, "counters": 9, "pairs": 16, "debates": None, "documents": 40}
    assert "40 documents, 15 of them the counter of no pair." in corpus.summary
    untitled = load_corpus(options(folder, titles="drop"))
    assert untitled.texts[untitled["test"].counter[1]] == "Statement 17 says that ferries are good."
    assert untitled.fingerprint() != corpus.fingerprint()


def test_the_fingerprint_follows_documents_and_grades(folder: Path) -> None:
    before = load_corpus(options(folder)).fingerprint()
    train = folder / "qrels" / "train.tsv"
    train.write_text(train.read_text().replace("q3\td3\t2", "q3\td3\t1"))
    graded = load_corpus(options(folder)).fingerprint()
    corpus = folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("Statement 39", "Statement forty"))
    assert len({before, graded, load_corpus(options(folder)).fingerprint()}) == 3


def test_a_query_that_is_a_document_is_never_its_own_candidate(folder: Path) -> None:
    for name in ("corpus.jsonl", "queries.jsonl"):
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write(json.dumps({"_id": "both", "title": name, "text": "Ferries are slow."}) + "\n")
    with open(folder / "qrels" / "test.tsv", "a", encoding="utf-8") as file:
        file.write("both\td3\t1\nboth\tboth\t1\n")
    corpus = load_corpus(options(folder))
    collection = corpus["test"].collection
    assert collection is not None
    assert collection.ids[collection.itself[-1]] == "both"
    assert (collection.itself[:-1] == -1).all()
    assert "1 the query itself" in corpus.summary
    kept = load_corpus(options(folder, identical_ids="keep"))["test"].collection
    assert kept is not None
    assert (kept.itself == -1).all()
    assert [kept.ids[row] for row in kept.counter[-2:]] == ["d3", "both"]


def test_training_queries_that_are_queries_of_test_are_dropped_and_shared_documents_are_not(folder: Path) -> None:
    with open(folder / "qrels" / "train.tsv", "a", encoding="utf-8") as file:
        file.write("q20\td2\t1\n")
    assert len(load_corpus(options(folder))["train"]) == 16
    assert len(load_corpus(options(folder, train_overlap="keep"))["train"]) == 17
    # d8 is a gold of q7 (train) and of q8 (dev), and d16 of q15 (dev) and of q16 (test)
    assert len(load_corpus(options(folder, train_overlap="drop"))["train"]) == 15


def test_a_query_of_two_splits_has_its_own_id_in_both(folder: Path) -> None:
    with open(folder / "qrels" / "train.tsv", "a", encoding="utf-8") as file:
        file.write("q20\td2\t1\n")
    corpus = load_corpus(options(folder, train_overlap="keep"))
    assert corpus["train"].ids[-1] == "q20"
    expected = [f"q{n}{more}" for n in range(16, 24) for more in ("", "~2")]
    assert list(corpus["test"].ids) == expected


def test_max_pairs_keeps_all_golds_of_a_query(folder: Path) -> None:
    collection = load_corpus(options(folder, max_pairs=4))["test"].collection
    assert collection is not None
    assert len(set(collection.query.tolist())) == 2
    assert (collection.golds.table(collection.query)[1] == [1, 2]).all()


def test_unknown_ids_are_counted(folder: Path) -> None:
    with open(folder / "qrels" / "dev.tsv", "a", encoding="utf-8") as file:
        file.write("q9\tnowhere\t1\nnobody\td3\t1\nnobody\tnowhere\t1\n")
    corpus = load_corpus(options(folder))
    assert len(corpus["validation"]) == 16
    assert "2 lines name an unknown or empty query, 2 an unknown or empty document" in corpus.summary


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def append(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write(text)

    return change


def put(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


def link(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        outside = folder.parent / "outside"
        outside.write_bytes((folder / name).read_bytes())
        (folder / name).unlink()
        (folder / name).symlink_to(outside)

    return change


def pipe(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    os.mkfifo(folder / "corpus.jsonl")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no corpus": (remove("corpus.jsonl"), "has no corpus.jsonl; give a folder with"),
    "no dev split": (remove("qrels/dev.tsv"), "holds no validation pair; give qrels/dev.tsv"),
    "an empty split": (put("qrels/test.tsv", HEADER), "holds no test pair; give qrels/test.tsv"),
    "an id twice": (append("corpus.jsonl", '{"_id": "d3", "text": "again"}\n'), "corpus.jsonl:41: _id=d3 occurs twice"),
    "no id": (append("queries.jsonl", '{"id": "q", "text": "x"}\n'), "queries.jsonl:25: has no _id"),
    "a number as text": (append("corpus.jsonl", '{"_id": "n", "text": 3}\n'), "corpus.jsonl:41: text=3 is not a text"),
    "no JSON": (append("corpus.jsonl", "d41\n"), "corpus.jsonl:41: is not JSON"),
    "spaces for tabs": (append("qrels/dev.tsv", "q9 d9 1\n"), "dev.tsv:26: is not query-id, corpus-id"),
    "a word as grade": (append("qrels/dev.tsv", "q9\td9\tgood\n"), "dev.tsv:26: is not query-id, corpus-id"),
    "a huge grade": (append("qrels/dev.tsv", f"q9\td9\t{'9' * 5000}\n"), "dev.tsv:26: is not query-id, corpus-id"),
    "a link to elsewhere": (link("corpus.jsonl"), "corpus.jsonl: is a link to a file outside the folder"),
    "qrels elsewhere": (link("qrels/test.tsv"), "test.tsv: is a link to a file outside the folder"),
    "a pipe": (pipe, "corpus.jsonl: is not a file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_or_hostile_folder_is_refused(case: str, folder: Path) -> None:
    change, message = BROKEN[case]
    change(folder)
    with pytest.raises(InputError) as error:
        load_corpus(options(folder))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_qrels_of_other_files_are_refused(folder: Path) -> None:
    for name in ("train", "dev", "test"):
        (folder / "qrels" / f"{name}.tsv").write_text(HEADER + "x\ty\t1\n")
    with pytest.raises(InputError, match="3 lines name an unknown or empty query, 3 an unknown or empty document"):
        load_corpus(options(folder))


def test_a_folder_larger_than_allowed_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"data\.max_bytes=100"):
        load_corpus(options(folder, max_bytes=100))


def test_a_run_without_a_training_split_is_refused_and_writes_nothing(
    folder: Path, run_training: Train, tmp_path: Path
) -> None:
    (folder / "qrels" / "train.tsv").unlink()
    with pytest.raises(InputError, match=r"holds no train pair; give qrels/train\.tsv"):
        run_training("experiment=smoke", "data=beir", f"data.path={folder}")
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert len(load_corpus(options(folder), needed=["test"])["test"]) == 16  # as `negexp evaluate split=test` does


@pytest.mark.parametrize("documents", [40, 41])
def test_pairs_that_share_a_query_or_a_document_stand_in_different_batches(folder: Path, documents: int) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.writelines(json.dumps({"_id": f"d{n}", "text": f"Further {n}."}) + "\n" for n in range(40, documents))
    split = load_corpus(options(folder))["train"]
    assert len(split) == 16  # q0 d0, q0 d1, q1 d1, q1 d2, ...
    vectors = np.random.default_rng(0).standard_normal((16, 2)).astype(np.float32)
    space = EmbeddingSpace(vectors, {"point": vectors, "counter": vectors}, lambda _: None)  # type: ignore[arg-type, return-value]
    for plan in ("shuffled", "neighbours"):
        round_ = BatchRound(Arguments(split), lambda: space, 4, np.random.default_rng(1))
        for batch in build("batch", BatchConfig(plan, separate_copies=True)).batches(round_):
            texts = [*split.point[batch], *split.counter[batch]]
            assert len(set(texts)) == len(texts)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("beir") / "made")


def test_a_run_mines_documents_and_never_a_gold(made: Path, run_training: Train) -> None:
    keys = ["data=beir", f"data.path={made}", "data.max_pairs=null"]
    keys += ["sampler.num_negatives=3", "trainer.monitor=clean/retrieval/epc/ndcg@10"]
    folder = run_training("experiment=smoke", "trainer.epochs=1", *keys)
    ledger = pd.read_parquet(folder / "negatives" / "epoch-000.parquet")
    assert set(ledger["source"]) == {"counter", "document"}
    corpus = load_corpus(options(made))
    split = corpus["train"]
    collection = split.collection
    assert collection is not None
    golds = {
        (query, document) for query, document in zip(collection.golds.query, collection.golds.document, strict=True)
    }
    for pair, source, row in ledger[["pair", "source", "row"]].itertuples(index=False):
        document = collection.counter[row] if source == "counter" else row
        assert (collection.query[pair], document) not in golds
    ranks = pd.read_parquet(folder / "evaluation" / "test-ranks.parquet")
    epc = ranks[(ranks["task"] == "epc") & (ranks["stage"] == "retrieval")]
    assert sorted(set(epc["query"])) == [f"q{n}" for n in range(16, 24)]
    assert (epc["candidates"] == 40).all()
    stored = json.loads((folder / "evaluation" / "test.json").read_text())["metrics"]["clean"]["retrieval"]["epc"]
    clean = epc[epc["protocol"] == "clean"]
    assert stored["ndcg@10"] == pytest.approx(float(np.mean(clean["ndcg@10"])))
    cell = read_runs([folder])[0][0].cells["clean", "retrieval", "epc"]
    assert table_metrics(cell)["ndcg@10"].tolist() == clean["ndcg@10"].tolist()
