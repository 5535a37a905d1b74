"""What jobs of one process share is read, tokenised and indexed once, read anew when it changed, and never written."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_beir
from attempts import differences
from conftest import QUICK, compose_train
from hypothesis import given, settings
from hypothesis import strategies as st

from negexp import tokens
from negexp.cli import main
from negexp.config import DataConfig
from negexp.corpus import Corpus, load, load_corpus, stamp
from negexp.corpus.readers.pairs import Pairs
from negexp.corpus.stamp import file_stamp
from negexp.errors import InputError
from negexp.lexical import BM25
from negexp.sampling import lexical_source
from negexp.shared import Latest
from negexp.tokens import TokenTable, tokenize_corpus, train_vocabulary

pytestmark = pytest.mark.runs

WORDS = ["tax", "school", "park", "train", "court", "farm", "port", "bank", "road", "mine", "zoo", "lab"]


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 4))
@settings(deadline=None, derandomize=True)
def test_the_latest_results_are_those_of_a_plain_list(keys: list[int], most: int) -> None:
    latest: Latest[object] = Latest(most)
    recent: list[tuple[int, object]] = []  # the least recently used one first
    for key in keys:
        known = dict(recent)
        made: list[object] = []

        def make(made: list[object] = made) -> object:
            made.append(object())
            return made[0]

        found = latest.get(key, make)
        assert bool(made) == (key not in known)
        assert found is (made[0] if made else known[key])
        recent = [*((k, v) for k, v in recent if k != key), (key, found)][-most:]


def test_what_fails_is_not_kept() -> None:
    latest: Latest[int] = Latest(1)
    with pytest.raises(ZeroDivisionError):
        latest.get("key", lambda: 1 // 0)
    assert latest.get("key", lambda: 5) == 5


# --- the corpus ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share nothing with other tests, and trust files that were written just now."""
    forget(monkeypatch)
    monkeypatch.setattr(stamp, "SETTLED_NS", 0)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share nothing with what ran before, as in a new process."""
    for place, name in ((load, "_latest"), (tokens, "_tables"), (tokens, "_vocabularies"), (lexical_source, "_latest")):
        monkeypatch.setattr(place, name, Latest(getattr(place, name).most))


def write_pairs(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "point": " ".join(rng.choice(WORDS, 8)),
            "counter": " ".join(rng.choice(WORDS, 8)),
            "split": split,
            "debate": i,
        }
        for split in ("train", "validation", "test")
        for i in range(8)
    ]
    pd.DataFrame(rows).astype(str).to_json(path, orient="records", lines=True)
    return path


def data(path: Path, *overrides: str) -> DataConfig:
    return compose_train("data=pairs", f"data.path={path}", *overrides).data


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the tables that were read."""
    found: list[Path] = []
    original = Pairs.read

    def counted(self: Pairs, limits: Any) -> Any:
        found.append(self.path)
        return original(self, limits)

    monkeypatch.setattr(Pairs, "read", counted)
    return found


def test_a_corpus_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    path = write_pairs(tmp_path / "a.jsonl")
    first = load_corpus(data(path))
    assert load_corpus(data(path)) is first
    assert len(read) == 1
    other = load_corpus(data(path, "data.copies=keep"))
    assert other is not first
    assert load_corpus(data(path), needed=["test"]).fingerprint() == first.fingerprint()
    assert len(read) == 3


def rewritten(path: Path) -> None:
    write_pairs(path, seed=1)


