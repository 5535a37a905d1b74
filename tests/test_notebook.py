"""`load_run`: the tables of a run, its state, its encoder, and what is refused."""

from __future__ import annotations

import doctest
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from conftest import compose_train

import negexp
from negexp import load_run
from negexp.commands import train
from negexp.config import to_yaml
from negexp.corpus import load_corpus
from negexp.errors import InputError
from negexp.evaluation.pools import STAGES
from negexp.notebook import Run
from negexp.tracking import RunFolder
from negexp.tracking.ledger import LEDGER_COLUMNS

pytestmark = pytest.mark.runs

ROOT = Path(__file__).resolve().parent.parent
EARLIER = ROOT / "tests" / "data" / "run-0.1"
HEADS = {  # with the overrides of a run; the first one is the run of the README
    "one encoder": ["experiment=smoke"],
    "a query head": ["experiment=smoke", "model.query_head=residual", "trainer.lr=1e-2", "trainer.epochs=1"],
    "two encoders": ["experiment=smoke", "model.shared_encoder=false", "trainer.epochs=1", "sampler.refresh.steps=1"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Return a finished run for each kind of encoder. Tests only read them."""
    found = {}
    for name, overrides in HEADS.items():
        folder = tmp_path_factory.mktemp("runs") / "run"
        train.run(compose_train(*overrides), folder, overrides)
        found[name] = load_run(folder)
    return found


@pytest.fixture
def run(runs: dict[str, Run]) -> Run:
    return runs["one encoder"]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- imports -------------------------------------------------------------------------------------------------------


def test_importing_negexp_imports_nothing_and_tables_need_no_torch(run: Run) -> None:
    script = (
        "import sys; before = set(sys.modules); import negexp\n"
        "heavy = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(heavy & {'numpy', 'pandas', 'hydra', 'omegaconf', 'torch'}, 'negexp.errors' in sys.modules)\n"
        f"run = negexp.load_run({str(run.folder)!r})\n"
        "repr(run), run.metrics, run.negatives(0), run.ranks('test'), run.result, run.best(), run.state\n"
        "print({'torch', 'transformers', 'tokenizers'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set() False", "set()"]


def test_negexp_names_load_run_and_nothing_that_is_not_there() -> None:
    assert negexp.load_run is load_run
    assert negexp.__all__ == ["load_run"]
    with pytest.raises(AttributeError, match="no attribute 'load_runs'"):
        _ = negexp.load_runs


def test_the_session_of_the_readme_gives_what_it_shows(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.folder, tmp_path / "outputs" / "smoke")
    readme = ROOT / "negexp" / "notebook" / "README.md"
    failed, attempted = doctest.testfile(str(readme), module_relative=False, encoding="utf-8")
    assert attempted > 10
    assert failed == 0, "doctest has printed what differs"


# --- tables --------------------------------------------------------------------------------------------------------


def test_tables_are_those_of_the_files(run: Run) -> None:
    pd.testing.assert_frame_equal(run.metrics, pd.read_csv(run.folder / "metrics.csv"))
    assert run.result == json.loads((run.folder / "result.json").read_text())
    for split in ("validation", "test"):
        expected = pd.read_parquet(run.folder / "evaluation" / f"{split}-ranks.parquet")
        pd.testing.assert_frame_equal(run.ranks(split), expected, check_dtype=False, check_categorical=False)
    assert set(run.ranks("test")["stage"]) == set(STAGES)


def test_the_ledger_of_an_epoch_has_all_its_refreshes(runs: dict[str, Run]) -> None:
    run = runs["two encoders"]
    ledger = run.negatives(0)
    assert sorted(ledger["step"].unique()) == [0, 1]
    for step, name in ((0, "epoch-000"), (1, "epoch-000-step-00001")):
        expected = pd.read_parquet(run.folder / "negatives" / f"{name}.parquet")
        assert tuple(expected.columns) == LEDGER_COLUMNS
        own = ledger[ledger["step"] == step].drop(columns="step").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, expected, check_dtype=False, check_categorical=False)


def test_the_best_epoch_is_the_first_of_the_highest_values(run: Run, tmp_path: Path) -> None:
    copy = load_run(shutil.copytree(run.folder, tmp_path / "run"))
    column = f"validation/{copy.config.trainer.monitor}"
    table = pd.concat([copy.metrics] * 2, ignore_index=True).assign(epoch=range(4))
    table.assign(**{column: [0.25, 0.5, 0.125, 0.5]}).to_csv(copy.folder / "metrics.csv", index=False)
    assert copy.best() == (1, 0.5)
    assert repr(copy).startswith("<run smoke, finished: 4 epochs, best 0.5000 in epoch 1 (clean/reranked/epa/acc")
    assert run.best() == (run.result["best_epoch"], run.result["best_value"])


# --- state ---------------------------------------------------------------------------------------------------------


def test_states_of_a_run(run: Run, tmp_path: Path) -> None:
    copy = load_run(shutil.copytree(run.folder, tmp_path / "run"))
    states: list[str] = [copy.state]
    (copy.folder / "result.json").unlink()
    states.append(copy.state)
    with copy.files.locked():
        states += [copy.state, copy.state]  # asking does not free the lock
    states.append(copy.state)
    assert states == ["finished", "stopped", "running", "running", "stopped"]
    (copy.folder / ".lock").unlink(missing_ok=True)
    before = sorted(path.name for path in copy.folder.rglob("*"))
    assert copy.state == "stopped"
    assert sorted(path.name for path in copy.folder.rglob("*")) == before


def test_asking_for_the_state_does_not_turn_a_writer_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("negexp.tracking.run_folder.LONGEST_CHECK", 60)
    folder = RunFolder(tmp_path)
    folder.lock.touch()
    handle = os.open(folder.lock, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)  # as one that asks holds it
    assert folder.is_locked() is False  # two may ask at once
    threading.Timer(0.05, os.close, [handle]).start()
    with folder.locked():
        assert folder.is_locked() is True


LOCKS: dict[str, Callable[[Path], None]] = {
    "link": lambda path: path.symlink_to("/dev/zero"),
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_that_is_no_file_is_not_followed(tmp_path: Path, kind: str) -> None:
    LOCKS[kind](RunFolder(tmp_path).lock)
    assert RunFolder(tmp_path).is_locked() is False


def test_a_run_before_its_first_commit_has_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(compose_train("experiment=smoke")))
    run = load_run(tmp_path)
    assert (run.state, len(run.metrics), run.best()) == ("stopped", 0, None)
    assert "no epoch yet" in repr(run)
    assert "has no negatives of epoch 0; it has none of any epoch" in refusal(lambda: run.negatives(0))
    assert "index.json: not found" in refusal(run.encoder)


# --- the encoder ---------------------------------------------------------------------------------------------------


def ranks_by_distance(run: Run) -> pd.Series:
    """Return the rank of each test query's gold among all counters, by plain distances of embeddings."""
    corpus = load_corpus(run.config.data)
    split = corpus["test"]
    encoder = run.encoder("cpu")
    points = encoder.embed([corpus.texts[row] for row in split.point], role="query").astype(float)
    counters = encoder.embed([corpus.texts[row] for row in split.counter], role="candidate").astype(float)
    distance = ((points[:, None] - counters[None]) ** 2).sum(axis=-1)
    return pd.Series((distance <= distance.diagonal()[:, None] + 1e-9).sum(axis=1), index=split.ids)


@pytest.mark.parametrize("kind", HEADS)
def test_embeddings_give_the_ranks_of_the_run(runs: dict[str, Run], kind: str) -> None:
    run = runs[kind]
    table = run.ranks("test").query("protocol == 'published' and stage == 'retrieval' and task == 'epc'")
    expected = table.set_index(table["query"].astype(str))["rank"]
    found = ranks_by_distance(run).loc[expected.index]
    assert (found == expected).mean() > 0.97  # a near tie may be rounded the other way
    assert expected.nunique() > 3


@pytest.mark.parametrize("kind", HEADS)
def test_roles_are_asked_for_where_they_matter(runs: dict[str, Run], kind: str) -> None:
    encoder = runs[kind].encoder("cpu")
    as_query, as_candidate = (encoder.embed(["One text.", "Another."], role=role) for role in ("query", "candidate"))
    same = np.allclose(as_query, as_candidate, atol=1e-6)
    assert encoder.roles_differ == (kind != "one encoder") == (not same)
    if encoder.roles_differ:
        assert "role: must be given" in refusal(lambda: encoder.embed(["One text."]))
        assert "queries and candidates differ" in repr(encoder)
    else:
        assert np.array_equal(encoder.embed(["One text.", "Another."]), as_query)


def test_embeddings_come_in_the_order_of_the_texts_and_in_float32(run: Run) -> None:
    encoder = run.encoder("cpu")
    texts = ["A long text about many things.", "Short.", "A long text about many things.", "Another, of middle size"]
    embeddings = encoder.embed(pd.Series(texts))
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (4, encoder.dimensions) == (4, 16)
    for text, row in zip(texts, embeddings, strict=True):
        np.testing.assert_allclose(encoder.embed([text])[0], row, atol=1e-5)
    assert encoder.embed([]).shape == (0, 16)


def test_weights_are_those_of_the_best_epoch(run: Run, tmp_path: Path) -> None:
    copy = load_run(shutil.copytree(run.folder, tmp_path / "run"))
    index = copy.folder / "checkpoints" / "index.json"
    for epoch in (0, 1):
        index.write_text(json.dumps({"last": "epoch-001", "best": f"epoch-{epoch:03d}"}))
        if (copy.folder / "checkpoints" / f"epoch-{epoch:03d}").exists():
            assert copy.encoder("cpu").epoch == epoch
    index.write_text(json.dumps({"last": "epoch-001", "best": "epoch-001"}))
    weights = copy.folder / "checkpoints" / "epoch-001" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "the checkpoint is damaged" in refusal(copy.encoder)


# --- mistakes ------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[Callable[[Run], Any], str]] = {
    "folder": (lambda run: load_run(run.folder / "nowhere"), "config.yaml: not found"),
    "epoch": (lambda run: run.negatives(9), "has no negatives of epoch 9; it has those of the epochs 0 to 1"),
    "split": (lambda run: run.ranks("dev"), "split=dev: no such split; choose from train, validation, test"),
    "unranked split": (lambda run: run.ranks("train"), "train-ranks.parquet: not found"),
    "device": (lambda run: run.encoder("gpu"), "device=gpu: must be one of auto, cpu, cuda"),
    "single text": (lambda run: run.encoder("cpu").embed("One text."), "texts: is a single text; give a list"),
    "no text": (
        lambda run: run.encoder("cpu").embed(cast(Any, ["a", None])),
        "texts[1]=None: is no text, but NoneType",
    ),
    "role": (
        lambda run: run.encoder("cpu").embed(["a"], role=cast(Any, "document")),
        "role=document: no such role; choose",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(run: Run, case: str) -> None:
    call, message = MISTAKES[case]
    assert message in refusal(lambda: call(run))


def test_a_run_without_a_ledger_says_why(tmp_path: Path) -> None:
    config = compose_train("experiment=smoke")
    config = replace(config, tracker=replace(config.tracker, ledger=False))
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert "none of any epoch (tracker.ledger=false)" in refusal(lambda: load_run(tmp_path).negatives(0))


def test_damaged_metrics_are_named(run: Run, tmp_path: Path) -> None:
    copy = load_run(shutil.copytree(run.folder, tmp_path / "run"))
    (copy.folder / "metrics.csv").write_text("epoch,loss\n0,1\n")
    assert "metrics.csv: has no numbers in the column validation/clean" in refusal(copy.best)
    assert repr(copy).startswith("<run smoke, damaged: ")


def test_a_run_of_version_0_1_has_its_tables_and_its_encoder() -> None:
    run = load_run(EARLIER)
    assert run.state == "finished"
    assert run.best() == (run.result["best_epoch"], run.result["best_value"])
    assert run.negatives(0)["pair"].nunique() == run.negatives(1)["pair"].nunique()
    assert len(run.ranks("test")) == len(pd.read_parquet(EARLIER / "evaluation" / "test-ranks.parquet"))
    assert run.encoder("cpu").embed(["A text."]).shape == (1, run.config.model.retrieval_dim)
