"""Trackers: a tool gets every committed epoch once, whatever happens, and nothing that it does reaches the run."""

from __future__ import annotations

import ast
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from attempts import Attempts, contents, differences
from conftest import compose_train
from trackers import Series, assert_batches, assert_figures, expected_series, without_batches

from negexp.cli import main
from negexp.commands import train
from negexp.config import CONF_DIR
from negexp.errors import InputError
from negexp.evaluation.metrics import METRICS
from negexp.evaluation.monitor import Monitor
from negexp.evaluation.pools import PROTOCOLS, STAGES
from negexp.tracking import RunFolder
from negexp.tracking.curves import ArmCurves, Curves, draw_learning, draw_negatives, run_figures
from negexp.tracking.guarded import Guarded
from negexp.tracking.listener import Epoch, Listener, RunInfo
from negexp.tracking.outbox import Outbox, read_batch_losses, run_id
from negexp.tracking.tracker import Points, TrackerOptions
from negexp.tracking.trackers.tensorboard import TensorBoard

LIBRARIES = {"mlflow", "tensorboard", "trackio", "wandb"}
SMOKE = ("experiment=smoke",)
OWN = "tracker.listeners.tensorboard"
FOLLOWED = (*SMOKE, "tracker=tensorboard", f"{OWN}.metrics=['*']")
TENSORBOARD = (*FOLLOWED, f"{OWN}.figures=false")  # to draw takes longer than to train
PACKAGE = Path(__file__).resolve().parent.parent / "negexp"
BATCHES = 2  # of an epoch: 16 pairs in batches of 8