def same_size_and_time(path: Path) -> None:
    before = path.stat()
    path.write_text(path.read_text().replace("zoo", "lab"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def replaced(path: Path) -> None:
    os.replace(write_pairs(path.with_name("new.jsonl"), seed=2), path)


@pytest.mark.parametrize("change", [rewritten, same_size_and_time, replaced])
def test_a_file_that_changed_is_read_anew(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pairs(tmp_path / "a.jsonl")
    before = load_corpus(data(path)).fingerprint()
    change(path)
    after = load_corpus(data(path))
    monkeypatch.setattr(load, "_latest", Latest(2))
    assert after.fingerprint() == load_corpus(data(path)).fingerprint() != before


def test_a_file_that_may_still_change_is_not_shared(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamp, "SETTLED_NS", 10**18)
    path = write_pairs(tmp_path / "a.jsonl")
    assert load_corpus(data(path)) is not load_corpus(data(path))
    assert len(read) == 2


def test_a_reader_that_may_read_other_files_reads_each_time(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pairs, "reads_only_path", False)  # as readers of other packages, unless they say so
    path = write_pairs(tmp_path / "a.jsonl")
    load_corpus(data(path))
    load_corpus(data(path))
    assert len(read) == 2


def test_the_stamp_of_a_folder_sees_every_change(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    file = folder / "deep" / "a.txt"
    file.write_text("one")
    stamps = [file_stamp(folder, 9)]
    assert file_stamp(folder, 9) == stamps[0] is not None

    changes: list[Callable[[], object]] = [
        lambda: file.write_text("two"),
        lambda: (folder / "b.txt").write_text(""),
        lambda: (folder / "b.txt").rename(folder / "c.txt"),
        lambda: (folder / "c.txt").unlink(),
        lambda: (folder / "deep" / "empty").mkdir(),
    ]
    for change in changes:
        change()
        stamps.append(file_stamp(folder, 9))
    assert len(set(stamps)) == 6
    assert file_stamp(folder, 3) is None  # more files than allowed
    (folder / "link").symlink_to(tmp_path)
    assert file_stamp(folder, 9) is None
    assert file_stamp(tmp_path / "nothing", 9) is None
    (tmp_path / "way").symlink_to(file)  # a link as the path itself is followed
    assert file_stamp(tmp_path / "way", 9) == file_stamp(file, 9) is not None


def test_a_wrong_file_is_refused_each_time(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"point": "x"}\n')
    messages = []
    for _ in range(2):
        with pytest.raises(InputError) as error:
            load_corpus(data(tmp_path / "a.jsonl"))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def arrays(value: Any) -> Iterator[np.ndarray]:
    """Yield the arrays of a corpus, or of a part of it."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from arrays(one)
    elif is_dataclass(value) or isinstance(value, TokenTable):
        yield from arrays(vars(value))


@pytest.mark.parametrize("kind", ["pairs", "beir"])
def test_nobody_can_write_what_is_shared(kind: str, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.jsonl") if kind == "pairs" else test_beir.write(tmp_path / "made")
    config = compose_train(f"data={kind}", f"data.path={path}")
    corpus = load_corpus(config.data)
    tokenizer = train_vocabulary(corpus.texts, 200, 32)
    shared = [*arrays(corpus), *arrays(tokenize_corpus(corpus, tokenizer, 32))]
    assert len(shared) > 12
    for array in shared:
        assert not array.flags.writeable


def test_no_more_than_two_corpora_are_in_memory(tmp_path: Path) -> None:
    alive: list[weakref.ref[Corpus]] = []
    for seed in range(5):
        corpus = load_corpus(data(write_pairs(tmp_path / f"{seed}.jsonl", seed)))
        tokenize_corpus(corpus, train_vocabulary(corpus.texts, 200, 32), 32)
        alive.append(weakref.ref(corpus))
        del corpus
    gc.collect()
    assert [one() is not None for one in alive] == [False, False, False, True, True]
    assert len(tokens._tables._found) == len(tokens._vocabularies._found) == 2


# --- tokens and BM25 -----------------------------------------------------------------------------------------------


def test_texts_are_tokenised_once_for_the_same_tokenizer_and_length(tmp_path: Path) -> None:
    corpus = load_corpus(data(write_pairs(tmp_path / "a.jsonl")))
    first, same, other = (train_vocabulary(corpus.texts, size, 32) for size in (200, 200, 60))
    assert first is not same  # tokenizers can be changed
    table = tokenize_corpus(corpus, first, 32)
    assert tokenize_corpus(corpus, same, 32) is table
    assert tokenize_corpus(corpus, other, 32) is not table
    assert tokenize_corpus(corpus, same, 5).lengths.max() == 5
    same.truncation_side = "left"
    left = tokenize_corpus(corpus, same, 5)
    assert left.pad(np.array([0]))[0].tolist() != tokenize_corpus(corpus, first, 5).pad(np.array([0]))[0].tolist()


# --- a sweep -------------------------------------------------------------------------------------------------------

SWEEP = ["train", "experiment=smoke", *QUICK, "trainer.epochs=1", "trainer.threads=1", "sampler=hard"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what was computed: token tables, vocabularies, BM25 indexes."""
    found: list[str] = []

    def counting(place: Any, name: str) -> None:
        original = getattr(place, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            if name != "tokenize" or len(arguments[0]) > 1:  # one text tells a tokenizer its limit
                found.append(name)
            return original(*arguments, **named)

        monkeypatch.setattr(place, name, counted)

    counting(tokens, "tokenize")
    counting(tokens, "_vocabulary")
    counting(BM25, "__init__")
    return found


def test_jobs_read_tokenise_and_index_once_and_equal_the_job_alone(
    here: Path, read: list[Path], made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pairs(here / "pairs.jsonl")
    keys = [*SWEEP, "data=pairs", f"data.path={path}", "sampler.source=bm25"]
    assert main([*keys, "-m", "sampler.num_negatives=1000,2", "seed=2"]) == 2  # the first one has no such candidates
    assert (len(read), sorted(made)) == (1, ["__init__", "_vocabulary", "tokenize"])
    (job,) = (path.parent for path in here.glob("outputs/sweeps/smoke/*/result.json"))
    forget(monkeypatch)
    assert main([*keys, "sampler.num_negatives=2", "seed=2", "hydra.run.dir=alone"]) == 0
    assert len(read) == 2
    assert set(differences(job, here / "alone")) <= {"result.json"}  # the order of its `overrides`
