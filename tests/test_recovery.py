"""Nothing is lost: runs that are killed, stopped, or out of disk go on, and come to what undisturbed ones come to."""

from __future__ import annotations

import errno
import gc
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from attempts import Attempts, Ended, contents, differences, random_moments
from conftest import QUICK, Train, compose_train

from negexp.actions import train
from negexp.cli import main
from negexp.config import DataConfig
from negexp.corpus import Corpus, load_corpus
from negexp.errors import InputError
from negexp.model import BiEncoder
from negexp.signals import Stopped, check_stop, stops_at_steps
from negexp.tracking import RunFolder, files
from negexp.training import CheckpointStore
from negexp.training.loop import Experiment
from negexp.training.refresh import Present

pytestmark = pytest.mark.runs

SMOKE = "experiment=smoke"
PRUNED = (SMOKE, "evaluation.rerank_weight=0")  # the first of its epochs is the best, so that it is kept to the end
# Three epochs: the second keeps the negatives of the first, the schedule has not ended at any commit, and the second is
# the best, so that the first is pruned.
LONGER = [
    *(SMOKE, "trainer.epochs=3", "sampler.refresh_every=2", "sampler.start_rate=0.5", "trainer.warmup_steps=9"),
    *("seed=2", "trainer.lr=3e-3", "trainer.monitor=clean/reranked/sdoc/mrr", "checkpoint.keep=1"),
    "evaluation.rerank_weight=0",
]
CLI = ["train", *QUICK, *LONGER, "hydra.run.dir=run"]
ADAPTIVE = [  # both numbers move after the second epoch: nothing is learned, so none is better than the first
    *("sampler=scheduled", "schedule@sampler.random_rate=adaptive", "sampler.random_rate.start=0.8"),
    *("sampler.random_rate.end=0", "sampler.random_rate.step=0.5", "sampler.random_rate.patience=1"),
    *("loss=info_nce", "schedule@loss.hardness=adaptive", "loss.hardness.start=0", "loss.hardness.end=5"),
    *("loss.hardness.step=5", "loss.hardness.patience=1", "trainer.average=ema", "trainer.lr=1e-7"),
    "trainer.monitor=clean/retrieval/epa/mrr",
]


@pytest.fixture(scope="module")
def attempt() -> Iterator[Attempts]:
    with Attempts() as attempts:
        yield attempts


@pytest.fixture(scope="module")
def undisturbed(attempt: Attempts, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Return the folder of a run that nothing disturbs, and how it ended."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = attempt(folder, *CLI)
    assert ended.code == 0, ended.err
    return folder / "run", ended


# --- kills --------------------------------------------------------------------------------------------------------


def kill_until(
    kills: int, seed: int, attempt: Callable[..., Ended], folder: Path, reference: tuple[Path, Ended]
) -> int:
    """Kill runs at random moments until there were so many kills; return how many runs came to their end.

    Every run is begun again, by the same command, until it ends; then it must equal the reference, file by file.
    """
    undisturbed, ended = reference
    killed = runs = 0
    for moment in random_moments(seed, 1.1 * ended.seconds, 10 * kills):
        now = attempt(folder / str(runs), after=moment)
        if now.code == 0:
            assert differences(folder / str(runs) / "run", undisturbed) == []
            runs += 1
            if killed >= kills:
                return runs
        else:
            assert now.code == -signal.SIGKILL, now.err
            killed += 1
    raise AssertionError("the moments did not suffice")


def command_line(attempt: Attempts) -> Callable[..., Ended]:
    return lambda folder, **fault: attempt(folder, *CLI, **fault)


@pytest.mark.processes
@pytest.mark.parametrize("overrides", [[], [*ADAPTIVE, "trainer.epochs=4"]], ids=["plain", "adaptive"])
def test_killed_at_a_few_random_moments_a_run_comes_to_the_same(
    attempt: Attempts, tmp_path: Path, overrides: list[str]
) -> None:
    def run(folder: Path, **fault: Any) -> Ended:
        return attempt(folder, SMOKE, *overrides, direct=True, **fault)

    reference = run(tmp_path / "undisturbed")
    assert kill_until(2, 0, run, tmp_path, (tmp_path / "undisturbed" / "run", reference)) >= 1


@pytest.mark.kills
def test_killed_at_twenty_random_moments_a_run_comes_to_the_same(
    attempt: Attempts, undisturbed: tuple[Path, Ended], tmp_path: Path
) -> None:
    assert kill_until(20, 0, command_line(attempt), tmp_path, undisturbed) > 1


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 5))
def test_two_hundred_kills(attempt: Attempts, undisturbed: tuple[Path, Ended], tmp_path: Path, seed: int) -> None:
    runs = kill_until(50, seed, command_line(attempt), tmp_path, undisturbed)
    print(f"\nseed {seed}: 50 kills, {runs} runs, all equal to the undisturbed one")


