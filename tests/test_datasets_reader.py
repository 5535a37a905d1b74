"""`data=datasets`: datasets saved here are read back as pairs, golds and documents; hostile ones are refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from negexp.corpus import Corpus, load_corpus, stamp
from negexp.corpus.readers.datasets import ColumnOptions, Datasets, DatasetsOptions
from negexp.errors import InputError

datasets = pytest.importorskip("datasets")

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def options(path: Path | str, changes: dict[str, Any] | None = None, **columns: str | None) -> DatasetsOptions:
    names: dict[str, Any] = {"point": "anchor", "counter": "positive", "document": None}
    names |= {"theme": None, "debate": None, "stance": None, **columns}
    keys: dict[str, Any] = {"train_overlap": "drop", "copies": "merge", "match": "normalized", "max_pairs": None}
    keys |= {"validation_share": 0.2, "test_share": 0.2, "split_seed": 0, "max_bytes": 2**24, "max_files": 1000}
    keys |= {"name": "datasets", "path": str(path), "config": None, "columns": ColumnOptions(**names)}
    return DatasetsOptions(**{**keys, **(changes or {})})


def rows(split: str, size: int = 5) -> Rows:
    return [{"anchor": f"{split} asks {n}", "positive": f"{split} answers {n}", "other": n} for n in range(size)]


def saved(folder: Path, **splits: Rows) -> Path:
    made = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    datasets.DatasetDict(made).save_to_disk(str(folder))
    return folder


def pairs(corpus: Corpus, split: str) -> list[tuple[str, str]]:
    one = corpus[split]
    return [(corpus.texts[p], corpus.texts[c]) for p, c in zip(one.point, one.counter, strict=True)]


def test_jobs_share_a_folder_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamp, "SETTLED_NS", 0)
    folder = saved(tmp_path / "saved", train=rows("train"), validation=rows("dev"), test=rows("test"))
    first = load_corpus(options(folder))
    assert load_corpus(options(folder)) is first
    assert load_corpus(options(folder, {"copies": "keep"})) is not first
    other = saved(tmp_path / "other", train=rows("new"), validation=rows("dev"), test=rows("test"))
    folder.rename(tmp_path / "away")
    other.rename(folder)
    assert pairs(load_corpus(options(folder)), "train") == [(row["anchor"], row["positive"]) for row in rows("new")]


def test_a_name_on_the_hub_is_asked_for_each_time() -> None:
    assert Datasets(options("lab/counters")).stamp() is None


def test_the_splits_of_a_saved_dictionary_are_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", train=rows("train"), validation=rows("dev"), test=rows("test"), extra=rows("x"))
    corpus = load_corpus(options(folder))
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        assert pairs(corpus, split) == [(row["anchor"], row["positive"]) for row in rows(name)]
        assert corpus[split].collection is None  # nothing but pairs: as data=pairs
    assert "The splits extra are not used." in corpus.summary


def test_splits_are_drawn_from_a_single_one_and_lists_stay_together(tmp_path: Path) -> None:
    lists = [{"anchor": f"asks {n}", "positive": [f"answers {n}", f"also {n}"]} for n in range(10)]
    folder = tmp_path / "saved"
    datasets.Dataset.from_list(lists).save_to_disk(str(folder))
    corpus = load_corpus(options(folder))
    assert sorted(len(corpus[split]) for split in ("train", "validation", "test")) == [4, 4, 12]
    found = sorted(pair for split in ("train", "validation", "test") for pair in pairs(corpus, split))
    assert found == sorted((row["anchor"], text) for row in lists for text in row["positive"])
    for split in ("train", "validation", "test"):
        collection = corpus[split].collection
        assert collection is not None
        assert len(collection) == 20
        assert (collection.golds.table(collection.query)[1] == 1).all()


@pytest.mark.parametrize("as_list", [False, True])
def test_further_candidates_are_documents_of_no_pair(as_list: bool, tmp_path: Path) -> None:
    def with_negatives(split: str) -> Rows:
        wrong = [f"{split} is wrong {n // 2}" for n in range(5)]
        return [row | {"negative": [text] if as_list else text} for row, text in zip(rows(split), wrong, strict=True)]

    splits = {name: with_negatives(name) for name in ("train", "validation", "test")}
    corpus = load_corpus(options(saved(tmp_path / "saved", **splits), document="negative"))
    collection = corpus["test"].collection
    assert collection is not None
    wanted = {row["positive"] for split in splits.values() for row in split}
    wanted |= {f"{split} is wrong {n}" for split in splits for n in range(3)}
    assert {corpus.texts[text] for text in collection.text} == wanted
    assert len(collection) == len(wanted)
    assert "24 documents, 9 of them the counter of no pair." in corpus.summary


def test_rows_with_the_same_point_are_one_query(tmp_path: Path) -> None:
    golds = {f"asks {n}": [f"answers {n}"] + [f"also {n}"] * (n % 2) for n in range(10)}
    firsts = [{"anchor": point, "positive": texts[0]} for point, texts in golds.items()]
    others = [{"anchor": point, "positive": text} for point, texts in golds.items() for text in texts[1:]]
    table = [*firsts, *others, firsts[0]]
    folder = tmp_path / "saved"
    datasets.Dataset.from_list(table).save_to_disk(str(folder))
    corpus = load_corpus(options(folder, {"copies": "keep"}))
    found: list[str] = []
    for split in ("train", "validation", "test"):
        collection = corpus[split].collection
        assert collection is not None
        points = [point for point, _ in pairs(corpus, split)]
        found += dict.fromkeys(points)
        for point, documents in zip(points, collection.golds.table(collection.query)[0], strict=True):
            assert sorted(corpus.texts[collection.text[row]] for row in documents if row >= 0) == sorted(golds[point])
        count = corpus.counts[split]
        assert count["pairs"] == len(points)
        assert count["points"] == len(set(points))
        assert count["counters"] == sum(len(golds[point]) for point in set(points))
    assert sorted(found) == sorted(golds)  # no query is in two splits


def test_the_summary_counts_the_points_of_lists_once(tmp_path: Path) -> None:
    splits = {
        name: [{"anchor": f"{name} asks {n}", "positive": [f"{name} {n} {m}" for m in range(3)]} for n in range(4)]
        for name in ("train", "validation", "test")
    }
    corpus = load_corpus(options(saved(tmp_path / "saved", **splits)))
    sizes = "; ".join(f"{name} 4 points, 12 counters, 12 pairs" for name in splits)
    assert corpus.summary.startswith(f"corpus datasets: {sizes}. ")
    assert "No copies, and no text is shared" in corpus.summary


def test_rows_without_a_document_have_none(tmp_path: Path) -> None:
    cells = [["wrong", None, " "], [], None, [""], ["wrong"]]
    table = [row | {"negative": texts} for row, texts in zip(rows("x"), cells, strict=True)]
    corpus = load_corpus(options(saved(tmp_path / "saved", train=table), document="negative"))
    collection = corpus["test"].collection
    assert collection is not None
    expected = {"wrong", *(row["positive"] for row in table)}
    assert sorted(corpus.texts[text] for text in collection.text) == sorted(expected)


@pytest.mark.parametrize("kind", ["saved", "tables"])
def test_a_path_may_begin_with_the_home_folder(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "made"
    if kind == "saved":
        saved(folder, train=rows("x", 8))
    else:
        folder.mkdir()
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows("x", 8)), encoding="utf-8")
    corpus = load_corpus(options("~/made"))
    assert sum(len(split) for split in corpus.splits.values()) == 8


def test_metadata_columns_are_read(tmp_path: Path) -> None:
    splits = {
        name: [row | {"topic": f"topic {n % 2}"} for n, row in enumerate(rows(name))]
        for name in ("train", "validation", "test")
    }
    corpus = load_corpus(options(saved(tmp_path / "saved", **splits), debate="topic"))
    assert corpus["train"].debate is not None
    assert corpus["train"].debate.tolist() == [0, 1, 0, 1, 0]
    assert corpus["train"].theme is None


def test_a_folder_of_tables_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for name in ("train", "validation", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows(name))
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    corpus = load_corpus(options(folder))
    assert pairs(corpus, "test") == [(row["anchor"], row["positive"]) for row in rows("test")]


WRONG: dict[str, tuple[Rows, dict[str, Any], str]] = {
    "no such column": (rows("a"), {"counter": "positiv"}, r"data\.columns\.counter=positiv: split train .*positive"),
    "numbers": (rows("a"), {"counter": "other"}, r"train, row 0: other=0 is not a text"),
    "an empty text": ([{"anchor": "a", "positive": " "}], {}, r"train, row 0: positive is empty"),
    "an empty list": ([{"anchor": "a", "positive": []}], {}, r"train, row 0: positive is an empty list"),
    "a null": ([*rows("a"), {"anchor": None, "positive": "x"}], {}, r"train, row 5: anchor is empty"),
    "too few points": (2 * rows("a", 2), {}, r"2 different points cannot make three splits"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_dataset_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, columns, message = WRONG[case]
    with pytest.raises(InputError, match=message) as error:
        load_corpus(options(saved(tmp_path / "saved", train=content), **columns))
    assert "\n" not in str(error.value)


def test_a_dataset_without_one_of_three_splits_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", train=rows("train"), test=rows("test"))
    with pytest.raises(InputError, match="holds no validation pair; give a dataset with the splits"):
        load_corpus(options(folder))


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def pickled(folder: Path, mark: Path) -> None:
    (folder / "train.pkl").write_bytes(pickle.dumps(Payload(mark)))


def script(folder: Path, mark: Path) -> None:
    (folder / f"{folder.name}.py").write_text(f"open({str(mark)!r}, 'w')\n")


def configured(folder: Path, mark: Path) -> None:
    outside = folder.parent / "outside.jsonl"
    outside.write_text('{"anchor": "a", "positive": "b"}\n')
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: ../outside.jsonl\n---\n")


def linked(folder: Path, mark: Path) -> None:
    outside = folder.parent / "outside.jsonl"
    outside.write_text('{"anchor": "a", "positive": "b"}\n')
    (folder / "train.jsonl").symlink_to(outside)


def state(folder: Path, mark: Path) -> None:
    outside = saved(folder.parent / "outside", train=rows("train"))
    saved(folder, train=rows("train"))
    path = folder / "train" / "state.json"
    changed = json.loads(path.read_text())
    changed["_data_files"] = [{"filename": f"../../{outside.name}/train/data-00000-of-00001.arrow"}]
    path.write_text(json.dumps(changed))


@pytest.mark.parametrize("make", [pickled, script, configured, linked, state])
def test_a_hostile_folder_is_refused_and_runs_nothing(make: Callable[[Path, Path], None], tmp_path: Path) -> None:
    folder, mark = tmp_path / "hostile", tmp_path / "mark"
    folder.mkdir()
    make(folder, mark)
    with pytest.raises(InputError) as error:
        load_corpus(options(folder))
    assert "\n" not in str(error.value)
    assert not mark.exists()


def test_a_name_that_is_neither_a_folder_nor_on_the_hub_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="does not exist; give a name on the Hugging Face hub"):
        load_corpus(options("no/such/folder"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="org/name: cannot be read as a dataset"):
        load_corpus(options("org/name"))


def test_too_much_text_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", train=rows("train"))
    with pytest.raises(InputError, match=r"data\.max_bytes=50"):
        load_corpus(replace(options(folder), max_bytes=50))
