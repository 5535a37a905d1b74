"""`negexp evaluate run=...`: the run's own settings, changes on the command line, and texts seen in training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import compose_train
from hydra import compose, initialize_config_dir

from negexp.cli import main
from negexp.commands import train
from negexp.config import CONF_DIR, DataConfig, EvaluateConfig, EvaluationConfig, TrainConfig, parse_config, with_run
from negexp.corpus import SPLITS, check_path
from negexp.errors import InputError

pytestmark = pytest.mark.runs

Evaluate = Callable[..., pd.DataFrame]
WORDS = ["taxes", "schools", "parks", "trains", "courts", "farms", "ports", "banks", "roads", "mines", "zoos", "labs"]


def table(path: Path, prefix: str, seen: dict[int, str]) -> Path:
    """Write twelve pairs a split; a test pair of `seen` has that text as its point."""
    rows = [
        {
            "id": row,
            "point": f"{prefix} {split} wants {word}",
            "counter": f"{prefix} {split} fears {word}",
            "split": split,
        }
        for split in SPLITS
        for row, word in enumerate(WORDS)
    ]
    for row in rows:
        if row["split"] == "test" and row["id"] in seen:
            row["point"] = seen[int(str(row["id"]))]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


# training texts in the run's test split; the last two have another spelling
OWN = {
    0: "own train wants taxes",
    1: "own train fears parks",
    4: "own  train\u00a0wants labs",
    7: "OWN TRAIN FEARS ZOOS",
}
# another corpus: 3 and 5 are training texts of the run, 6 is a training text of the other corpus only
ELSEWHERE = {3: "own train wants farms", 5: "Own train wants ports ", 6: "other train wants parks"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on `own.csv` with leaks. `run/` is the run, `other.csv` is another corpus."""
    folder = tmp_path_factory.mktemp("evaluate")
    table(folder / "other.csv", "other", ELSEWHERE)
    overrides = [
        "experiment=smoke",
        "trainer.epochs=1",
        "data=pairs",
        f"data.path={table(folder / 'own.csv', 'own', OWN)}",
    ]
    overrides += ["data.train_overlap=keep", "data.max_pairs=null", "evaluation.rerank_k=3"]
    overrides += ["trainer.monitor=clean/retrieval/epa/accuracy@1", "trainer.threads=1"]
    (folder / "run").mkdir()
    train.run(compose_train(*overrides), folder / "run", overrides)
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into a copy of that folder. The run in it still names the original `own.csv`."""
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("sys.argv", ["negexp"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return tmp_path / "here"


@pytest.fixture
def evaluated(here: Path) -> Evaluate:
    """Return the ranks that `negexp evaluate run=run OVERRIDES` writes."""

    def evaluate(*overrides: str) -> pd.DataFrame:
        assert main(["evaluate", "run=run", "output=out", "device=cpu", "progress=never", *overrides]) == 0
        return pd.read_parquet(here / "out" / "evaluation" / "test-ranks.parquet")

    return evaluate


def seen(ranks: pd.DataFrame) -> set[int]:
    """Return the rows of the table, from 0, whose queries are marked as seen in training."""
    return {int(id_[len("pair") :]) - 25 for id_ in ranks["query"][ranks["seen_in_training"]]}


def equals_the_runs_own_evaluation(here: Path) -> bool:
    return (here / "out/evaluation/test.json").read_bytes() == (here / "run/evaluation/test.json").read_bytes()


def refusal(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    before = sorted(Path.cwd().iterdir())
    capsys.readouterr()
    assert main(["evaluate", "run=run", "device=cpu", "hydra.run.dir=out", "output=out", *overrides]) == 2
    err = capsys.readouterr().err
    assert err.startswith("negexp: ")
    assert err.count("\n") == 1
    shutil.rmtree("out", ignore_errors=True)
    assert sorted(Path.cwd().iterdir()) == before
    return err.removeprefix("negexp: ")


# ---- keys change the run's own configuration -------------------------------------------------------------------------


def test_a_limit_on_the_command_line_keeps_the_runs_own_data(evaluated: Evaluate, here: Path) -> None:
    assert seen(evaluated("data.max_bytes=100000000")) == set(OWN)
    assert equals_the_runs_own_evaluation(here)
    ranks = pd.read_parquet(here / "run" / "evaluation" / "test-ranks.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(here / "out" / "evaluation" / "test-ranks.parquet"), ranks)


@pytest.mark.parametrize("change", ["data.train_overlap=drop", "data.max_pairs=5", "data.copies=merge"])
def test_keys_that_change_the_training_split_keep_the_seen_queries(evaluated: Evaluate, change: str) -> None:
    ranks = evaluated(change)
    kept = {int(id_[len("pair") :]) - 25 for id_ in ranks["query"]}
    assert len(kept) == (5 if "max_pairs" in change else 12)
    assert seen(ranks) == set(OWN) & kept


def test_seen_follows_how_the_evaluation_matches_texts(evaluated: Evaluate) -> None:
    assert seen(evaluated("data.match=exact")) == {0, 1}


def test_an_evaluation_key_changes_that_key_only(evaluated: Evaluate, here: Path) -> None:
    own = pd.read_parquet(here / "run" / "evaluation" / "test-ranks.parquet")
    pd.testing.assert_frame_equal(evaluated("evaluation.block_bytes=1000"), own)  # rerank_k stays 3
    ranks = evaluated("evaluation.rerank_k=1")
    retrieval, reranked = (ranks[ranks["stage"] == stage]["rank"].tolist() for stage in ("retrieval", "reranked"))
    assert retrieval == own[own["stage"] == "retrieval"]["rank"].tolist()
    assert reranked == retrieval  # one candidate has only one order


def values_of(kind: type, own: Any) -> list[tuple[str, object]]:
    """Return another value for every key of a group."""
    other: dict[type, Callable[[Any], object]] = {int: lambda value: value + 1, float: lambda value: value / 2}
    return [
        (field.name, other.get(type(value), lambda value: f"{value} changed")(value))
        for field in fields(kind)
        if (value := getattr(own, field.name)) is not None or field.name == "max_pairs"
    ]


@pytest.fixture(scope="module")
def composed() -> tuple[EvaluateConfig, TrainConfig]:
    """An evaluation of some run, and the run's configuration."""
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        config = parse_config(compose("evaluate", ["run=somewhere"]), EvaluateConfig)
    return config, compose_train("data=pairs", "data.path=x", "data.split_seed=7", "evaluation.rerank_k=3", "seed=5")


