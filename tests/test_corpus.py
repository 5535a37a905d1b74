"""Corpus readers, splits, copies and leakage: trees and tables made here, answers recomputed by plain loops."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import random
import re
import string
import tarfile
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Train
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from negexp.config import DataConfig
from negexp.corpus import SPLITS, Corpus, Split, load_corpus
from negexp.corpus.arguments import Record
from negexp.corpus.groups import dependent_groups
from negexp.corpus.limits import Limits
from negexp.corpus.match import normalized
from negexp.corpus.overlap import first_of_pair, shares_text
from negexp.corpus.readers.arguana import ArguanaOptions, read_arguana
from negexp.corpus.readers.demo import DEMO
from negexp.corpus.tables import draw_splits, read_pairs
from negexp.errors import InputError
from negexp.evaluation.names import argument_ids

Row = dict[str, str]
LIMITS = Limits(max_bytes=2**24, max_files=1000)


def data(path: Path | None, name: str = "pairs") -> DataConfig:
    schema, own = (ArguanaOptions, {"titles": "keep"}) if name == "arguana" else (DataConfig, {})
    return schema(
        **own,
        name=name,
        path=None if path is None else str(path),
        train_overlap="drop",
        copies="merge",
        match="normalized",
        validation_share=0.15,
        test_share=0.15,
        split_seed=0,
        max_pairs=None,
        max_bytes=LIMITS.max_bytes,
        max_files=LIMITS.max_files,
    )


def texts_of(corpus: Corpus, split: str) -> list[tuple[str, str]]:
    return [(corpus.texts[p], corpus.texts[c]) for p, c in zip(corpus[split].point, corpus[split].counter, strict=True)]


# --- the ArguAna tree ---------------------------------------------------------------------------------------------

INNER = "02-extracted-arguments"
SPLIT_FOLDERS = {"train": "training", "validation": "validation", "test": "test"}
# not in the order of the rows; `art` against `art-design` and 2 against 10 tell plain tuples from paths and numbers
PAIRS = [
    ("train", "law", "ban-masks", "pro", "02"),
    ("train", "art-design", "grey-walls", "pro", "01"),
    ("train", "art", "museums-free", "pro", "2"),
    ("train", "art", "museums-free", "pro", "10"),
    ("train", "art", "museums-free", "con", "01"),
    ("validation", "law", "jury-duty", "con", "01"),
    ("validation", "art", "opera-subsidies", "con", "01"),  # has no pro folder
    ("test", "law", "curfews", "pro", "01"),
    ("test", "law", "curfews", "con", "01"),
]
APPLE_DOUBLE = b"\x00\x05\x16\x07\xff\xfe"


def argument_path(pair: tuple[str, ...], kind: str) -> str:
    split, theme, debate, stance, number = pair
    return f"{INNER}/{SPLIT_FOLDERS[split]}/{theme}/{debate}/{stance}/{stance}{number}{kind}.txt"


def arguana_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for pair in PAIRS:
        files[argument_path(pair, "a-point")] = f"  Point of {' '.join(pair)}: caf\u00e9s.\n".encode()
        files[argument_path(pair, "b-counter")] = f"Counter of {' '.join(pair)}.\n".encode()
    files[argument_path(PAIRS[0], "a-point")] = "\ufeffPoint with a byte order mark.".encode()
    files[argument_path(("train", "law", "ban-masks", "pro", "07"), "a-point")] = b"A point without a counter."
    stray = f"{INNER}/training/art/museums-free"
    files |= {
        "readme.txt": b"\xff",
        f"{INNER}/.DS_Store": APPLE_DOUBLE,
        f"{stray}/intro.txt": b"An introduction.",
        f"{stray}/full.txt": b"All of it.",
        f"{stray}/pro/.DS_Store": APPLE_DOUBLE,
        f"{stray}/pro/._pro01a-point.txt": APPLE_DOUBLE,
        f"{stray}/pro/con09a-point.txt": b"The stance of another folder.",
    }
    return files


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_archive(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(f"arguana-counterargs-corpus/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def expected_arguana_records() -> list[Record]:
    files = arguana_files()
    return [
        Record(
            point=files[argument_path(pair, "a-point")].decode("utf-8-sig").strip(),
            counter=files[argument_path(pair, "b-counter")].decode().strip(),
            split=pair[0],
            theme=pair[1],
            debate=pair[2],
            stance=pair[3],
            id=f"{pair[1]}/{pair[2]}/{pair[3]}{pair[4]}",
        )
        for pair in sorted(PAIRS)
    ]


def test_root_inner_folder_and_archive_hold_the_same_records_in_plain_string_order(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "arguana-counterargs-corpus", arguana_files())
    archive = write_archive(tmp_path / "corpus.tar.gz", arguana_files())
    expected = expected_arguana_records()
    for path in (root, root / INNER, archive):
        records, found = read_arguana(path, LIMITS)
        assert records == expected
        assert found == {"train": (6, 5), "validation": (2, 2), "test": (2, 2)}
    assert [record.id for record in records if record.split == "train"] == [
        "art/museums-free/con01",
        "art/museums-free/pro10",
        "art/museums-free/pro2",
        "art-design/grey-walls/pro01",
        "law/ban-masks/pro02",
    ]


def test_archive_is_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    archive = write_archive(tmp_path / "corpus.tar.gz", arguana_files())
    before = archive.read_bytes()
    read_arguana(archive, LIMITS)
    assert list(tmp_path.rglob("*")) == [archive]
    assert archive.read_bytes() == before


def test_only_regular_files_of_an_archive_count(tmp_path: Path) -> None:
    archive = tmp_path / "corpus.tar"
    with tarfile.open(write_archive(archive, arguana_files(), "w"), "a") as tar:
        for kind in ("a-point", "b-counter"):
            link = tarfile.TarInfo(argument_path(("train", "law", "links", "pro", "01"), kind))
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(link)
    assert read_arguana(archive, LIMITS)[0] == expected_arguana_records()


def test_arguana_counts_name_points_counters_pairs_and_debates(tmp_path: Path) -> None:
    corpus = load_corpus(data(write_tree(tmp_path / "corpus", arguana_files()), "arguana"))
    assert corpus.counts["train"] == {"points": 6, "counters": 5, "pairs": 5, "debates": 3}
    assert "train 6 points, 5 counters, 5 pairs in 3 debates" in corpus.summary


def test_missing_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.path=.*/nowhere: does not exist; give the unpacked corpus folder or"):
        load_corpus(data(tmp_path / "nowhere", "arguana"))


@pytest.mark.parametrize("archived", [False, True], ids=["folder", "archive"])
def test_argument_of_white_space_only_is_refused(tmp_path: Path, archived: bool) -> None:
    files = arguana_files()
    name = next(name for name in files if name.endswith("b-counter.txt"))
    files[name] = b" \n\t\n"
    path = write_archive(tmp_path / "corpus.tar.gz", files) if archived else write_tree(tmp_path / "corpus", files)
    with pytest.raises(InputError, match=rf"{re.escape(name)}: holds no text"):
        load_corpus(data(path, "arguana"))


@pytest.mark.parametrize("archived", [False, True], ids=["folder", "archive"])
def test_files_that_are_no_corpus_are_refused(tmp_path: Path, archived: bool) -> None:
    files = {"notes/one.txt": b"Nothing of interest."}
    path = write_archive(tmp_path / "other.tar.gz", files) if archived else write_tree(tmp_path / "other", files)
    with pytest.raises(
        InputError, match=r"data\.path=.*/other.*: is not an ArguAna counterargs corpus; expected training/"
    ):
        load_corpus(data(path, "arguana"))


@pytest.mark.parametrize("split", SPLITS)
def test_split_without_pairs_is_refused(tmp_path: Path, split: str) -> None:
    folder = SPLIT_FOLDERS[split]
    files = {name: text for name, text in arguana_files().items() if f"/{folder}/" not in name or "counter" not in name}
    with pytest.raises(InputError, match=rf"data\.path=.*/corpus: {folder}/ holds no point-counter pair; unpack"):
        load_corpus(data(write_tree(tmp_path / "corpus", files), "arguana"))


@pytest.mark.parametrize("archived", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize(("content", "offset"), [(b"caf\xe9 latin", 3), (b"\xef\xbb\xbfcaf\xe9", 6)], ids=["", "BOM"])
def test_argument_that_is_not_utf8_is_refused_with_file_and_byte(
    tmp_path: Path, archived: bool, content: bytes, offset: int
) -> None:
    name = argument_path(PAIRS[5], "b-counter")
    files = arguana_files() | {name: content}
    path = write_archive(tmp_path / "c.tar.gz", files) if archived else write_tree(tmp_path / "c", files)
    with pytest.raises(InputError, match=rf"{re.escape(name)}: byte {offset} is not UTF-8; convert the file to UTF-8"):
        load_corpus(data(path, "arguana"))


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_damaged_archive_is_never_read_as_other_texts(tmp_path: Path, mode: str) -> None:
    intact = write_archive(tmp_path / "corpus.tar", arguana_files(), mode).read_bytes()
    damaged = tmp_path / "damaged.tar"
    outcomes: Counter[str] = Counter()
    for place in range(10, len(intact), len(intact) // 40):
        damaged.write_bytes(intact[:place] + bytes([intact[place] ^ 0x10]) + intact[place + 1 :])
        outcomes[read_or_refusal(damaged)] += 1
    assert outcomes["refused"] > 0
    assert set(outcomes) <= {"refused", "the same records"}  # a byte of padding or of a header may not matter


def read_or_refusal(path: Path) -> str:
    try:
        records, _ = read_arguana(path, LIMITS)
    except InputError as error:
        return "refused" if str(path) in str(error) else f"refused without the path: {error}"
    return "the same records" if records == expected_arguana_records() else "other records"


@pytest.mark.parametrize("content", ["half", "text"])
def test_truncated_archive_and_a_plain_file_are_refused(tmp_path: Path, content: str) -> None:
    intact = write_archive(tmp_path / "corpus.tar.gz", arguana_files()).read_bytes()
    path = tmp_path / "broken.tar.gz"
    path.write_bytes(intact[: len(intact) // 2] if content == "half" else b"This is no archive.")
    with pytest.raises(
        InputError, match=r"data\.path=.*/broken\.tar\.gz: cannot be read as a tar archive .*; download"
    ):
        load_corpus(data(path, "arguana"))


# --- pair tables --------------------------------------------------------------------------------------------------


def write_csv(path: Path, rows: list[Row], newline: str = "\n", encoding: str = "utf-8") -> Path:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator=newline)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(buffer.getvalue().encode(encoding))
    return path


def write_jsonl(path: Path, rows: list[Row], ensure_ascii: bool = True, newline: str = "\n") -> Path:
    lines = [json.dumps(row, ensure_ascii=ensure_ascii) + newline for row in rows]
    path.write_bytes("".join(lines).encode())
    return path


def write_parquet(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


ROWS: list[Row] = [
    {"point": 'A "quoted", point', "counter": "two\nlines", "theme": "t", "debate": "d", "stance": "pro", "split": s}
    for s in ("training", "valid", "test")
] + [
    {"point": "naïve \u2028 текст", "counter": " padded ", "theme": "t", "debate": "e", "stance": "con", "split": s}
    for s in ("train", "VAL", "dev", "validation", "Test")
]
WRITERS: dict[str, Callable[[Path], Path]] = {
    "csv": lambda folder: write_csv(folder / "a.csv", ROWS),
    "csv-bom-crlf": lambda folder: write_csv(folder / "a.csv", ROWS, newline="\r\n", encoding="utf-8-sig"),
    "jsonl": lambda folder: write_jsonl(folder / "a.JSONL", ROWS),
    "jsonl-raw-crlf": lambda folder: write_jsonl(folder / "a.jsonl", ROWS, ensure_ascii=False, newline="\r\n"),
    "parquet": lambda folder: write_parquet(folder / "a.parquet", ROWS),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_table_gives_the_same_records(tmp_path: Path, kind: str) -> None:
    splits = ["train", "validation", "test", "train", "validation", "validation", "validation", "test"]
    ids = [f"t/d/pro0{i}" for i in (1, 2, 3)] + [f"t/e/con0{i}" for i in (1, 2, 3, 4, 5)]
    assert read_pairs(WRITERS[kind](tmp_path), LIMITS) == [
        Record(row["point"], row["counter"].strip(), split, "t", row["debate"], row["stance"], id_)
        for row, split, id_ in zip(ROWS, splits, ids, strict=True)
    ]


FOLDERS = st.fixed_dictionaries(
    {"theme": st.sampled_from(["a", "a/b"]), "debate": st.sampled_from(["b/c", "c"])}
    | {"stance": st.sampled_from(["pro", "pro1", "pro10", "pro~"])}
)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(blocks=st.lists(st.tuples(FOLDERS, st.sampled_from([1, 2, 101])), min_size=1, max_size=5))
@example(blocks=[({"theme": "a", "debate": "c", "stance": stance}, 101) for stance in ("pro1", "pro")])
def test_ids_of_a_table_are_unique_and_those_without_a_clash_stay(blocks: list[tuple[Row, int]]) -> None:
    rows = [folder for folder, count in blocks for _ in range(count)]
    rows = [row | {"point": f"p{i}", "counter": f"c{i}", "split": SPLITS[i % 3]} for i, row in enumerate(rows)]
    rows += [rows[0] | {"point": f"p {split}", "counter": f"c {split}", "split": split} for split in SPLITS]
    numbers: Counter[str] = Counter()
    expected = []
    for row in rows:
        folder = f"{row['theme']}/{row['debate']}/{row['stance']}"
        numbers[folder] += 1
        expected.append(f"{folder}{numbers[folder]:02d}")
    with tempfile.TemporaryDirectory() as folder:
        corpus = load_corpus(replace(data(write_csv(Path(folder) / "a.csv", rows)), copies="keep"))
    found = {point: id_ for s in SPLITS for id_, (point, _) in zip(corpus[s].ids, texts_of(corpus, s), strict=True)}
    ids = [found[row["point"]] for row in rows]
    assert len(set(ids)) == len(rows)
    for place, id_ in enumerate(expected):
        assert (ids[place] == id_) == (id_ not in expected[:place])


def test_the_row_101_of_a_stance_and_the_first_of_another_have_two_ids(tmp_path: Path) -> None:
    stances = ["pro1", *["pro"] * 101]
    rows = [{"point": f"p{i}", "counter": f"c{i}", "stance": stance} for i, stance in enumerate(stances)]
    rows = [row | {"split": "test"} for row in rows]
    rows += [{"point": f"p {split}", "counter": f"c {split}", "stance": "con", "split": split} for split in SPLITS]
    corpus = load_corpus(data(write_csv(tmp_path / "a.csv", rows)))
    ids = corpus["test"].ids
    assert (ids[0], ids[1], ids[100], ids[101]) == ("pro101", "pro01", "pro100", "pro101~2")
    texts = {corpus.texts[text]: id_ for text, id_ in argument_ids(corpus["test"]).items()}
    assert (texts["p0"], texts["p101"]) == ("pro101/point", "pro101~2/point")


def test_an_arguana_debate_in_two_splits_has_two_ids(tmp_path: Path) -> None:
    files = arguana_files()
    for kind in ("a-point", "b-counter"):
        files[argument_path(("validation", "law", "curfews", "pro", "01"), kind)] = b"Another text " + kind.encode()
    corpus = load_corpus(data(write_tree(tmp_path / "corpus", files), "arguana"))
    assert corpus["test"].ids == ("law/curfews/con01", "law/curfews/pro01")
    assert corpus["validation"].ids[-2:] == ("law/curfews/pro01~2", "law/jury-duty/con01")


def test_table_without_metadata_has_none_and_unique_ids(tmp_path: Path) -> None:
    rows = [{"point": f"p{i}", "counter": f"c{i}"} for i in range(5)]
    records = read_pairs(write_csv(tmp_path / "a.csv", rows), LIMITS)
    assert len({record.id for record in records}) == 5
    assert all((r.split, r.theme, r.debate, r.stance) == (None, None, None, None) for r in records)
    corpus = load_corpus(data(tmp_path / "a.csv"))
    assert corpus["train"].theme is corpus["train"].debate is corpus["train"].stance is None
    assert corpus.counts["train"]["debates"] is None


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), raw=st.booleans())
def test_any_text_survives_csv_and_jsonl(tmp_path: Path, pairs: list[tuple[str, str]], raw: bool) -> None:
    rows = [{"point": point, "counter": counter} for point, counter in pairs]
    expected = [(point.strip(), counter.strip()) for point, counter in pairs]
    encoding = "utf-8" if raw else "utf-8-sig"
    for path in (
        write_csv(tmp_path / "a.csv", rows, newline="\r\n", encoding=encoding),
        write_jsonl(tmp_path / "a.jsonl", rows, ensure_ascii=not raw),
    ):
        assert [(record.point, record.counter) for record in read_pairs(path, LIMITS)] == expected


GOOD = '{"point": "p", "counter": "c"}\n'
BAD_TABLES: dict[str, tuple[str, bytes, str]] = {
    "column missing": ("a.csv", b"point,answer\np,c\n", "{path}: has no column 'counter'; found answer, point"),
    "column missing in JSONL": ("a.jsonl", b'{"point": "p"}\n', "{path}: has no column 'counter'"),
    "no row": ("a.csv", b"point,counter\n", "{path}: holds no row"),
    "empty file": ("a.jsonl", b"", "{path}: holds no row"),
    "empty cell": ("a.csv", b'point,counter\n"p\nq",c\np, \n', "{path}:4: counter is empty; fill the cell"),
    "empty cell of a long row": ("a.csv", b'point,counter,theme\n"p\nq",c,\n', "{path}:2: theme is empty"),
    "empty theme": ("a.csv", b"point,counter,theme\np,c,t\np,c,\n", "{path}:3: theme is empty"),
    "cell missing": ("a.jsonl", (GOOD + '{"point": "p"}\n').encode(), "{path}:2: counter is empty"),
    "null": ("a.jsonl", (GOOD + '\n{"point": null, "counter": "c"}').encode(), "{path}:3: point is empty"),
    "number": (
        "a.jsonl",
        (GOOD + '{"point": "p", "counter": 7}').encode(),
        "{path}:2: counter=7 is not a text",
    ),
    "huge number": ("a.jsonl", b'{"point": ' + b"7" * 5000 + b', "counter": "c"}', "{path}:1: "),
    "lone surrogate": ("a.jsonl", (GOOD + '{"point": "\\ud800", "counter": "c"}').encode(), "{path}:2: "),
    "unknown split": (
        "a.csv",
        b"point,counter,split\np,c,train\np,c,trian\n",
        "{path}:3: split='trian' is not known; use train, validation or test",
    ),
    "ragged row": ("a.csv", b'point,counter\n"p\nq",c\np,c,d\n', "{path}:4: has 3 cells, the header 2; quote"),
    "empty after a long header": ("a.csv", b'point,counter,"a\nb"\np,,c\n', "{path}:3: counter is empty"),
    "column twice": ("a.csv", b"point,counter,point\np,c,q\n", "{path}:1: column 'point' occurs twice"),
    "open quote": ("a.csv", b'point,counter\np,"c\n', "{path}:2: "),
    "broken JSON": ("a.jsonl", (GOOD + '{"point": "p", ').encode(), "{path}:2: is not JSON"),
    "nested JSON": ("a.jsonl", b"[" * 100_000, "{path}:1: is not JSON"),
    "no object": (
        "a.jsonl",
        (GOOD + '["p", "c"]').encode(),
        "{path}:2: is not a JSON object; write one object",
    ),
    "not UTF-8": ("a.csv", b"point,counter\ncaf\xe9,c\n", "{path}: byte 17 is not UTF-8; convert"),
    "not UTF-8 after a BOM": ("a.csv", b"\xef\xbb\xbfpoint,counter\ncaf\xe9,c\n", "{path}: byte 20 is not UTF-8"),
    "not UTF-8 in JSONL": ("a.jsonl", GOOD.encode() + b'{"point": "\xff"', "{path}: byte 42 is not UTF-8"),
    "no Parquet": ("a.parquet", b"PAR1 of something else", "{path}: cannot be read as Parquet"),
    "other ending": ("a.txt", b"point,counter\np,c\n", "{path}: must end in .csv, .jsonl or .parquet"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_table_is_refused_with_file_and_line(tmp_path: Path, case: str) -> None:
    name, content, message = BAD_TABLES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message.format(path=path))):
        read_pairs(path, LIMITS)


def invalid_utf8() -> pa.Array:
    offsets = np.array([0, 1, 2], dtype=np.int32).tobytes()
    return pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(b"p\xff")])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"point": ["p", None], "counter": ["c", "c"]}, ": row 1: point is empty"),
        ({"point": [1, 2], "counter": ["c", "c"]}, ": rows 0 to 1: point holds int64, not text; write it as a string"),
        ({"point": ["p", "p"]}, ": has no column 'counter'; found point"),
        ({"x": ["p", "p"]}, ": has no column 'point'"),
        ({"point": invalid_utf8(), "counter": ["c", "c"]}, ""),
    ],
    ids=["null", "number", "no counter", "neither column", "not UTF-8"],
)
def test_bad_parquet_is_refused_with_file_and_row(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=re.escape(f"{path}{message}")):
        read_pairs(path, LIMITS)


def test_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.path=.*/a\.csv: does not exist; give a CSV, JSONL or"):
        load_corpus(data(tmp_path / "a.csv"))


def test_folder_for_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InputError, match=r"data\.path=.*/a\.csv: is not a file; give a table"):
        load_corpus(data(tmp_path / "a.csv"))


@pytest.mark.parametrize("absent", SPLITS)
def test_split_column_without_one_of_the_splits_is_refused(tmp_path: Path, absent: str) -> None:
    rows = [{"point": f"p {s}", "counter": f"c {s}", "split": s} for s in SPLITS if s != absent]
    with pytest.raises(InputError, match=rf"data\.path=.*/a\.csv: holds no {absent} pair"):
        load_corpus(data(write_csv(tmp_path / "a.csv", rows)))


# --- splits that are drawn ----------------------------------------------------------------------------------------


def records_in_debates(sizes: list[int]) -> list[Record]:
    """Make debates of the given sizes, the rows of one not side by side; two themes share each debate's name."""
    rows = [
        Record(f"p{d}-{i}", f"c{d}-{i}", None, f"theme{d % 2}", f"debate{d // 2}", "pro", f"{d}/{i}")
        for d, size in enumerate(sizes)
        for i in range(size)
    ]
    random.Random(0).shuffle(rows)
    return rows


