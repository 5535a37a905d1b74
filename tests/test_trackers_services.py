"""MLflow, Weights & Biases and trackio, the real libraries offline: a run killed twice is in each tool once."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from attempts import Attempts
from trackers import Series, assert_batches, assert_figures, expected_series, without_batches

from negexp.cli import main
from negexp.tracking import RunFolder
from negexp.tracking.listener import RunInfo
from negexp.tracking.outbox import Outbox, run_id
from negexp.tracking.tracker import TrackedRun
from negexp.tracking.trackers.mlflow import Mlflow, MlflowOptions

SERVICES = [name for name in ("mlflow", "trackio", "wandb") if find_spec(name) is not None]
BATCHES = 2  # of an epoch: 16 pairs in batches of 8


class Told(NamedTuple):
    """What a tool has of a run: its series, its parameters, the name of its group, and the files of its figures."""

    series: Series
    parameters: dict[str, Any]
    group: str
    figures: dict[str, bytes]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder that holds the stores of MLflow and trackio; nothing reaches a network."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow may put its artifacts there
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture(scope="module")
def run(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was killed after a commit, and again after its result, before the tools were told of it."""
    if not SERVICES:
        pytest.skip("no library of a tracker is installed; pip install 'negexp[trackers]'")
    folder = tmp_path_factory.mktemp("study")
    everything = [f"tracker.listeners.{name}.metrics=['*']" for name in SERVICES]
    command = ["experiment=smoke", f"tracker=[{','.join(SERVICES)}]", *everything]
    with Attempts() as attempt:
        for before, times in (("write .metrics.csv.tmp", 2), ("write .told.json.tmp", 1)):
            killed = attempt(folder, *command, direct=True, before=before, times=times)
            assert killed.code == -signal.SIGKILL, killed.err
        ended = attempt(folder, *command, direct=True)
    assert ended.code == 0, ended.err
    assert "the run continues without" not in ended.out + ended.err
    assert sorted(json.loads((folder / "run" / "trackers" / "told.json").read_text())) == SERVICES
    return folder / "run"


def told_mlflow(run: Path) -> Told:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("negexp")
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`negexp.run` = '{run_id(RunFolder(run))}'")
    assert (found.info.status, found.info.run_name) == ("FINISHED", run.name)
    series = {
        name.replace("_at_", "@"): [
            (point.step, point.value) for point in client.get_metric_history(found.info.run_id, name)
        ]
        for name in found.data.metrics
    }
    artifacts = [one.path for one in client.list_artifacts(found.info.run_id, "figures")]
    files = {path.removesuffix(".png"): Path(client.download_artifacts(found.info.run_id, path)) for path in artifacts}
    figures = {name: file.read_bytes() for name, file in files.items()}
    return Told(series, found.data.params, found.data.tags["negexp.group"], figures)


def told_trackio(run: Path) -> Told:
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = [one for one in SQLiteStorage.get_runs("negexp") if run_id(RunFolder(run)).startswith(one[-8:])]
    assert name.startswith(f"{run.name}-")
    rows = SQLiteStorage.get_logs("negexp", name)
    steps = [row["step"] for row in rows]
    assert steps == list(range(len(steps)))  # two batches of each epoch, and the result
    config = SQLiteStorage.get_run_config("negexp", name)
    assert config is not None
    found = series_of([{name: value for name, value in row.items() if name != "step"} for row in rows])
    images = [(name, value["file_path"]) for row in rows for name, value in row.items() if name.startswith("figures/")]
    assert len(images) == 2
    media = Path(os.environ["TRACKIO_DIR"]) / "media"
    return Told(found, config, config["_Group"], {name: (media / file).read_bytes() for name, file in images})