def run_into(folder: Path, *overrides: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    train.run(compose_train(*overrides), folder, list(overrides))
    return folder


def images(run: Path) -> dict[str, bytes]:
    """Return the images of a run's event files; each is there once, at the best epoch."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={accumulator.IMAGES: 0})
    events.Reload()
    found = {name: events.Images(name) for name in events.Tags()["images"]}
    best = json.loads((run / "result.json").read_text())["best_epoch"]
    assert {name: [event.step for event in own] for name, own in found.items()} == {name: [best] for name in found}
    return {name: own[0].encoded_image_string for name, own in found.items()}


def event_files(run: Path) -> Series:
    """Return the scalars of a run's event files, as TensorBoard reads them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={accumulator.SCALARS: 0})
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def in_event_files(series: Series) -> Series:
    """Return the series with their values as float32, which is what event files hold."""
    return {name: [(x, float(np.float32(value))) for x, value in points] for name, points in series.items()}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run that TensorBoard was told of."""
    pytest.importorskip("tensorboard")
    return run_into(tmp_path_factory.mktemp("followed") / "run", *FOLLOWED)


@pytest.fixture(scope="module")
def alone(runs_of_the_session: Callable[..., Path]) -> Path:
    """Return the same run without a tracker."""
    return runs_of_the_session(*SMOKE)


# --- what is imported, and what is refused ------------------------------------------------------------------------


def test_no_library_of_a_tracker_is_imported_before_a_run_starts() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in _at_import(ast.parse(path.read_text(encoding="utf-8"))):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {name.partition(".")[0] for name in named} & LIBRARIES, path


def _at_import(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when the module is imported: outside of functions and of TYPE_CHECKING."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not typing_only and not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_a_missing_library_is_one_line_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    assert main(["train", "experiment=smoke", f"tracker=[default,{name}]", "hydra.run.dir=run"]) == 2
    assert capsys.readouterr().err == (
        f"negexp: tracker.listeners.{name}.name={name}: the package {name} is not installed; "
        f"pip install 'negexp[{name}]'\n"
    )
    assert not Path("run").exists()


def test_a_folder_of_the_same_name_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_such_library").mkdir()  # W&B makes a folder `wandb` where it runs
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="not installed"):
        TrackerOptions("no_such_library", ["*"], True, True).check()


def test_the_files_of_a_run_are_written_with_any_choice_of_trackers() -> None:
    pytest.importorskip("tensorboard")
    for choice in ("tensorboard", "[tensorboard]", "[default,tensorboard]"):
        config = compose_train(f"tracker={choice}", "tracker.ledger=false").tracker
        assert (config.ledger, list(config.listeners)) == (False, ["tensorboard"])


def test_every_tracker_has_a_file_and_an_extra() -> None:
    extras = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert {path.stem for path in (PACKAGE / "tracking" / "trackers").glob("[a-z]*.py")} == LIBRARIES
    for name in LIBRARIES:
        assert (CONF_DIR / "tracker" / f"{name}.yaml").exists()
        assert f'\n{name} = ["{name}>=' in extras


# --- TensorBoard --------------------------------------------------------------------------------------------------


def test_event_files_hold_the_metrics_the_batches_and_the_result(followed: Path) -> None:
    found = event_files(followed)
    assert without_batches(found) == in_event_files(expected_series(followed))
    assert_batches(found, followed, BATCHES)


def test_event_files_hold_the_parameters(followed: Path) -> None:
    hparams = pytest.importorskip("tensorboard.plugins.hparams.metadata")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(followed / "tensorboard"))
    events.Reload()
    contents = events.summary_metadata
    start = hparams.parse_session_start_info_plugin_data(
        contents["_hparams_/session_start_info"].plugin_data.content
    ).hparams
    assert start["trainer.epochs"].number_value == 2
    assert start["sampler.name"].string_value == "decay"
    assert start["trainer.gradient_clip"].string_value == "None"
    assert not [name for name in start if name.startswith("tracker.")]
    end = hparams.parse_session_end_info_plugin_data(contents["_hparams_/session_end_info"].plugin_data.content)
    assert end.status == 1  # success


def test_event_files_hold_the_figures(followed: Path) -> None:
    assert_figures(images(followed))


def test_the_learning_curves_are_those_of_the_files(followed: Path) -> None:
    table, result = pd.read_csv(followed / "metrics.csv"), json.loads((followed / "result.json").read_text())
    untrained = result["untrained"]["validation"]
    monitor = Monitor("clean", "retrieval", "sda", "mrr")
    arm = ArmCurves("", [Curves(table, untrained)])
    panels = draw_learning([arm], monitor).axes
    assert [panel.get_title() for panel in panels[:2]] == ["retrieval", "reranked"]
    for panel in panels[:2]:
        (line,) = panel.get_lines()
        name = f"clean/{panel.get_title()}/sda/mrr"
        expected = [untrained["clean"][panel.get_title()]["sda"]["mrr"], *table[f"validation/{name}"]]
        np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), [0, 1, 2])
        np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), np.multiply(100, expected))
    lines = {panel.get_ylabel(): panel.get_lines()[0] for panel in draw_negatives([arm]).axes}
    shown = {label: np.asarray(line.get_ydata(), dtype=float) for label, line in lines.items()}
    np.testing.assert_allclose(shown["distance to the negative"], table["negative_distance"])
    shares = [shown[name] for name in shown if name.startswith("from ")]  # own debate, own theme, elsewhere
    np.testing.assert_allclose(np.sum(shares, axis=0), 100)
    assert run_figures([], untrained, str(monitor)) == {}


def test_a_tracker_changes_nothing_in_the_run(followed: Path, alone: Path) -> None:
    names = {name.partition("/")[0] for name in differences(followed, alone)}
    assert names == {"config.yaml", "result.json", "tensorboard", "trackers"}
    ours, theirs = (contents(run)["result.json"] for run in (followed, alone))
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    assert {key for key in ours if ours[key] != theirs[key]} == {"overrides"}


def test_a_finished_run_that_gets_more_epochs_goes_on_in_the_same_files(followed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(followed, tmp_path / "run")
    before = event_files(run)
    run_into(run, *FOLLOWED, "trainer.epochs=3")
    assert_figures(images(run))
    assert images(run) != images(followed)
    found = event_files(run)
    assert without_batches(found) == in_event_files(expected_series(run))
    assert_batches(found, run, BATCHES)
    assert found["loss"][:2] == before["loss"]


def test_only_the_chosen_metrics_are_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    chosen = [f"{OWN}.metrics=[loss,'*/clean/retrieval/epa/mrr']", f"{OWN}.batches=false"]
    run = run_into(tmp_path, *TENSORBOARD, *chosen, "trainer.epochs=1", "evaluation.train_queries=0")
    assert images(run) == {}  # figures=false
    mrr = "clean/retrieval/epa/mrr"
    results = {f"result/{name}" for name in ("best_epoch", "best_value", "seconds")}
    results |= {f"result/{split}/{mrr}" for split in ("validation", "test", "untrained/validation", "untrained/test")}
    assert event_files(run).keys() == {"epoch", "loss", f"validation/{mrr}"} | results


def test_by_default_a_tool_is_told_the_headlines(followed: Path) -> None:
    pytest.importorskip("tensorboard")
    keys = [*SMOKE, "tracker=tensorboard", "trainer.monitor=clean/retrieval/sdc/accuracy@5"]
    tracker = TensorBoard(compose_train(*keys).tracker.listeners["tensorboard"])
    columns = [name for name in map(str, pd.read_csv(followed / "metrics.csv")) if not name.startswith("train/")]
    told = set(tracker._chosen(dict.fromkeys(columns, 0.5)))
    headlines = {
        f"validation/{protocol}/{stage}/{task}/{metric}"
        for protocol in PROTOCOLS
        for stage in STAGES
        for task in ("epa", "sda")
        for metric in METRICS
    }
    assert {name for name in told if "/" in name} == headlines | {"validation/clean/retrieval/sdc/accuracy@5"}
    assert {name for name in columns if name.startswith(("loss", "seconds_"))} <= told
    assert {"random_rate", "mined_share", "negative_distance", "positive_distance", "neighbour_rank"} <= told
    assert len(told) <= 70 < len(columns)


def test_the_epochs_of_the_cross_encoder_are_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    cross = ["loss=triplet", "model.reranker=cross", "trainer.monitor=clean/retrieval/epa/mrr", "trainer.epochs=1"]
    run = run_into(tmp_path, *TENSORBOARD, *cross, "reranker.epochs=2", "reranker.max_length=48")
    table, found = pd.read_csv(run / "reranker.csv"), event_files(run)
    assert len(table) == 2
    for name in table:
        rows = {"": [(epoch, float(value)) for epoch, value in enumerate(table[name])]}
        assert found[f"reranker/{name}"] == in_event_files(rows)[""]
    assert without_batches({name: points for name, points in found.items() if not name.startswith("reranker/")}) == (
        in_event_files(expected_series(run))
    )


# --- kills --------------------------------------------------------------------------------------------------------


def test_a_commit_that_the_tool_was_not_told_of_is_told_when_the_run_goes_on(
    followed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = Guarded.committed

    def end_before_the_second(self: Guarded, epoch: Epoch) -> None:
        if epoch.number:
            raise KeyboardInterrupt
        tell(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Guarded, "committed", end_before_the_second)
        with pytest.raises(KeyboardInterrupt):
            run_into(tmp_path / "run", *TENSORBOARD)
    run = run_into(tmp_path / "run", *TENSORBOARD)
    assert_same_points(run, followed)


@pytest.mark.kills
@pytest.mark.parametrize(
    ("before", "times"),
    [
        pytest.param("rename epoch-001", 1, id="the epoch not committed"),
        pytest.param("write .metrics.csv.tmp", 2, id="the epoch committed, the tool not told"),
        pytest.param("rename events.out.tfevents.000000003-epoch-1", 1, id="telling the epoch"),
        pytest.param("rename events.out.tfevents.000000004-result-0", 1, id="telling the result"),
        pytest.param("write .told.json.tmp", 1, id="the tool told of the result"),
    ],
)
def test_killed_when_a_tool_is_told_a_run_goes_on_without_a_gap_or_a_double(
    before: str, times: int, followed: Path, tmp_path: Path
) -> None:
    with Attempts() as attempt:
        killed = attempt(tmp_path, *TENSORBOARD, direct=True, before=before, times=times)
        assert killed.code == -signal.SIGKILL
        again = attempt(tmp_path, *TENSORBOARD, direct=True)
    assert again.code == 0, again.err
    assert_same_points(tmp_path / "run", followed)


def assert_same_points(run: Path, reference: Path) -> None:
    found, expected = event_files(run), event_files(reference)
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name] and "seconds" not in name} == set()
    assert [len(points) for points in found.values()] == [len(points) for points in expected.values()]
    files = [sorted(path.name for path in (one / "tensorboard").iterdir()) for one in (run, reference)]
    assert files[0] == files[1]


# --- failures, and trackers that are told later -------------------------------------------------------------------


def test_a_tool_that_failed_is_told_of_all_when_the_same_command_is_run_again(
    followed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "tensorboard").symlink_to(tmp_path)
    run_into(run, *TENSORBOARD)
    assert "tracker tensorboard: InputError in started" in caplog.text
    assert (run / "result.json").exists()
    assert not list(tmp_path.glob("events*"))
    (run / "tensorboard").unlink()
    run_into(run, *TENSORBOARD)
    found, expected = event_files(run), event_files(followed)
    assert without_batches(found) == in_event_files(expected_series(run))
    assert {name for name in found if found[name] != expected.get(name) and "seconds" not in name} == set()
    files = {path: path.stat().st_mtime_ns for path in (run / "tensorboard").iterdir()}
    run_into(run, *TENSORBOARD)  # there is nothing left to tell
    assert {path: path.stat().st_mtime_ns for path in (run / "tensorboard").iterdir()} == files


def test_a_run_without_a_tracker_can_be_told_to_one_later(alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = run_into(shutil.copytree(alone, tmp_path / "run"), *TENSORBOARD)
    assert event_files(run) == in_event_files(expected_series(run))  # nobody has kept the losses of its batches


def test_without_commits_a_finished_run_cannot_be_told_and_says_so(
    alone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    run = shutil.copytree(alone, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    run_into(run, *TENSORBOARD)
    assert "trackers tensorboard: cannot be told of this run" in caplog.text


class Witness(Listener):
    """Remembers the events of which it was told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self, run: RunInfo) -> None:
        self.events.append("started")

    def stopped(self) -> None:
        self.events.append("stopped")