@pytest.mark.kills
def test_killed_before_every_file_operation_of_a_beginning_a_run_comes_to_the_same(
    attempt: Attempts, undisturbed: tuple[Path, Ended], tmp_path: Path
) -> None:
    # each attempt goes on where the last one was killed, and is killed one operation later
    number, ended, hit = 0, None, set()
    while ended is None or ended.code != 0:
        number += 1
        ended = attempt(tmp_path, *LONGER, direct=True, operation=number)
        assert ended.code in (0, -signal.SIGKILL), ended.err
        hit.add(ended.operations[number - 1] if number <= len(ended.operations) else "")
    assert {"rename config.yaml", "rename encoder", "write .epoch-000.parquet.tmp", "rename epoch-000"} <= hit
    assert differences(tmp_path / "run", undisturbed[0]) == ["result.json"]  # its `overrides` are not the same
    assert result(tmp_path / "run") == result(undisturbed[0])


# what a run that goes on after its first commit, and the second commit, do to files, ends included
OPERATIONS = {
    *(
        "rename index.json",
        "rename config.yaml",
        "rename metrics.csv",
        "rename epoch-001.parquet",
        "write .epoch-001.tmp",
    ),
    *("sync model.safetensors", "sync optimizer.safetensors", "rename steps.json", "rename state.json"),
    *("rename manifest.json", "sync folder .epoch-001.tmp", "rename epoch-001", "sync folder checkpoints"),
    *("rename .epoch-000.old", "remove .epoch-000.old", "rename validation.json", "rename test-ranks.parquet"),
    *("rename test.json", "rename result.json", "sync folder run"),
}


@pytest.mark.kills
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("fault", [{}, {"error": "ENOSPC"}], ids=["killed", "disk full"])
def test_stopped_before_any_file_operation_a_run_comes_to_the_same(
    attempt: Attempts, tmp_path: Path, fault: dict[str, str], half: int
) -> None:
    two = [*LONGER, "trainer.epochs=2"]
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    assert attempt(begun, *two, direct=True, phase="train", times=2, signals=[signal.SIGKILL]).code == -signal.SIGKILL
    assert names(begun / "run" / "checkpoints") == ["epoch-000", "index.json"]
    shutil.copytree(begun, whole)
    undisturbed = attempt(whole, *two, direct=True)
    assert set(undisturbed.operations) >= OPERATIONS
    for number in range(1 + half, len(undisturbed.operations) + 1, 2):
        folder = tmp_path / str(number)
        shutil.copytree(begun, folder)
        stopped = attempt(folder, *two, direct=True, operation=number, **fault)
        assert stopped.operations[number - 1] == undisturbed.operations[number - 1]
        if fault:
            assert stopped.code == 2, stopped.err
            assert stopped.err.count("\n") == 1
            assert "cannot be written (No space left on device); all complete files are unchanged" in stopped.err
        else:
            assert stopped.code == -signal.SIGKILL
        assert attempt(folder, *two, direct=True).code == 0
        assert differences(folder / "run", whole / "run") == [], undisturbed.operations[number - 1]
        shutil.rmtree(folder)


def result(run: Path) -> dict[str, object]:
    values = contents(run)["result.json"]
    assert isinstance(values, dict)
    return {key: value for key, value in values.items() if key != "overrides"}


@pytest.mark.kills
@pytest.mark.parametrize("part", ["weights", "optimizer", "schedule", "negatives", "best", "loss"])
def test_a_part_that_is_not_restored_shows(
    attempt: Attempts, undisturbed: tuple[Path, Ended], tmp_path: Path, part: str
) -> None:
    killed = attempt(tmp_path, *LONGER, direct=True, phase="train", times=3, signals=[signal.SIGKILL])
    assert killed.code == -signal.SIGKILL
    shutil.copytree(tmp_path / "run", tmp_path / "whole" / "run")
    assert attempt(tmp_path, *LONGER, direct=True, forget=part).code == 0
    different = differences(tmp_path / "run", undisturbed[0])
    assert "metrics.csv" in different or "checkpoints/index.json" in different
    assert attempt(tmp_path / "whole", *LONGER, direct=True).code == 0
    assert differences(tmp_path / "whole" / "run", undisturbed[0]) == ["result.json"]


