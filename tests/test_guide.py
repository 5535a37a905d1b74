"""The examples of negexp/README.md, installed as the package that they make up, and trained with."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from packages import installed

from negexp.application.plugins import register_search_path
from negexp.cli import main
from negexp.components import KINDS
from negexp.config import CONF_DIR, parse_train
from negexp.corpus.readers.demo import DEMO

pytestmark = pytest.mark.runs

GUIDE = Path(__file__).resolve().parent.parent / "negexp" / "README.md"
PACKAGE = "my_negatives"
QUICK = ["experiment=smoke", "trainer.precision=float32", "trainer.device=cpu", "tracker.progress=never"]


def examples() -> dict[str, str]:
    """Return the guide's files: those that a comment `<!-- file: NAME -->` stands above."""
    blocks = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return dict(blocks)


def commands() -> list[str]:
    """Return the command lines `negexp train ...` of the guide, in order."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [
        line
        for language, block in blocks
        if not language
        for line in block.splitlines()
        if line.startswith("negexp train")
    ]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """Install the guide's package below tmp_path, and work in another folder."""
    project = tomllib.loads(examples()["pyproject.toml"])["project"]
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    below = f"{PACKAGE}/"
    files = {name.removeprefix(below): text for name, text in examples().items() if name.startswith(below)}
    with installed(PACKAGE, files, "\n".join(groups), tmp_path) as folder:
        yield folder


def pairs_with_tabs() -> str:
    rows = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    return "point\tcounter\tdebate\n" + "".join(f"{row['point']}\t{row['counter']}\t{row['debate']}\n" for row in rows)


def test_a_run_with_a_part_of_every_kind(work: Path) -> None:
    Path("pairs.tsv").write_text(pairs_with_tabs(), encoding="utf-8")
    parts = ["sampler=warm_up", "mining=ranks", "batch=loose", "loss=contrast", "data=tsv"]
    parts += ["tracker=[default,journal]"]
    keys = ["data.path=pairs.tsv", "data.skip_lines=1", "hydra.run.dir=run"]
    assert main(["train", *QUICK, *parts, *keys]) == 0
    metrics = pd.read_csv("run/metrics.csv")
    assert metrics["random_rate"].tolist() == metrics["mined_share"].rsub(1).tolist() == [1.0, 0.0]  # warm_up
    assert metrics["loss_contrast"].tolist() == metrics["loss"].tolist()
    ledger = pd.read_parquet("run/negatives/epoch-001.parquet")
    assert (ledger["neighbour_rank"] >= 5).all()
    lines = [json.loads(line) for line in Path("run/journal.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines[:2]] == metrics["loss"].tolist()
    assert [line["accuracy"] for line in lines[:2]] == metrics["validation/clean/retrieval/epa/accuracy@1"].tolist()
    assert lines[2:] == [{"best_epoch": json.loads(Path("run/result.json").read_text())["best_epoch"]}]


def test_the_schedule_falls_when_validation_does_not_improve(work: Path) -> None:
    parts = ["sampler=scheduled", "schedule@sampler.random_rate=plateau", "trainer.epochs=3", "trainer.lr=0"]
    assert main(["train", *QUICK, *parts, "trainer.head_lr=0", "hydra.run.dir=run"]) == 0  # nothing is learned
    assert pd.read_csv("run/metrics.csv")["random_rate"].tolist() == pytest.approx([0.9, 0.9, 0.45])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sampler=warm_up", "sampler.random_epochs=-1"], "sampler.random_epochs=-1.0: must be at least 0"),
        (
            ["mining=ranks", "sampler.mining.low=30"],
            "sampler.mining.low=30: above sampler.mining.high=20; lower it",
        ),
        (["batch=loose", "batch.share=2"], "batch.share=2.0: must be between 0 and 1"),
        (["data=tsv"], "data.path: data=tsv needs data.path=... (a file with tabs between point, counter and debate)"),
        (["sampler=warmup"], "did you mean sampler=warm_up?"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    work: Path, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *overrides]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_line_without_a_tab_is_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.tsv").write_text("a point\ta counter\nno tab\n")
    assert main(["train", *QUICK, "data=tsv", "data.path=pairs.tsv"]) == 2
    assert "pairs.tsv:2: has 1 columns" in capsys.readouterr().err


@pytest.mark.parametrize("command", commands())
def test_every_command_line_of_the_guide_is_accepted(work: Path, command: str) -> None:
    register_search_path()
    program, name, *overrides = shlex.split(command)
    assert (program, name) == ("negexp", "train")
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        parse_train(compose("train", overrides))


def test_the_guides_own_test_passes(work: Path, tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(examples()["test_ranks.py"], scope)
    scope["test_negatives_come_from_the_given_ranks"](tmp_path / "run")


def test_the_command_reads_the_ledger(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("negexp.command")
    assert main(["train", *QUICK, "hydra.run.dir=run"]) == 0
    capsys.readouterr()
    assert main(["origins", "run=run", "epochs=1"]) == 0
    ledger = pd.read_parquet("run/negatives/epoch-000.parquet")
    counts = {name: (ledger["origin"] == name).sum() / len(ledger) for name in ("debate", "elsewhere", "theme")}
    shares = ", ".join(f"{name} {share:.0%}" for name, share in counts.items() if share)
    assert capsys.readouterr().out == f"epoch-000 {shares}\n"
    assert main(["origins", "run=."]) == 2
    assert capsys.readouterr().err.startswith("negexp: run=.: has no ledger")
    assert main(["--help"]) == 0
    assert re.search(r"^  origins +Say where the negatives of a run come from$", capsys.readouterr().out, re.MULTILINE)


def test_every_kind_is_in_the_guide() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert all(f"`{kind.group}`" in text for kind in KINDS.values())