def test_a_tracker_is_told_of_a_stop_unless_it_never_heard_of_the_start(tmp_path: Path) -> None:
    witness = Witness()
    guarded = Guarded(witness, "witness", RunFolder(tmp_path))
    guarded.stopped()
    assert witness.events == []
    guarded.started(RunInfo(tmp_path, {}))
    guarded.stopped()
    assert witness.events == ["started", "stopped"]


def test_a_stopped_run_tells_its_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = Witness()
    monkeypatch.setattr("negexp.training.run.build_trackers", lambda *_: [witness])
    monkeypatch.setattr(witness, "step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_into(tmp_path, *SMOKE)
    assert witness.events == ["started", "stopped"]


# --- rows ---------------------------------------------------------------------------------------------------------


def test_the_last_batch_shares_its_row_with_the_epoch() -> None:
    batches = [(4, {"batch/loss": 2.0}), (5, {"batch/loss": 1.0})]
    points = Points("epoch", 1, 5, 0.0, {"epoch": 1.0, "loss": 1.5}, batches)
    assert points.rows() == [
        (4, {"batch": 4.0, "batch/loss": 2.0}),
        (5, {"batch": 5.0, "batch/loss": 1.0, "epoch": 1.0, "loss": 1.5}),
    ]
    assert Points("result", 1, 6, 0.0, {"result/seconds": 1.0}, []).rows() == [(6, {"result/seconds": 1.0})]


def test_the_record_of_a_run_survives_losses_that_are_no_numbers(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    outbox = Outbox(folder)
    outbox.started(RunInfo(tmp_path, {}))
    first = run_id(folder)
    for number, value in enumerate((1.0, float("nan"), 3.0)):
        outbox.step(number, {"loss": value})
    outbox.trained(0)
    Outbox(folder).started(RunInfo(tmp_path, {}, [{"epoch": 0}, {"epoch": 1}]))
    assert run_id(folder) == first
    assert read_batch_losses(folder, 0).batches() == [(0, {"loss": 1.0}), (1, {}), (2, {"loss": 3.0})]
    assert (read_batch_losses(folder, 1).first, read_batch_losses(folder, 1).last) == (3, 3)
    assert json.loads((tmp_path / "trackers" / "epoch-001.json").read_text())["losses"] == {}