def told_wandb(run: Path) -> Told:
    from wandb.proto import wandb_internal_pb2

    (file,) = run.glob(f"wandb/offline-run-*/run-{run_id(RunFolder(run))}.wandb")
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    group = ""
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            rows.append(
                {"/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in record.history.item}
            )
        elif record.HasField("summary"):
            summary |= {
                "/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in record.summary.update
            }
        elif record.HasField("run"):
            group = record.run.run_group
            config |= {one.key: json.loads(one.value_json) for one in record.run.config.update}
    series = series_of(rows)
    best = summary["result/best_epoch"]
    series |= {name: [(best, float(value))] for name, value in summary.items() if name.startswith("result/")}
    images = [(name, value) for row in rows for name, value in row.items() if name.startswith("figures/")]
    images = [(name.removesuffix("/path"), value) for name, value in images if name.endswith("/path")]
    assert len(images) == 2
    media = file.parent / "files"
    return Told(series, config, group, {name: (media / image).read_bytes() for name, image in images})


def series_of(rows: list[dict[str, Any]]) -> Series:
    """Return the series of rows that name their own places: `batch`, `epoch`, and those of the result."""
    series: Series = {}
    for row in rows:
        for name, value in row.items():
            if not isinstance(value, int | float):
                continue
            axis = (
                "batch" if name.startswith("batch/") else "result/best_epoch" if name.startswith("result/") else "epoch"
            )
            if axis in row:
                series.setdefault(name, []).append((int(row[axis]), float(value)))
    return series


def log_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format: blocks of 32 KiB, a record in one part or several."""
    assert data[:4] == b":W&B"
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


TOLD: dict[str, Callable[[Path], Told]] = {"mlflow": told_mlflow, "trackio": told_trackio, "wandb": told_wandb}


@pytest.mark.parametrize("service", TOLD)
def test_a_run_that_was_killed_twice_is_in_the_tool_once(service: str, run: Path) -> None:
    pytest.importorskip(service)
    told, expected = TOLD[service](run), expected_series(run)
    found = {name: points for name, points in without_batches(told.series).items() if not name.startswith("_")}
    assert found.keys() == expected.keys()
    for name, points in expected.items():
        assert found[name] == points, name
    assert_batches(told.series, run, BATCHES)


@pytest.mark.parametrize("service", TOLD)
def test_the_tool_has_the_parameters_and_the_group(service: str, run: Path) -> None:
    pytest.importorskip(service)
    told = TOLD[service](run)
    assert told.group == run.parent.name
    assert [str(told.parameters[key]) for key in ("seed", "sampler.name", "trainer.epochs")] == ["0", "decay", "2"]
    assert not [key for key in told.parameters if key.startswith("tracker.")]


@pytest.mark.parametrize("service", TOLD)
def test_the_tool_has_the_figures_once(service: str, run: Path) -> None:
    pytest.importorskip(service)
    assert_figures(TOLD[service](run).figures)


@pytest.mark.parametrize("service", TOLD)
def test_the_same_command_again_tells_the_tool_nothing(
    service: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(service)
    monkeypatch.setattr("negexp.actions.train.tell_finished", lambda *_: pytest.fail("told again"))
    quick = ["trainer.precision=float32", "trainer.device=cpu", "tracker.progress=never"]
    assert main(["train", "experiment=smoke", f"tracker={service}", *quick, f"hydra.run.dir={run}"]) == 0


def test_a_stopped_run_is_killed_in_mlflow_and_running_when_it_goes_on(stores: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder = RunFolder(tmp_path)
    Outbox(folder).started(RunInfo(tmp_path, {}))
    options = MlflowOptions("mlflow", ["*"], True, True, "stops", "a group", None)
    seen = []
    for finished in (False, True):
        tracker = Mlflow(options)
        assert tracker.open(TrackedRun(run_id(folder), "name", folder, {"seed": 1}, "")) == 0
        seen.append((tracker.id, mlflow.MlflowClient().get_run(tracker.id).info.status))
        tracker.close(finished)
        seen.append((tracker.id, mlflow.MlflowClient().get_run(tracker.id).info.status))
    assert [status for _, status in seen] == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert len({id_ for id_, _ in seen}) == 1


def test_a_password_in_an_address_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("negexp.tracking.tracker.is_installed", lambda _: True)  # as if it were installed
    uri = "tracker.listeners.mlflow.uri=http://me:secret@host"
    assert main(["train", "experiment=smoke", "tracker=mlflow", f"hydra.run.dir={tmp_path / 'run'}", uri]) == 2
    error = capsys.readouterr().err
    assert error.startswith("negexp: tracker.listeners.mlflow.uri=http://...@host: holds a password")
    assert "secret" not in error
    assert not (tmp_path / "run").exists()
