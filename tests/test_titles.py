"""`data.titles=drop`: which lines are titles, copies that arise without them, and runs evaluated without them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from conftest import Train, compose_train
from hypothesis import given
from hypothesis import strategies as st

from negexp.cli import main
from negexp.components import build
from negexp.config import load_run_config, to_yaml
from negexp.corpus import SPLITS, load_corpus
from negexp.corpus.limits import Limits
from negexp.corpus.readers.arguana import drop_title

FOLDERS = {"train": "training", "validation": "validation", "test": "test"}
THINGS = ["taxes", "schools", "parks", "trains"]


def expected(text: str) -> str:
    """Drop the title by a plain loop over lines."""
    lines = text.split("\n")
    if len(lines) < 3 or not lines[0] or len(lines[0]) > 160 or lines[1].strip():
        return text
    return "\n".join(lines[1:]).strip() or text


def write(root: Path, split: str, number: int, point: str, counter: str) -> None:
    folder = root / FOLDERS[split] / "law" / f"debate-{split}-{number % 2}" / "pro"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"pro{number:02d}a-point.txt").write_text(point, newline="")
    (folder / f"pro{number:02d}b-counter.txt").write_text(counter, newline="")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four pairs a split; points have titles. The body of test point 0 is in training, below another title."""
    for split in SPLITS:
        for number, thing in enumerate(THINGS):
            body = f"Everyone in {split} pays for {thing}."
            if (split, number) == ("test", 0):
                body = "Everyone in train pays for taxes."
            counter = f"Nobody in {split} wants fewer {thing}."
            write(tmp_path / "tree", split, number, f"{split} {thing} matter\n\n{body}\n", counter)
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("Masks annoy\n\nNobody likes them.\n\nNot I.", "Nobody likes them.\n\nNot I."),
        ("Masks annoy.\r\n\r\nNobody likes them.", "Nobody likes them."),
        ("Masks annoy\n \t\n\n\n  Nobody likes them.", "Nobody likes them."),
        ("Masks annoy", "Masks annoy"),  # nothing but a title
        ("Masks annoy\n\n", "Masks annoy\n\n"),
        ("Masks annoy\nNobody likes them.", "Masks annoy\nNobody likes them."),  # no empty line
        ("x" * 160 + "\n\nBody.", "Body."),
        ("x" * 161 + "\n\nBody.", "x" * 161 + "\n\nBody."),
    ],
)
def test_a_title_is_a_short_first_line_before_an_empty_line_and_more_text(text: str, body: str) -> None:
    assert drop_title(text) == body == expected(text)


@given(st.lists(st.sampled_from(["", " ", "Masks annoy", "Nobody likes them.", "x" * 161]), max_size=6))
def test_titles_are_those_of_a_plain_loop(lines: list[str]) -> None:
    text = "\n".join(lines).strip()
    assert drop_title(text) == expected(text)


def test_dropped_titles_are_counted_and_texts_that_become_copies_are_copies(tree: Path) -> None:
    write(tree, "validation", 3, "A point of one line.", "A counter has one\n\nsometimes.")
    config = compose_train("data=arguana", f"data.path={tree}", "data.titles=drop").data
    corpus = load_corpus(config)
    note = "Of the 12 pairs, 11 points and 1 counters lost their title lines (data.titles=drop)."
    assert corpus.summary.endswith(note)
    assert "A point of one line." in corpus.texts
    assert "sometimes." in corpus.texts
    assert not [text for text in corpus.texts if "matter" in text]
    assert len(corpus["train"]) == 3  # the first shares its point with test now
    kept = load_corpus(compose_train("data=arguana", f"data.path={tree}").data)
    assert len(kept["train"]) == 4
    assert "titles" not in kept.summary
    assert [kept[split].ids for split in ("validation", "test")] == [
        corpus[split].ids for split in ("validation", "test")
    ]


@pytest.mark.runs
def test_a_run_trained_with_titles_is_evaluated_without_them_and_knows_what_it_saw(
    tree: Path, run_training: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tree.parent)
    small = ["experiment=smoke", "trainer.epochs=1", "data=arguana", f"data.path={tree}", "data.train_overlap=keep"]
    own = ["data.max_pairs=null", "trainer.monitor=clean/retrieval/epa/accuracy@1", "trainer.threads=1"]
    run = run_training(*small, *own)
    assert "titles: keep" in (run / "config.yaml").read_text()

    def seen(*overrides: str) -> list[str]:
        assert main(["evaluate", f"run={run}", "output=found", "device=cpu", *overrides]) == 0
        ranks = pd.read_parquet("found/evaluation/test-ranks.parquet")
        return sorted(ranks.loc[ranks["seen_in_training"], "query"].unique())

    assert seen() == []
    assert seen("data.titles=drop") == ["law/debate-test-0/pro00"]
    with_titles, without = (
        build("data", config).read(Limits(10**6, 100)).records
        for config in (
            load_run_config(run / "config.yaml").data,
            compose_train("data=arguana", f"data.path={tree}", "data.titles=drop").data,
        )
    )
    assert [one.id for one in with_titles] == [one.id for one in without]
    capsys.readouterr()
    assert main(["evaluate", f"run={run}", "data.titles=dropped"]) == 2
    error = "negexp: data.titles=dropped: must be one of keep, drop; did you mean data.titles=drop?\n"
    assert capsys.readouterr().err == error


def test_a_run_of_a_version_without_titles_kept_them(tmp_path: Path) -> None:
    now = compose_train("data=arguana", "data.path=corpus")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(now).replace("  titles: keep\n", ""))
    assert "titles" not in path.read_text()
    assert load_run_config(path).data == now.data


def test_another_reader_has_no_titles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "data.titles=drop"]) == 2
    assert capsys.readouterr().err.startswith("negexp: data.titles: no such key of data=demo; there are name, path, ")
    assert main(["train", "data.titles=drop"]) == 2
    assert "data.titles" in capsys.readouterr().err