def test_every_key_changes_only_that_key_of_the_runs_group(composed: tuple[EvaluateConfig, TrainConfig]) -> None:
    config, own = composed
    for group, kind in (("data", DataConfig), ("evaluation", EvaluationConfig)):
        for key, value in values_of(kind, getattr(own, group)):
            given = replace(config, **{group: replace(getattr(config, group), **{key: value})})
            for override in (f"{group}.{key}={value}", f"++{group}.{key}={value}"):
                found = with_run(given, own, ["run=somewhere", override])
                expected: dict[str, Any] = {"data": own.data, "evaluation": own.evaluation}
                expected[group] = replace(expected[group], **{key: value})
                assert {"data": found.data, "evaluation": found.evaluation} == expected
                assert (found.seed, found.model) == (5, own.model)


def test_a_group_on_the_command_line_replaces_the_runs_group(composed: tuple[EvaluateConfig, TrainConfig]) -> None:
    config, own = composed
    other = replace(config, data=replace(config.data, name="arguana", path="y"))
    found = with_run(other, own, ["data=arguana", "data.path=y"])
    assert (found.data, found.evaluation) == (other.data, own.evaluation)
    assert found.data.split_seed == 0


def test_keys_that_contradict_the_runs_are_refused(composed: tuple[EvaluateConfig, TrainConfig]) -> None:
    config, own = composed
    half = replace(config, data=replace(config.data, test_share=0.9))
    with pytest.raises(InputError, match=r"data\.validation_share=0\.15 and data\.test_share=0\.9: both must"):
        with_run(half, own, ["data.test_share=0.9"])
    demo = replace(config, data=replace(config.data, path="z"))
    with pytest.raises(InputError, match=r"data\.path=z: data=demo ships its texts"):
        check_path(with_run(demo, compose_train(), ["data.path=z"]).data)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.max_pairs=0", "data.max_pairs=0: must be at least 1"),
        ("data.max_pairs=many", "data.max_pairs=many: must be a whole number"),
        ("data.match=fuzzy", "data.match=fuzzy: must be one of exact, normalized"),
        ("data.max_pair=3", "data.max_pair"),
        ("data.path=nowhere.csv", "data.path=nowhere.csv: does not exist; give a CSV"),
        ("data.test_share=0.9", "data.validation_share=0.15 and data.test_share=0.9: both must be"),
        ("data=arguana", "data.path: data=arguana needs data.path="),
        ("evaluation.rerank_k=0", "evaluation.rerank_k=0: must be at least 1"),
        ("evaluation.rerank_k=x", "evaluation.rerank_k=x: must be a whole number"),
        ("model.max_length=8", "run=run: the run brings its own model"),
    ],
)
def test_wrong_keys_are_refused_in_one_line_and_leave_no_folder(
    here: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert message in refusal(capsys, override)


# ---- texts seen in training ------------------------------------------------------------------------------------------


def test_queries_of_other_data_are_marked_by_the_runs_training_texts(evaluated: Evaluate) -> None:
    assert seen(evaluated("data=pairs", "data.path=other.csv")) == {3, 5}
    assert seen(evaluated("data=pairs", "data.path=other.csv", "data.match=exact")) == {3}
    assert seen(evaluated("data.path=other.csv")) == {3, 5}


def test_the_number_of_seen_queries_is_printed(evaluated: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated("data=pairs", "data.path=other.csv")
    assert "\n2 of 12 test pairs have a text that the run was trained on\n" in capsys.readouterr().out


def test_a_moved_corpus_is_found_with_data_path(here: Path, evaluated: Evaluate) -> None:
    config = here / "run" / "config.yaml"
    config.write_text(config.read_text().replace("/own.csv", "/gone.csv"))
    assert seen(evaluated("data.path=own.csv")) == set(OWN)
    assert equals_the_runs_own_evaluation(here)


def test_missing_or_changed_training_texts_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = here / "run" / "config.yaml"
    config.write_text(config.read_text().replace("/own.csv", "/gone.csv"))
    assert "gone.csv: does not exist" in refusal(capsys)
    message = refusal(capsys, "data=pairs", "data.path=other.csv")
    assert "/gone.csv: does not exist" in message
    assert "data.path=other.csv: has other training pairs than the run had" in message
    assert "restore its corpus, or give its path with data.path" in message
    pd.read_csv("own.csv").replace("own train wants mines", "own train wants money").to_csv("own.csv", index=False)
    assert "data.path=own.csv: has other training pairs than the run had" in refusal(capsys, "data.path=own.csv")


def test_a_changed_test_split_is_evaluated(here: Path, evaluated: Evaluate) -> None:
    pd.read_csv("own.csv").replace("own test wants mines", "own train wants mines").to_csv("own.csv", index=False)
    assert seen(evaluated("data.path=own.csv")) == {*OWN, 9}


def test_a_run_of_version_0_1_is_evaluated_as_it_was_trained(
    here: Path, evaluated: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here / "run" / "config.yaml"
    path.write_text(path.read_text().replace("  match: normalized\n", ""))
    assert seen(evaluated()) == {0, 1}
    assert seen(evaluated("data.match=normalized")) == set(OWN)
    again = ["train", "hydra.run.dir=run", *json.loads((here / "run" / "result.json").read_text())["overrides"]]
    capsys.readouterr()
    assert main([*again, "trainer.precision=float32"]) == 2
    assert "data.match was exact, now normalized" in capsys.readouterr().err
    assert main([*again, "trainer.precision=float32", "trainer.device=cpu", "data.match=exact"]) == 0
