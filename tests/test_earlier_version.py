"""A run folder that version 0.1 wrote (tests/data/run-0.1: the smoke experiment, smaller still) stays readable."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import compose_train

from negexp.cli import main
from negexp.components import KINDS
from negexp.config import load_run_config, to_yaml
from negexp.config.parse import LATER_KEYS
from negexp.errors import InputError
from negexp.tracking import RunFolder
from negexp.tracking.resume import RunState, find_run_state

pytestmark = pytest.mark.runs

EARLIER = Path(__file__).parent / "data" / "run-0.1"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the folder; the tests work in the folder above it."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(EARLIER, tmp_path / "run"))


def test_its_configuration_is_read_with_what_version_0_1_did(run: Path) -> None:
    config = load_run_config(run / "config.yaml", KINDS)
    assert (config.data.match, config.trainer.fused) == ("exact", "auto")
    assert (config.sampler.name, config.sampler.mining.name) == ("decay", "nearest")
    assert (config.sampler.refresh.epochs, config.sampler.refresh.steps) == (2, None)  # refresh_every was 2
    assert (config.batch.name, config.batch.separate_copies) == ("shuffled", False)
    assert config.tracker.listeners == {}


def test_evaluate_gives_the_ranks_that_it_has(run: Path) -> None:
    assert main(["evaluate", f"run={run}", "split=test", "output=again", "device=cpu"]) == 0
    columns = ["query", "protocol", "stage", "task", "rank", "candidates", "seen_in_training"]
    found, expected = (
        pd.read_parquet(folder / "evaluation" / "test-ranks.parquet")[columns] for folder in (Path("again"), run)
    )
    same = (found == expected).to_numpy().all(axis=1)
    assert same.mean() > 0.97  # another processor rounds otherwise, which may move a query past a rival
    assert len(found) == len(expected)


def test_a_run_of_the_original_continues_although_keys_that_it_ignores_have_other_values(tmp_path: Path) -> None:
    now = compose_train("experiment=original_hard", "data=arguana", "data.path=corpus")
    saved = yaml.safe_load(to_yaml(now))
    for key in [*LATER_KEYS, "data.titles"]:  # version 0.1 did not write them
        section, _, name = key.rpartition(".")
        del (saved[section] if section else saved)[name]
    saved["model"].update({"vocabulary_size": 4000, "hidden_size": 128, "layers": 2})  # of its random BERT
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.config.write_text(yaml.safe_dump(saved))
    assert find_run_state(folder, now) is RunState.UNFINISHED
    averaged = replace(now, trainer=replace(now.trainer, average="ema"))
    with pytest.raises(InputError, match=r"trainer\.average was none, now ema; trainer\.average_decay was 0\.99, now"):
        find_run_state(folder, averaged)


def test_report_reads_it(run: Path) -> None:
    assert main(["report", f"runs={run}", "output=report"]) == 0
    arms = pd.read_csv("report/tables/arms.csv")
    metrics = json.loads((run / "result.json").read_text())["test"]["clean"]["retrieval"]["epa"]
    cell = arms[(arms["protocol"] == "clean") & (arms["stage"] == "retrieval") & (arms["task"] == "epa")]
    assert cell[cell["metric"] == "accuracy@1"]["mean"].item() == pytest.approx(metrics["accuracy@1"])