@pytest.mark.kills
def test_a_job_of_a_sweep_equals_the_job_alone(attempt: Attempts, tmp_path: Path) -> None:
    job = ["train", SMOKE, "trainer.epochs=1", "trainer.precision=float32"]
    assert attempt(tmp_path / "sweep", *job, "-m", "seed=0,1", "sampler=hard").code == 0
    assert attempt(tmp_path / "alone", *job, "seed=1", "sampler=hard", "hydra.run.dir=run").code == 0
    [run] = (tmp_path / "sweep").glob("outputs/sweeps/smoke/seed=1*")
    assert set(differences(run, tmp_path / "alone" / "run")) <= {"result.json"}  # the order of its `overrides`
    assert result(run) == result(tmp_path / "alone" / "run")


# --- going on -----------------------------------------------------------------------------------------------------

KINDS = {
    "hard, balltree": ["sampler=hard"],
    "static": ["sampler=static"],
    "decay": ["sampler=decay", "sampler.start_rate=0.7", "sampler.step=0.2", "index=exact"],
    "random, refreshed every two": ["sampler=random", "sampler.refresh_every=2"],
    "optimizer and schedule": [
        *("trainer.optimizer=adamw", "trainer.weight_decay=0.1", "trainer.warmup_steps=20", "trainer.gradient_clip=1"),
        *("trainer.accumulation=2", "trainer.batch_size=3"),
    ],
    "refreshed within epochs": ["sampler=decay", "sampler.start_rate=0.5", "sampler.refresh.steps=1"],
    "refreshed after drift within epochs": [
        *("sampler=hard", "sampler.refresh.steps=1", "sampler.refresh.drift=1e-3", "trainer.lr=0.01"),
        *("trainer.batch_size=2", "evaluation.train_queries=0", "model.shared_encoder=false"),
    ],
    "moving average, query head": ["trainer.average=ema", "model.query_head=residual", "trainer.lr_schedule=linear"],
    "learned temperature, average of the last epoch": [
        *("loss=info_nce", "loss.learn_temperature=true", "trainer.weight_decay=0.1", "batch=debates"),
        *("trainer.average=last", "trainer.warmup_share=0.5", "trainer.lr_schedule=cosine"),
    ],
    "two towers, three negatives by BM25": [
        *("model.shared_encoder=false", "sampler.num_negatives=3", "model.layer_norm=true", "sampler.source=bm25"),
        *("sampler.start_rate=0.7", "sampler.step=0.2"),
    ],
    "adaptive random rate and hardness, moving average": ADAPTIVE,
    "frozen, bfloat16, no ledger": ["model.freeze_encoder=true", "trainer.precision=bfloat16", "tracker.ledger=false"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_equals_not_having_stopped(kind: str, run_training: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [SMOKE, "trainer.epochs=3", *KINDS[kind]]
    reference = run_training(*overrides, folder="reference")
    stop_in_epoch(1, monkeypatch)
    with pytest.raises(Stopped):
        run_training(*overrides)
    monkeypatch.undo()
    torch.manual_seed(5)  # what is drawn elsewhere does not matter
    assert differences(run_training(*overrides), reference) == []


def stop_in_epoch(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Experiment.train

    def stopped(self: Experiment, epoch: int, embeddings: Present) -> tuple[dict[str, float], list[dict[str, Any]]]:
        trained = train(self, epoch, embeddings)
        if epoch == number:
            raise Stopped(signal.SIGTERM)
        return trained

    monkeypatch.setattr(Experiment, "train", stopped)


def test_early_stopping_counts_the_epochs_before_the_interruption(
    run_training: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [SMOKE, "trainer.epochs=9", "trainer.patience=3", "trainer.lr=0", "trainer.head_lr=0"]
    stop_in_epoch(2, monkeypatch)
    with pytest.raises(Stopped):
        run_training(*overrides)
    monkeypatch.undo()
    folder = run_training(*overrides)
    assert pd.read_csv(folder / "metrics.csv")["epoch"].tolist() == [0, 1, 2, 3]  # 0 is the best, and three more
    run_training(*overrides[:1], "trainer.epochs=20", *overrides[2:])  # more epochs do not undo that
    assert pd.read_csv(folder / "metrics.csv")["epoch"].tolist() == [0, 1, 2, 3]


def test_more_epochs_go_on_from_a_finished_run(finished_run: Train, run_training: Train) -> None:
    reference = run_training(SMOKE, "trainer.epochs=3", folder="reference")
    folder = finished_run(SMOKE, "trainer.epochs=1")
    run_training(SMOKE, "trainer.epochs=3")
    assert differences(folder, reference) == []


def test_a_finished_run_is_shown_and_not_touched(
    finished_run: Train, run_training: Train, caplog: pytest.LogCaptureFixture
) -> None:
    folder = finished_run(SMOKE, "trainer.epochs=1")
    caplog.clear()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name not in (".lock", "run")}
    with caplog.at_level("INFO"):
        run_training(SMOKE, "trainer.epochs=1")
    assert "holds this run, finished" in caplog.text
    assert "test, with epoch 0" in caplog.text
    assert "corpus demo" not in caplog.text
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_a_run_before_its_first_commit_left_is_taken_away(
    finished_run: Train, run_training: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = finished_run(SMOKE, folder="reference")
    stop_in_epoch(0, monkeypatch)
    with pytest.raises(Stopped):
        run_training(SMOKE)
    monkeypatch.undo()
    folder = reference.parent / "run"
    (folder / "negatives" / "epoch-007.parquet").write_bytes(b"of another run")
    (folder / "metrics.csv").write_text("epoch\n0\n")
    assert differences(run_training(SMOKE), reference) == []


def test_resume_must_and_never(run_training: Train) -> None:
    with pytest.raises(InputError, match=r"resume=must: .*run holds no run; give its hydra\.run\.dir"):
        run_training(SMOKE, "resume=must")
    folder = run_training(SMOKE, "trainer.epochs=1", "resume=never")
    before = contents(folder)
    with pytest.raises(InputError, match=r"resume=never: .*run already contains a finished run"):
        run_training(SMOKE, "trainer.epochs=1", "resume=never")
    assert contents(folder) == before
    run_training(SMOKE, "trainer.epochs=2", "resume=must")
    assert len(pd.read_csv(folder / "metrics.csv")) == 2
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match=r"resume=never: .*run already contains an unfinished run"):
        run_training(SMOKE, "trainer.epochs=2", "resume=never")


# --- refusing to mix ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_another_configuration_is_refused_with_what_changed(
    finished_run: Train, run_training: Train, finished: bool
) -> None:
    folder = finished_run(SMOKE)
    if not finished:
        (folder / "result.json").unlink()
    before = contents(folder)
    with pytest.raises(InputError, match=r"configuration: seed was 0, now 1; loss\.margin was 1\.0, now 0\.5\."):
        run_training(SMOKE, "trainer.epochs=2", "seed=1", "loss.margin=0.5")
    with pytest.raises(InputError, match=r"trainer\.epochs was 2, now 1 \(it may only grow\)"):
        run_training(SMOKE, "trainer.epochs=1")
    assert contents(folder) == before
    run_training(SMOKE, "trainer.epochs=2", "name=other", "tracker.progress=never", "checkpoint.keep=1")


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_a_corpus_may_move_but_not_change(run_training: Train, tmp_path: Path, finished: bool) -> None:
    rows = [{"point": f"point {i} of some length", "counter": f"counter {i} that differs"} for i in range(60)]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame(rows[:-1]).to_csv(tmp_path / "changed.csv", index=False)
    shutil.copy(tmp_path / "a.csv", tmp_path / "moved.csv")
    overrides = [SMOKE, "trainer.epochs=1", "data=pairs", "trainer.monitor=clean/retrieval/epa/accuracy@1"]
    folder = run_training(*overrides, f"data.path={tmp_path}/a.csv")
    if not finished:
        (folder / "result.json").unlink()
    before = contents(folder)
    with pytest.raises(InputError, match=r"started with other data: (\w+ had \d+ pairs, now \d+|\w+ has other texts)"):
        run_training(*overrides, f"data.path={tmp_path}/changed.csv")
    assert contents(folder) == before
    run_training(*overrides, f"data.path={tmp_path}/moved.csv")
    assert (folder / "result.json").exists()


def test_other_versions_are_warned_of_and_recorded(
    run_training: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop_in_epoch(1, monkeypatch)
    monkeypatch.setattr("negexp.training.provenance.versions", lambda: {"torch": "2.8.0", "numpy": "2.0"})
    with pytest.raises(Stopped):
        run_training(SMOKE)
    monkeypatch.undo()
    monkeypatch.setattr("negexp.training.provenance.versions", lambda: {"torch": "2.9.0", "numpy": "2.0"})
    folder = run_training(SMOKE)
    assert "continuing with torch 2.9.0 (was 2.8.0): the numbers may differ" in caplog.text
    [earlier] = json.loads((folder / "result.json").read_text())["earlier_environments"]
    assert (earlier["torch"], earlier["numpy"]) == ("2.8.0", "2.0")


def test_a_changed_tokenizer_is_refused(finished_run: Train, run_training: Train) -> None:
    folder = finished_run(SMOKE, "trainer.epochs=1")
    tokenizer = folder / "encoder" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("the", "teh"))
    with pytest.raises(InputError, match=r"encoder/tokenizer\.json: changed since the run began"):
        run_training(SMOKE, "trainer.epochs=2")


# --- damage -------------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a bit flipped": lambda path: path.write_bytes(path.read_bytes()[:-2] + bytes([path.read_bytes()[-2] ^ 4]) + b"\n"),
    "missing": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
}
COMMITTED = ["model.safetensors", "optimizer.safetensors", "negatives.safetensors", "steps.json", "state.json"]


@pytest.fixture(scope="module")
def three_epochs(attempt: Attempts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of three epochs that was stopped before its result; its best epoch is the first."""
    folder = tmp_path_factory.mktemp("three")
    assert attempt(folder, *PRUNED, "trainer.epochs=3", direct=True).code == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, "a bit flipped") for name in COMMITTED]
    + [("manifest.json", damage) for damage in ("truncated", "missing", "emptied")]
    + [("model.safetensors", damage) for damage in ("truncated", "missing", "emptied")],
)
def test_a_damaged_commit_is_reported_and_the_one_before_used(
    three_epochs: Path, run_training: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(three_epochs, folder)
    (folder / "result.json").unlink()
    DAMAGES[damage](folder / "checkpoints" / "epoch-002" / name)
    run_training(*PRUNED, "trainer.epochs=3")
    assert re.search(rf"epoch-002/{name}: .*renamed to epoch-002\.damaged, and the one before it is used", caplog.text)
    assert (folder / "checkpoints" / "epoch-002.damaged").is_dir()
    shutil.rmtree(folder / "checkpoints" / "epoch-002.damaged")
    assert set(differences(folder, three_epochs)) <= {"result.json"}
    assert result(folder) == result(three_epochs)


def test_where_no_commit_can_be_used_nothing_is_lost(three_epochs: Path, run_training: Train, tmp_path: Path) -> None:
    assert json.loads((three_epochs / "checkpoints" / "index.json").read_text())["best"] == "epoch-000"
    folder = tmp_path / "run"
    shutil.copytree(three_epochs, folder)
    (folder / "result.json").unlink()
    (folder / "checkpoints" / "epoch-000" / "model.safetensors").write_bytes(b"")  # the later ones cannot do without it
    before = contents(folder)
    with pytest.raises(InputError, match=r"epoch-000/model\.safetensors: .* No commit can be used; repair it, or move"):
        run_training(*PRUNED, "trainer.epochs=3")
    assert contents(folder) == before
    shutil.move(folder / "checkpoints", tmp_path / "aside")
    run_training(*PRUNED, "trainer.epochs=3")
    assert set(differences(folder, three_epochs)) <= {"result.json"}


def test_a_commit_that_cannot_be_read_is_damaged(
    three_epochs: Path, run_training: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: Path) -> str:
        if path.parent.name == "epoch-002":
            raise OSError(errno.EIO, "Input/output error")
        return files.sha256(path)

    shutil.copytree(three_epochs, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    monkeypatch.setattr("negexp.training.checkpoint.sha256", unreadable)
    with pytest.raises(InputError, match="cannot be read"):  # the one that takes its place cannot be read either
        CheckpointStore(tmp_path / "run", keep=2)._verify(tmp_path / "run" / "checkpoints" / "epoch-002")
    commit = CheckpointStore(tmp_path / "run", keep=2).newest()
    assert commit is not None
    assert commit.state["epoch"] == 1


@pytest.mark.parametrize("name", ["state.json", "result.json"])
def test_files_of_another_version_are_refused_in_one_line(
    three_epochs: Path, run_training: Train, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(three_epochs, folder)
    if name == "result.json":
        (folder / name).write_text("{}")
    else:
        (folder / "result.json").unlink()
        for commit in (folder / "checkpoints").glob("epoch-*"):
            state = json.loads((commit / name).read_text())
            del state["untrained"]
            (commit / name).write_text(json.dumps(state))
            manifest = json.loads((commit / "manifest.json").read_text())
            manifest["sha256"][name] = files.sha256(commit / name)
            (commit / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"{name}: has no .*untrained.*another version of negexp wrote it"):
        run_training(*PRUNED, "trainer.epochs=3")


@pytest.mark.parametrize("name", ["checkpoints/mine/weights.pt", "evaluation/notes.txt", "metrics.csv"])
def test_a_folder_that_holds_something_else_is_refused(run_training: Train, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match=rf"contains {name.split('/')[0]} but no config\.yaml, so it is not a run"):
        run_training(*PRUNED)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_of_commits_does_not_matter(
    three_epochs: Path, run_training: Train, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(three_epochs, folder)
    (folder / "result.json").unlink()
    DAMAGES[damage](folder / "checkpoints" / "index.json")
    run_training(*PRUNED, "trainer.epochs=3")
    assert set(differences(folder, three_epochs)) <= {"result.json"}


def test_a_finished_run_without_commits_cannot_be_given_more_epochs(finished_run: Train, run_training: Train) -> None:
    folder = finished_run(SMOKE, "trainer.epochs=1")
    shutil.rmtree(folder / "checkpoints")
    before = contents(folder)
    with pytest.raises(InputError, match=r"trainer\.epochs=2: the finished run in .* has no commit left"):
        run_training(SMOKE, "trainer.epochs=2")
    assert contents(folder) == before


def test_the_last_two_and_the_best_are_kept(three_epochs: Path, run_training: Train) -> None:
    assert names(three_epochs / "checkpoints") == ["epoch-000", "epoch-001", "epoch-002", "index.json"]
    four = run_training(*PRUNED, "trainer.epochs=4", "checkpoint.keep=1")
    assert names(four / "checkpoints") == ["epoch-000", "epoch-003", "index.json"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- a full disk --------------------------------------------------------------------------------------------------


def test_what_a_killed_removal_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left, folder = tmp_path / ".encoder.old", tmp_path / "encoder"
    left.mkdir()
    (left / "model.safetensors").write_text("half of it is gone")
    with files.new_folder(folder) as temporary:
        (temporary / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_what_another_library_says_of_a_full_disk_is_said_too(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="cannot be written \\(No space left on device\\)"),
        files.filling(tmp_path / "x"),
    ):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError, match="ours"), files.filling(tmp_path / "x"):
        raise RuntimeError("ours")


# --- one writer ---------------------------------------------------------------------------------------------------


def test_a_folder_has_one_writer(run_training: Train, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").locked(), pytest.raises(InputError, match="another process is writing this run"):
        run_training(SMOKE)
    run_training(SMOKE, "trainer.epochs=1")


# --- signals ------------------------------------------------------------------------------------------------------

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143}


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("embed", signal.SIGTERM),
        ("train", signal.SIGINT),
        *(
            pytest.param(phase, number, marks=pytest.mark.kills)
            for phase, number in [
                ("train", signal.SIGTERM),
                ("evaluate", signal.SIGTERM),
                ("checkpoint", signal.SIGTERM),
                ("train", signal.SIGUSR1),
            ]
        ),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_stops_at_the_next_step(
    attempt: Attempts, undisturbed: tuple[Path, Ended], tmp_path: Path, phase: str, number: signal.Signals
) -> None:
    stopped = attempt(tmp_path, *LONGER, direct=True, phase=phase, times=2, signals=[number])
    assert stopped.code == CODES[number]
    first, second = stopped.err.splitlines()
    assert first.startswith(f"negexp: {number.name}: stopping at the next step")
    assert second == f"negexp: stopped by {number.name}"
    with RunFolder(tmp_path / "run").locked():  # nobody holds it any more
        pass
    assert attempt(tmp_path, *LONGER, direct=True).code == 0
    assert differences(tmp_path / "run", undisturbed[0]) == ["result.json"]


def test_a_commit_is_finished_before_a_signal_stops(attempt: Attempts, tmp_path: Path) -> None:
    stopped = attempt(tmp_path, *LONGER, direct=True, phase="checkpoint", signals=[signal.SIGTERM])
    assert stopped.code == 143
    commit = CheckpointStore(tmp_path / "run", keep=2).newest()
    assert commit is not None
    assert commit.state["epoch"] == 0
    assert len(pd.read_csv(tmp_path / "run" / "metrics.csv")) == 1


@pytest.mark.processes
def test_a_second_sigint_stops_at_once(attempt: Attempts, undisturbed: tuple[Path, Ended], tmp_path: Path) -> None:
    stopped = attempt(tmp_path, *LONGER, direct=True, phase="train", times=2, signals=[signal.SIGINT] * 2)
    assert stopped.code == 130
    assert stopped.err.splitlines() == ["negexp: SIGINT: stopping at the next step; press again to stop at once"]
    assert attempt(tmp_path, *LONGER, direct=True).code == 0
    assert differences(tmp_path / "run", undisturbed[0]) == ["result.json"]


def test_a_signal_before_the_run_stops_the_command_line(attempt: Attempts, tmp_path: Path) -> None:
    stopped = attempt(tmp_path, *CLI, after=0.3, signal=signal.SIGTERM)
    assert stopped.code in (143, -signal.SIGTERM)  # minus: before the command line was there to answer
    assert "Traceback" not in stopped.err


def test_stopping_leaves_handlers_and_requests_as_they_were() -> None:
    steps = []

    def signalled(look: bool) -> None:
        with stops_at_steps():
            signal.raise_signal(signal.SIGTERM)
            steps.append("goes on until a step looks")
            if look:
                check_stop()
                steps.append("not reached")

    before = signal.getsignal(signal.SIGTERM)
    for look in (True, False):  # also where no step comes after the signal
        with pytest.raises(Stopped):
            signalled(look)
        assert signal.getsignal(signal.SIGTERM) is before
        check_stop()
    assert steps == ["goes on until a step looks"] * 2


def test_a_signal_is_not_forgotten_when_the_work_fails_otherwise() -> None:
    def failing() -> None:
        with stops_at_steps():
            signal.raise_signal(signal.SIGTERM)
            raise InputError("the corpus is not there")

    with pytest.raises(Stopped):
        failing()


# --- honest files -------------------------------------------------------------------------------------------------


def test_nobody_ever_sees_half_a_file(run_training: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    seen: list[str] = []

    def look(operation: str, path: Path) -> None:
        for file in folder.rglob("*"):
            if not any(part.startswith(".") for part in file.relative_to(folder).parts):
                if file.suffix == ".json":
                    json.loads(file.read_bytes())
                elif file.suffix == ".parquet":
                    pd.read_parquet(file)
        rows = len(pd.read_csv(folder / "metrics.csv")) if (folder / "metrics.csv").exists() else 0
        commits = len(list((folder / "checkpoints").glob("epoch-*")))
        assert commits - 1 <= rows <= commits
        seen.append(operation)
        if (folder / "result.json").exists():
            seen.append("result")

    monkeypatch.setattr(files, "before_operation", look)
    run_training(SMOKE, "checkpoint.keep=9")
    assert {"write", "sync", "rename", "sync folder"} <= set(seen)
    assert seen[-2:] == ["sync folder", "result"]  # nothing is written after it
    assert seen.count("result") == 1


# --- sweeps -------------------------------------------------------------------------------------------------------

SWEEP = ["train", SMOKE, "-m", "seed=0,1", "sampler.num_negatives=1,2,1000", "index=exact"]  # no thousand candidates


def outcomes(folder: Path) -> list[str]:
    return pd.read_csv(folder / "outputs" / "sweeps" / "smoke" / "jobs.csv")["outcome"].tolist()


@pytest.mark.kills
def test_a_sweep_of_which_two_fail_and_one_is_killed_runs_what_is_missing(attempt: Attempts, tmp_path: Path) -> None:
    first = attempt(tmp_path, *SWEEP, phase="train", times=6, signals=[signal.SIGKILL])  # fourth job, second epoch
    assert first.code == -signal.SIGKILL
    jobs = tmp_path / "outputs" / "sweeps" / "smoke"
    finished = {path: path.stat().st_mtime_ns for path in jobs.glob("*/result.json")}
    assert len(finished) == 2
    second = attempt(tmp_path, *SWEEP)
    assert second.code == 2
    assert outcomes(tmp_path) == ["skipped", "skipped", "failed", "continued", "done", "failed"]
    assert "2 done" not in second.out
    assert "sweep outputs/sweeps/smoke: 1 done, 1 continued, 2 skipped, 2 failed" in second.out
    assert second.err.startswith("negexp: 2 of 6 jobs failed: num_negatives=1000") or "1000" in second.err
    assert second.err.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    failed = [path for path in jobs.glob("*1000*/train.log") if "sampler.num_negatives=1000: " in path.read_text()]
    assert len(failed) == 2  # each keeps its log, with the reason
    third = attempt(tmp_path, *SWEEP[:4], "sampler.num_negatives=1,2", *SWEEP[5:])
    assert third.code == 0
    assert outcomes(tmp_path) == ["skipped"] * 4


@pytest.mark.processes
def test_failed_jobs_do_not_stop_the_batches_after_theirs(attempt: Attempts, tmp_path: Path) -> None:
    sweep = ["sampler.num_negatives=1000,1,2", "hydra.sweeper.max_batch_size=1", "trainer.epochs=1"]
    assert attempt(tmp_path, "train", SMOKE, "-m", *sweep).code == 2
    assert outcomes(tmp_path) == ["failed", "done", "done"]


@pytest.mark.processes
def test_a_signal_stops_the_whole_sweep(attempt: Attempts, tmp_path: Path) -> None:
    stopped = attempt(tmp_path, *SWEEP, phase="train", times=3, signals=[signal.SIGTERM])
    assert stopped.code == 143
    assert outcomes(tmp_path) == ["done", "stopped"]


@pytest.mark.kills
def test_memory_does_not_grow_from_job_to_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(one) is BiEncoder for one in gc.get_objects())

    found: list[int] = []

    def counted(config: DataConfig) -> Corpus:  # the first thing that a job does
        found.append(alive())
        return load_corpus(config)

    rank = Experiment.rank

    def defective(self: Experiment, *arguments: Any) -> pd.DataFrame:
        if self.config.seed == 1:
            raise ZeroDivisionError("a defect, with a model in its traceback")
        return rank(self, *arguments)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["negexp"])
    monkeypatch.setattr(train, "load_corpus", counted)
    monkeypatch.setattr(Experiment, "rank", defective)
    before = alive()
    lr = "trainer.lr=1e30,1e-4"  # the first of each seed fails by its loss
    assert main(["train", SMOKE, *QUICK, "-m", "trainer.epochs=1", "seed=0,1,2", lr]) == 1
    assert found == [before] * 6
    assert alive() == before
    jobs = pd.read_csv(tmp_path / "outputs" / "sweeps" / "smoke" / "jobs.csv")
    assert jobs["outcome"].tolist() == ["failed", "done", "failed", "failed", "failed", "done"]
    assert jobs["defect"].tolist() == [False, False, True, True, False, False]
    assert "ZeroDivisionError: a defect" in jobs["reason"][3]
    logs = [path.read_text() for path in tmp_path.rglob("seed=1*/train.log")]
    assert len(logs) == 2
    assert all("Traceback" in text and "ZeroDivisionError" in text for text in logs)
    assert capsys.readouterr().err.splitlines()[-1].startswith("negexp: 4 of 6 jobs failed: ")


@pytest.mark.kills
def test_jobs_in_parallel_processes_are_told_of_like_others(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "negexp", "train", SMOKE, *QUICK, "-m", "hydra/launcher=joblib"]
    command += ["trainer.epochs=1", "trainer.threads=1", "seed=0,1", "sampler.num_negatives=1,1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert outcomes(tmp_path) == ["done", "failed", "done", "failed"]
    assert "negexp: 2 of 4 jobs failed: " in done.stderr
    assert "report of 2 runs in outputs/sweeps/smoke/report/report.html" in done.stdout


def test_configuration_of_the_recovery_tests_is_what_they_say() -> None:
    config = compose_train(*LONGER)
    assert (config.trainer.epochs, config.sampler.refresh_every, config.trainer.warmup_steps) == (3, 2, 9)