SIZES = [1 + i % 4 for i in range(40)]


def test_drawn_splits_keep_debates_whole_and_reach_their_shares(tmp_path: Path) -> None:
    records = records_in_debates(SIZES)
    drawn = draw_splits(records, 0.2, 0.3, 0, tmp_path)
    assert [replace(record, split=None) for record in drawn] == records
    splits_of = defaultdict(set)
    for record in drawn:
        splits_of[record.theme, record.debate].add(record.split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    sizes = Counter(record.split for record in drawn)
    for split, share in (("validation", 0.2), ("test", 0.3)):
        assert share * len(records) <= sizes[split] < share * len(records) + max(SIZES)


def test_split_seed_decides_the_drawn_splits(tmp_path: Path) -> None:
    records = records_in_debates(SIZES)
    drawn = [draw_splits(records, 0.15, 0.15, seed, tmp_path) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_rows_are_drawn_one_by_one_without_debates(tmp_path: Path) -> None:
    rows = [{"point": f"p{i}", "counter": f"c{i}"} for i in range(100)]
    corpus = load_corpus(data(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert {split: len(corpus[split]) for split in SPLITS} == {"train": 70, "validation": 15, "test": 15}
    assert texts_of(corpus, "test") != [(row["point"], row["counter"]) for row in rows[-15:]]


@pytest.mark.parametrize("shares", [(0.01, 0.01), (0.49, 0.49), (0.9, 0.05)])
@pytest.mark.parametrize("sizes", [[1, 1, 1], [50, 1, 1], [1, 50, 1, 50]])
def test_three_debates_are_enough_for_three_splits(
    tmp_path: Path, sizes: list[int], shares: tuple[float, float]
) -> None:
    for seed in range(5):
        drawn = draw_splits(records_in_debates(sizes), *shares, seed, tmp_path)
        assert {record.split for record in drawn} == set(SPLITS)


@pytest.mark.parametrize("columns", [{}, {"debate": "d"}], ids=["rows", "debates"])
def test_fewer_than_three_groups_are_refused(tmp_path: Path, columns: Row) -> None:
    count = 2 if not columns else 9
    rows = [
        {"point": f"p{i}", "counter": f"c{i}"} | {k: f"{v}{i % 2}" for k, v in columns.items()} for i in range(count)
    ]
    unit = "debates" if columns else "rows"
    with pytest.raises(InputError, match=rf"data\.path=.*/a\.csv: 2 {unit} cannot make three splits; add pairs or"):
        load_corpus(data(write_csv(tmp_path / "a.csv", rows)))


# --- copies and leakage -------------------------------------------------------------------------------------------


def overlapping_rows(seed: int) -> list[Row]:
    """Draw rows whose texts come from few: repeated points, repeated pairs, and texts shared between splits."""
    rng = random.Random(seed)
    rows = []
    for _ in range(80):
        split = rng.choices(SPLITS, [8, 1, 1])[0]
        pool = [f"{split} {i}" for i in range(9)] + ["shared 0", "shared 1", "shared 2"]
        rows.append({"point": rng.choice(pool), "counter": rng.choice(pool), "split": split})
    return rows


def in_split(rows: list[Row], split: str) -> list[tuple[str, str]]:
    return [(row["point"], row["counter"]) for row in rows if row["split"] == split]


def plain_loop(rows: list[Row], train_overlap: str, copies: str) -> list[tuple[str, str]]:
    held_out = {text for split in ("validation", "test") for pair in in_split(rows, split) for text in pair}
    kept: list[tuple[str, str]] = []
    for pair in in_split(rows, "train"):
        leaks = pair[0] in held_out or pair[1] in held_out
        if not (train_overlap == "drop" and leaks) and not (copies == "merge" and pair in kept):
            kept.append(pair)
    return kept


@pytest.mark.parametrize("copies", ["merge", "keep"])
@pytest.mark.parametrize("train_overlap", ["drop", "keep"])
@pytest.mark.parametrize("seed", [0, 1])
def test_training_rows_equal_a_plain_loop(tmp_path: Path, seed: int, train_overlap: str, copies: str) -> None:
    rows = overlapping_rows(seed)
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    corpus = load_corpus(replace(data(path), train_overlap=train_overlap, copies=copies))
    expected = plain_loop(rows, train_overlap, copies)
    assert texts_of(corpus, "train") == expected
    assert texts_of(corpus, "validation") == in_split(rows, "validation")
    assert texts_of(corpus, "test") == in_split(rows, "test")
    assert corpus.counts["train"]["pairs"] == len(in_split(rows, "train"))
    known = {text for pair in expected for text in pair}
    for split in ("validation", "test"):
        seen = [point in known or counter in known for point, counter in in_split(rows, split)]
        assert shares_text(corpus[split], corpus["train"]).tolist() == seen
        assert any(seen) == (train_overlap == "keep")


def test_dependent_groups_equal_a_plain_flood_fill(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        size = int(rng.integers(1, 12))
        point, counter, debate = (rng.integers(0, high, size) for high in (15, 15, 6))
        codes = np.zeros(size, dtype=np.int64)
        split = Split(tuple(map(str, range(size))), point, counter, codes, debate, codes)
        for one in (split, replace(split, debate=None)):
            groups = dependent_groups(one)
            for start in range(size):
                assert set(np.flatnonzero(groups == groups[start])) == flood(one, start)
            assert sorted(set(groups.tolist())) == list(range(len(set(groups.tolist()))))


def flood(split: Split, start: int) -> set[int]:
    """Return the rows that can be reached over a shared debate or a shared text."""
    reached, todo = {start}, [start]
    while todo:
        row = todo.pop()
        texts = {split.point[row], split.counter[row]}
        for other in set(range(len(split))) - reached:
            near = split.debate is not None and split.debate[other] == split.debate[row]
            if near or texts & {split.point[other], split.counter[other]}:
                reached.add(other)
                todo.append(other)
    return reached


def test_a_text_shared_as_point_or_counter_counts_as_seen(tmp_path: Path) -> None:
    pairs = [("P", "x"), ("x", "P"), ("C", "x"), ("x", "C"), ("y", "z"), ("P", "C")]
    rows = [{"point": "P", "counter": "C", "split": "train"}, {"point": "z", "counter": "y", "split": "test"}]
    rows += [{"point": point, "counter": counter, "split": "validation"} for point, counter in pairs]
    corpus = load_corpus(replace(data(write_csv(tmp_path / "a.csv", rows)), train_overlap="keep"))
    assert shares_text(corpus["validation"], corpus["train"]).tolist() == [True, True, True, True, False, True]
    assert "5 validation and 0 test pairs with training" in corpus.summary


@pytest.mark.parametrize("seed", [0, 1])
def test_summary_names_the_counts_and_the_keys(tmp_path: Path, seed: int) -> None:
    rows = overlapping_rows(seed)
    summary = load_corpus(data(write_jsonl(tmp_path / "a.jsonl", rows))).summary
    train = in_split(rows, "train")
    points = Counter(point for point, _ in train)
    known = {text for pair in train for text in pair}
    leaked = {s: sum(p in known or c in known for p, c in in_split(rows, s)) for s in ("validation", "test")}
    for phrase in (
        f"train {len(train)} points, {len(train)} counters, {len(train)} pairs",
        f"{sum(count for count in points.values() if count > 1)} points occur more than once",
        f"{len(train) - len(set(train))} pairs repeat an earlier one (data.copies=merge)",
        f"{len(train) - len(plain_loop(rows, 'drop', 'keep'))} pairs share a text with validation or test",
        f"{leaked['validation']} validation and {leaked['test']} test pairs with training (data.train_overlap=drop)",
        f"Training uses {len(plain_loop(rows, 'drop', 'merge'))} pairs.",
    ):
        assert phrase in summary
    assert "\n" not in summary


def test_summary_says_that_nothing_overlaps(tmp_path: Path) -> None:
    rows = [{"point": f"p {s}", "counter": f"c {s}", "split": s} for s in SPLITS]
    summary = load_corpus(data(write_csv(tmp_path / "a.csv", rows))).summary
    assert "No copies, and no text is shared between training and validation or test." in summary


# --- which texts are copies ---------------------------------------------------------------------------------------

ORIGINAL = "Caf\u00e9 prices at the office rise by 5 percent."
RESPELLED = {
    "double space": ORIGINAL.replace(" ", "  "),
    "no-break space": ORIGINAL.replace(" ", "\u00a0"),
    "lines": ORIGINAL.replace(" ", "\n\t"),
    "case": ORIGINAL.upper(),
    "zero-width space": ORIGINAL.replace("ice", "i\u200bce"),
    "zero-width joiners": ORIGINAL.replace("ice", "i\u200dc\u200ce"),
    "word joiner and byte order mark": ORIGINAL.replace("ice", "i\u2060c\ufeffe"),
    "soft hyphen": ORIGINAL.replace("office", "of\u00adfice"),
    "direction mark": "\u200e" + ORIGINAL,
    "decomposed": unicodedata.normalize("NFD", ORIGINAL),
    "zero-width space within a character": unicodedata.normalize("NFD", ORIGINAL).replace("e\u0301", "e\u200b\u0301"),
    "ligature": ORIGINAL.replace("ffi", "\ufb03"),
    "full width": ORIGINAL.replace("5", "\uff15"),
}
OTHER = {
    "another word": ORIGINAL.replace("rise", "fall"),
    "another number": ORIGINAL.replace("5", "6"),
    "another accent": ORIGINAL.replace("\u00e9", "e"),
    "no space": ORIGINAL.replace("at the", "atthe"),
    "no full stop": ORIGINAL.removesuffix("."),
}


@pytest.mark.parametrize("match", ["normalized", "exact"])
@pytest.mark.parametrize("case", [*RESPELLED, *OTHER])
def test_a_respelled_text_is_a_copy_unless_match_is_exact(tmp_path: Path, case: str, match: str) -> None:
    text = (RESPELLED | OTHER)[case]
    assert text != ORIGINAL
    copy = case in RESPELLED and match == "normalized"
    rows = [
        {"point": ORIGINAL, "counter": "c", "split": "train"},
        {"point": text, "counter": "c", "split": "train"},  # a copy of the pair before
        {"point": "p", "counter": "leaked " + text, "split": "train"},
        {"point": "p v", "counter": "held out " + text, "split": "validation"},
        {"point": "LEAKED " + ORIGINAL.lower() if copy else "p t", "counter": "c t", "split": "test"},
        {"point": "held out " + ORIGINAL, "counter": "another c t", "split": "test"},
    ]
    corpus = load_corpus(replace(data(write_jsonl(tmp_path / "a.jsonl", rows)), match=match))
    used = [ORIGINAL] if copy else [ORIGINAL, text, "p"]
    assert [point for point, _ in texts_of(corpus, "train")] == used
    assert (f"{int(copy)} pairs repeat an earlier one" in corpus.summary) == copy
    assert ("0 validation and 1 test pairs with training" in corpus.summary) == copy
    assert ("Validation, which picks the epoch, shares a text with 1 of the 2 test pairs" in corpus.summary) == copy
    assert ("No copies, and no text is shared" in corpus.summary) == (not copy)
    assert f"(data.match={match})" in corpus.summary
    assert ("3 texts are copies for that reason alone" in corpus.summary) == copy
    assert texts_of(corpus, "validation") == [("p v", "held out " + text)]  # what is embedded stays as it was written


SPACES = st.text(" \u00a0\t\n\u2003\u3000", min_size=1, max_size=3)
INVISIBLE = st.text("\u00ad\u200b\u200c\u200d\u2060\ufeff", max_size=2)


def respell(text: str, draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
    """Write a text anew as a careless tool would, so that a reader sees no other words."""
    text = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), text)
    if draw(st.booleans()):
        text = "".join(letter.swapcase() if letter.isascii() else letter for letter in text)
    parts = [draw(SPACES) if letter.isspace() else letter + draw(INVISIBLE) for letter in text]
    return "".join([draw(INVISIBLE), draw(SPACES), *parts, draw(SPACES)])


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    text=st.one_of(st.text(max_size=12), st.text("aA\u00e9\u1e9e\u0345\ufb01\uac00 \u00a0", max_size=12)),
    data=st.data(),
)
def test_normalised_texts_do_not_depend_on_how_they_are_written(text: str, data: st.DataObject) -> None:
    once = normalized(text)
    assert normalized(once) == once
    assert normalized(respell(text, data.draw)) == once
    assert once == " ".join(once.split())
    assert unicodedata.is_normalized("NFKC", once)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    first=st.text(string.ascii_lowercase + "0 ", max_size=6), second=st.text(string.ascii_lowercase + "0 ", max_size=6)
)
def test_plain_words_stay_apart(first: str, second: str) -> None:
    assert (normalized(first) == normalized(second)) == (first.split() == second.split())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_respelled_copies_and_leaks_are_those_of_the_texts_they_respell(tmp_path: Path, seed: int) -> None:
    rows, rng = overlapping_rows(seed), random.Random(seed)

    def careless(text: str) -> str:
        return rng.choice([text, text.upper(), text.replace(" ", "\u00a0 "), "\u200b".join(text)])

    spelled = [row | {"point": careless(row["point"]), "counter": careless(row["counter"])} for row in rows]
    for train_overlap, copies in itertools.product(["keep", "drop"], ["keep", "merge"]):
        options: dict[str, Any] = {"train_overlap": train_overlap, "copies": copies}
        plain = load_corpus(replace(data(write_jsonl(tmp_path / "a.jsonl", rows)), **options))
        found = load_corpus(replace(data(write_jsonl(tmp_path / "b.jsonl", spelled)), **options))
        alone = re.search(r"; \d+ texts are copies for that reason alone", found.summary)
        assert alone is not None
        assert found.summary.replace(alone[0], "") == plain.summary
        for split in SPLITS:
            assert found[split].ids == plain[split].ids
            assert first_of_pair(found[split]).tolist() == first_of_pair(plain[split]).tolist()
            assert dependent_groups(found[split]).tolist() == dependent_groups(plain[split]).tolist()
            assert texts_of(found, split) == [written(spelled, split, id_) for id_ in found[split].ids]


def respelled_table(path: Path) -> list[Row]:
    """Write eight training pairs, each once more in capitals and with two spaces, and two held-out pairs."""
    words = ["taxes", "schools", "parks", "trains", "courts", "farms", "ports", "banks"]
    rows = [{"point": f"we need {w} now", "counter": f"nobody pays for {w}", "split": "train"} for w in words]
    rows += [
        row | {"point": row["point"].upper(), "counter": row["counter"].replace(" ", "  ")} for row in reversed(rows)
    ]
    rows += [{"point": f"a {split} point", "counter": f"a {split} counter", "split": split} for split in SPLITS[1:]]
    write_jsonl(path, rows)
    return rows


@pytest.mark.parametrize("match", ["normalized", "exact"])
def test_a_respelled_copy_is_mined_when_match_is_exact_only(
    run_training: Train, tmp_path: Path, match: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = respelled_table(tmp_path / "a.jsonl")
    own = [
        "data=pairs",
        f"data.path={tmp_path}/a.jsonl",
        "data.copies=keep",
        f"data.match={match}",
        "data.max_pairs=null",
    ]
    with caplog.at_level(logging.WARNING, logger="negexp"):
        folder = run_training("experiment=smoke", "sampler=hard", "trainer.epochs=1", *own)
    ledger = pd.read_parquet(folder / "negatives" / "epoch-000.parquet")
    texts = {source: [" ".join(row[source].lower().split()) for row in rows] for source in ("point", "counter")}
    pairs = ledger[["pair", "source", "row"]].itertuples(index=False)
    copies = [texts[source][row] in (texts["point"][pair], texts["counter"][pair]) for pair, source, row in pairs]
    assert len(copies) == 16
    assert any(copies) == (match == "exact")  # the tokenizer lower-cases, so a copy has distance 0
    said = "32 texts have the same tokens as another text that is not a copy (data.match=exact)"
    why = "neither merged nor dropped: 32 differ in what the tokenizer drops"
    assert [message.startswith(said) and message.endswith(why) for message in caplog.messages] == [True] * (
        match == "exact"
    )


def written(spelled: list[Row], split: str, id_: str) -> tuple[str, str]:
    """Return the two texts of a pair as its row has them; without metadata an id is the number of the row."""
    row = spelled[int(id_.removeprefix("pair")) - 1]
    assert row["split"] == split
    return row["point"], row["counter"]


def test_training_that_overlaps_wholly_is_refused_unless_kept(tmp_path: Path) -> None:
    rows = [{"point": "the point", "counter": f"c {s}", "split": s} for s in SPLITS]
    config = data(write_csv(tmp_path / "a.csv", rows))
    with pytest.raises(
        InputError, match=r"data\.train_overlap=drop: no training pair is left.*data\.train_overlap=keep"
    ):
        load_corpus(config)
    assert len(load_corpus(replace(config, train_overlap="keep"))["train"]) == 1


@pytest.mark.parametrize("max_pairs", [1, 7, 20, 1000])
def test_max_pairs_keeps_whole_debates_first(tmp_path: Path, max_pairs: int) -> None:
    rows = [
        {"point": f"p{r.id}{s}", "counter": f"c{r.id}{s}", "debate": f"{r.theme}{r.debate}{s}", "split": s}
        for s in SPLITS
        for r in records_in_debates(SIZES)
    ]
    config = data(write_jsonl(tmp_path / "a.jsonl", rows))
    whole, cut = load_corpus(config), load_corpus(replace(config, max_pairs=max_pairs))
    debate_of = {(row["point"], row["counter"]): row["debate"] for row in rows}
    sizes = Counter(debate_of.values())
    for split in SPLITS:
        kept = texts_of(cut, split)
        assert kept == [pair for pair in texts_of(whole, split) if pair in set(kept)]
        assert len(kept) == min(max_pairs, len(whole[split]))
        partly = [
            debate for debate, count in Counter(map(debate_of.__getitem__, kept)).items() if count < sizes[debate]
        ]
        assert len(partly) <= 1
    assert f"data.max_pairs={max_pairs} leaves {len(cut['train'])} train" in cut.summary
    again, other = (load_corpus(replace(config, max_pairs=max_pairs, split_seed=seed)) for seed in (0, 5))
    assert again["train"].ids == cut["train"].ids
    assert (other["train"].ids == cut["train"].ids) == (max_pairs == 1000)


def test_fingerprint_follows_the_texts_and_not_the_reading(tmp_path: Path) -> None:
    def fingerprint(rows: list[Row]) -> str:
        return load_corpus(data(write_csv(tmp_path / "a.csv", rows))).fingerprint()

    rows = [{"point": f"p {s}", "counter": f"c {s}", "split": s} for s in SPLITS]
    first = fingerprint(rows)
    assert fingerprint(rows) == first
    for place in range(3):
        for column, text in (("point", "another"), ("counter", "another"), ("split", "train")):
            changed = [dict(row) for row in rows] + [{"point": "x", "counter": "y", "split": s} for s in SPLITS[1:]]
            before = fingerprint(changed)
            changed[place][column] = text
            assert (fingerprint(changed) == before) == (rows[place][column] == text)


def test_fingerprint_tells_where_a_text_ends(tmp_path: Path) -> None:
    def fingerprint(point: str, counter: str) -> str:
        rows = [{"point": point, "counter": counter, "split": split} for split in SPLITS]
        path = write_csv(tmp_path / "a.csv", rows)
        return load_corpus(replace(data(path), train_overlap="keep")).fingerprint()

    assert fingerprint("ab", "c") != fingerprint("a", "bc")


# --- the demo -----------------------------------------------------------------------------------------------------


def test_demo_has_debates_with_both_stances_in_enough_themes() -> None:
    records = read_pairs(DEMO, LIMITS)
    stances = defaultdict(set)
    splits = defaultdict(set)
    for record in records:
        stances[record.debate].add(record.stance)
        splits[record.debate].add(record.split)
    assert len(records) >= 180
    assert len({record.theme for record in records}) >= 8
    assert len(stances) >= 36
    assert all(found == {"pro", "con"} for found in stances.values())
    assert all(len(found) == 1 for found in splits.values())
    assert {record.split for record in records} == set(SPLITS)


def test_demo_texts_are_distinct_and_have_two_to_four_sentences() -> None:
    texts = [text for record in read_pairs(DEMO, LIMITS) for text in (record.point, record.counter)]
    assert len(set(texts)) == len(texts)
    assert {len(re.findall(r"[.!?][\"')]*(?=\s|$)", text)) for text in texts} <= {2, 3, 4}


def test_demo_loads_whole_and_needs_no_path() -> None:
    corpus = load_corpus(data(None, "demo"))
    assert sum(len(corpus[split]) for split in SPLITS) == len(read_pairs(DEMO, LIMITS))
    assert "No copies" in corpus.summary
