"""The command line: what it prints, what it refuses in one line before a folder is made, where its output goes.

Commands are replaced by a stub, except where nothing runs anyway: these tests are about what stands around them.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

import negexp
from negexp.application import slug
from negexp.cli import main
from negexp.command import find, names, purpose
from negexp.config import CONF_DIR, TrainConfig, flatten, to_yaml
from negexp.errors import InputError
from negexp.nearest import nearest_key
from negexp.signals import Stopped, stops_at_once

pytestmark = pytest.mark.runs

Run = Callable[[TrainConfig, Path, list[str]], None]
Calls = list[tuple[Any, Path, list[str]]]  # a command's configuration, folder and overrides


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, and take back what Hydra and `main` set for the whole process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["negexp"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    GlobalHydra.instance().clear()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replace the commands by one that records its arguments."""
    found: Calls = []
    stub_commands(monkeypatch, lambda *arguments: found.append(arguments))
    return found


def stub_commands(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    for name in names():
        monkeypatch.setattr(f"negexp.commands.{name}.COMMAND", replace(find(name), run=run, after_sweep=None))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


# --- what it prints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_with_its_purpose(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    for command in names():
        assert [line.split(maxsplit=1) for line in out.splitlines()].count([command, purpose(command)]) == 1
    assert err == ""


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--version"]])
def test_version_is_the_package_s(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr() == (f"negexp {negexp.__version__}\n", "")


def test_help_starts_without_hydra_and_config_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from negexp.cli import main\n"
        "codes = [main([]), main(['--help']), main(['--version'])]\n"
        "heavy = {'hydra', 'omegaconf', 'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
        "codes += [main(['train', '--cfg', 'job'])]\n"
        "heavy |= {'torch', 'transformers'} & set(sys.modules)\n"
        "print(codes, heavy)\n"
    )
    result = python("-c", script)
    assert result.stdout.splitlines()[-1] == "[0, 0, 0, 0] set()"
    assert result.stderr == ""
    assert "\nseed: 0\n" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", names())
def test_help_of_a_command_lists_groups_options_and_keys(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: negexp {command}" in out
    if command in ("export", "report", "runs"):
        assert {"export": "hub: null", "report": "texts: true", "runs": "runs: outputs"}[command] in out
    else:
        assert "data: arguana, beir, datasets, demo, pairs" in out
        assert "train_overlap: drop" in out


# --- whose reader goes away -----------------------------------------------------------------------------------------


def closed_pipe(*arguments: str, stderr: bool = False, unbuffered: bool = False) -> tuple[int, str]:
    """Run Python with stdout, and stderr where asked, into a pipe that nobody reads; return exit code and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": "1" if unbuffered else ""}
    try:
        result = subprocess.run(
            [sys.executable, *arguments],
            stdout=writer,
            stderr=writer if stderr else subprocess.PIPE,
            env=environment,
            check=False,
        )
    finally:
        os.close(writer)
    return result.returncode, (result.stderr or b"").decode()


@pytest.mark.processes
@pytest.mark.parametrize("unbuffered", [True, False])  # False: the error comes when Python exits
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"], ["report", "--cfg", "job"]])
def test_a_closed_pipe_is_no_error(arguments: list[str], unbuffered: bool) -> None:
    assert closed_pipe("-m", "negexp", *arguments, unbuffered=unbuffered) == (0, "")


@pytest.mark.processes
def test_commands_into_a_closed_pipe_do_their_work(tmp_path: Path) -> None:
    commands = [
        ["train", "experiment=smoke", "trainer.epochs=1", "tracker.progress=never", "hydra.run.dir=run"],
        ["evaluate", "run=run", "output=again"],
        ["report", "runs=run", "output=report"],
        ["train", "trainer.epoch=3"],
    ]
    script = f"import sys; from negexp.cli import main; sys.exit([main(one) for one in {commands}] != [0, 0, 0, 2])"
    assert closed_pipe("-c", script, stderr=True) == (0, "")
    assert (tmp_path / "run" / "result.json").is_file()
    assert "test, with epoch 0" in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert (tmp_path / "again" / "evaluation" / "test.json").is_file()
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.long
def test_a_jobs_process_logs_into_a_closed_pipe(tmp_path: Path) -> None:
    jobs = ["experiment=smoke", "trainer.epochs=1", "seed=0,1", "hydra/launcher=joblib", "tracker.progress=never"]
    assert closed_pipe("-m", "negexp", "train", "-m", *jobs) == (0, "")
    assert len(list((tmp_path / "outputs").rglob("result.json"))) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"]])
def test_a_full_disk_under_stdout_is_said_in_one_line(arguments: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "negexp", *arguments]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert result.stderr == "negexp: standard output cannot be written (No space left on device)\n"
    assert result.returncode == 2


def test_streams_of_a_caller_stay_and_are_back_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    kept = sys.stdout, sys.stderr
    assert main(["--version"]) == 0
    assert (sys.stdout, sys.stderr) == kept
    assert capsys.readouterr().out == f"negexp {negexp.__version__}\n"


# --- what it refuses ----------------------------------------------------------------------------------------------

REFUSED = {
    "unknown command": (
        ["trian"],
        "trian: no such command; choose from bench, evaluate, export, mine, report, runs, search, train",
    ),
    "typo in a key": (["train", "trainer.epoch=3"], "trainer.epoch"),
    "typo in an added key": (["train", "+trainer.epoch=3"], "trainer.epoch"),
    "typo in a group": (["train", "samplr=hard"], "samplr"),
    "typo in an option": (["train", "sampler=hrad"], "sampler/hrad"),
    "typo in an experiment": (["train", "experiment=smoek"], "smoek"),
    "typo in a strategy": (["train", "sampler.name=hrad"], "sampler.name=hrad"),
    "typo in the monitor": (["train", "trainer.monitor=clean/retrieval/epa/accuracy"], "trainer.monitor=clean/"),
    "typo in a flag": (["train", "--mutlirun"], "--mutlirun"),
    "no value": (["train", "seed"], "seed"),
    "wrong type": (["train", "trainer.epochs=two"], "trainer.epochs=two: must be a whole number"),
    "bad rate": (["train", "sampler.start_rate=1.5"], "sampler.start_rate=1.5: must be between 0 and 1"),
    "not a number": (["train", "loss=triplet", "loss.margin=nan"], "loss.margin=nan"),
    "no path": (["train", "data=arguana"], "data.path: data=arguana needs data.path="),
    "path missing": (["train", "data=arguana", "data.path=nowhere"], "data.path=nowhere: does not exist"),
    "path in a sweep": (["train", "-m", "data=pairs", "data.path=.,no.csv"], "data.path=no.csv: does not exist"),
    "path to evaluate": (["evaluate", "data=pairs", "data.path=no.csv"], "data.path=no.csv: does not exist"),
    "number for a truth value": (["train", "model.normalize=3"], "model.normalize=3: must be true or false"),
    "text for a truth value": (["train", "tracker.ledger='on'"], "tracker.ledger=on: must be true or false"),
    "number for a group": (["train", "sampler=3"], "sampler=3: "),
    "number for a group, shown": (["train", "sampler=3", "--cfg", "job"], "sampler=3: "),
    "config folder missing": (["train", "--config-dir", "nope"], "--config-dir=nope: no such folder"),
    "two flags at a time": (["train", "-m", "seed=0,1", "--cfg", "job"], "--multirun --cfg: only one"),
    "sweep in a key": (["train", "-m", "hydra.sweeper.params={seed:'1,2'}"], "hydra.sweeper.params={seed:'1,2'}: "),
    "target": (["train", "+model._target_=os.system"], "model._target_"),
    "Hydra's own key": (["train", "hydra.run.fold=x"], "hydra.run.fold"),
    "pickled rerun": (["train", "--experimental-rerun", "config.pickle"], "--experimental-rerun: "),
    "nothing to report": (["report"], "runs: needs runs=DIR"),
    "sweep of reports": (["report", "-m", "runs=.,.."], "--multirun: negexp report is no sweep"),
    "run to evaluate": (["evaluate", "run=nowhere"], "nowhere/config.yaml: not found"),
    "typo in a report": (["report", "runs=.", "text=false"], "text"),
    "examples": (["report", "runs=.", "examples=-1"], "examples=-1: must be at least 0"),
    "evaluate": (["evaluate", "split=training"], "split=training: must be one of train, validation, test"),
    "typo in a sweep": (["train", "-m", "seed=0,1", "trainer.epoch=3"], "trainer.epoch"),
    "option in a sweep": (["train", "-m", "sampler=hard,hrad"], "sampler/hrad"),
    "strategy in a sweep": (["train", "-m", "sampler.name=decay,hrad"], "sampler.name=hrad"),
    "last job of a sweep": (["train", "--multirun", "sampler.start_rate=0.5,1.5"], "sampler.start_rate=1.5"),
    "type in a sweep": (["train", "-m", "trainer.epochs=1,two"], "trainer.epochs=two: must be a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_refused_in_one_line_and_leaves_no_folder(
    case: str, tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = REFUSED[case]
    assert exit_code(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("negexp: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert message in err
    assert out == ""
    assert calls == []
    assert list(tmp_path.iterdir()) == []


BELONGS = {
    "strategy": (["train", "sampler=hard", "sampler.start_rate=0.5"], "start_rate belongs to sampler=decay"),
    "schedule": (["train", "schedule@sampler.random_rate=cosine"], "random_rate belongs to sampler=scheduled"),
    "policy in a sweep": (
        ["train", "-m", "mining=nearest,window", "sampler.mining.low=0"],
        "low belongs to mining=score, ",
    ),
    "two losses": (["train", "loss=info_nce", "loss.margin=1"], "margin belongs to loss=triplet, loss=triplet_ce"),
    "corpus": (["evaluate", "data.titles=drop"], "titles belongs to data=arguana"),
    "group of another command": (["evaluate", "experiment=smoke"], "--help lists the groups there are"),
    "name for a part": (["train", "sampler.mining=window"], "sampler.mining=window: is a name; choose it by mining="),
}


@pytest.mark.parametrize("case", BELONGS)
def test_a_key_of_another_component_is_told_from_a_typo(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = BELONGS[case]
    assert exit_code(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "did you mean" not in err


NEAR = {
    "command": (["tarin"], "train"),
    "key": (["train", "sampler.stp=1"], "sampler.step"),
    "key at the top": (["train", "sed=1"], "seed"),
    "key that is deleted": (["train", "~sampler.stp"], "sampler.step"),
    "key that is added": (["train", "+sampler.stp=1"], "sampler.step"),
    "key that is forced": (["train", "++sampler.stp=1"], "sampler.step"),
    "key in a sweep": (["train", "-m", "sampler.stp=0.1,0.2"], "sampler.step"),
    "key beside another typo": (["train", "sampler.stp=1", "trainer.epoch=3"], "sampler.step"),
    "key without its group": (["train", "patience=3"], "trainer.patience"),
    "group in a key": (["train", "samplr.stp=1"], "sampler.step"),
    "group": (["train", "samplr=hard"], "sampler"),
    "group that is no key": (["train", "experimnt=smoke"], "experiment"),
    "option": (["train", "sampler=decya"], "sampler=decay"),
    "option in a sweep": (["train", "-m", "seed=0,1", "sampler=hard,decya"], "sampler=decay"),
    "option, shown": (["train", "sampler=decya", "--help"], "sampler=decay"),
    "option of a schedule": (
        ["train", "sampler=scheduled", "schedule@sampler.random_rate=cosin"],
        "schedule@sampler.random_rate=cosine",
    ),
    "option of a nested part": (
        ["train", "-m", "mining=scope", "mining@sampler.mining.policy=nearest,windw"],
        "mining@sampler.mining.policy=window",
    ),
    "option that is a key": (["train", "reranker=cross"], "model.reranker=cross"),
    "experiment": (["train", "experiment=smok"], "experiment=smoke"),
    "experiment that is added": (["train", "+experiment=smok"], "experiment=smoke"),
    "launcher": (["train", "-m", "hydra/launcher=basci"], "hydra/launcher=basic"),
    "Hydra's own key": (["train", "hydra.sweep.dirr=x"], "hydra.sweep.dir"),
    "strategy": (["train", "sampler.name=decya"], "sampler.name=decay"),
    "another package's strategy": (["train", "sampler.name=half_hrad"], "sampler.name=half_hard"),
    "choice": (["train", "tracker.progress=nver"], "tracker.progress=never"),
    "flag": (["train", "--mutlirun"], "--multirun"),
    "report": (["report", "run=."], "runs"),
    "evaluate": (["evaluate", "splt=test"], "split"),
    "bench": (["bench", "serach_rows=1000"], "search_rows"),
}


@pytest.mark.parametrize("case", NEAR)
def test_a_typo_gets_the_name_that_is_near(
    case: str, calls: Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    strategies = [EntryPoint("half_hard", "half_hard:HalfHard", "negexp.samplers")]
    monkeypatch.setattr("negexp.components.registry.entry_points", lambda group: strategies)
    arguments, meant = NEAR[case]
    assert exit_code(arguments) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.endswith(f"; did you mean {meant}?\n")
    assert err.lower().count("did you mean") == 1
    assert (out, calls) == ("", [])


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["xyz"],
            ["train", "sampler.xyz=1"],
            ["train", "xyz=1"],
            ["train", "+sampler.xyz=1"],
            ["train", "sampler=xyz"],
        ),
        *(["train", "sampler.name=xyz"], ["train", "seed.a.b=1"], ["train", "--xyz"]),
        ["train", "sampler=hard", "sampler.step=1"],  # is right with another strategy, but not here
    ],
)
def test_a_name_that_nothing_is_near_gets_no_suggestion(
    arguments: list[str], calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "did you mean" not in err
    assert calls == []


@given(st.data())
@settings(deadline=None, max_examples=100, derandomize=True)
def test_every_key_is_found_again_from_two_exchanged_letters(data: st.DataObject) -> None:
    keys = cast(dict[str, Any], OmegaConf.to_container(composed("train"), resolve=False))
    key = data.draw(st.sampled_from(sorted(flatten(keys))))
    place = data.draw(st.integers(key.rfind(".") + 1, max(key.rfind(".") + 1, len(key) - 2)))
    wrong = key[:place] + key[place : place + 2][::-1] + key[place + 2 :]
    assume(wrong != key and len(key) - key.rfind(".") > 3)  # of `lr` nothing is left
    assert nearest_key(wrong, keys) == key


@cache
def composed(command: str) -> DictConfig:
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        return compose(command)


def exit_code(arguments: list[str]) -> object:
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code


def test_sweep_that_an_overlay_holds_is_checked_before_its_first_job(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "conf" / "experiment" / "mine.yaml"
    overlay.parent.mkdir(parents=True)
    overlay.write_text("# @package _global_\nhydra:\n  sweeper:\n    params:\n      trainer.lr: 1e-3,-1\n")
    assert main(["train", "--config-dir", "conf", "experiment=mine", "-m"]) == 2
    assert capsys.readouterr().err == "negexp: trainer.lr=-1.0: must be at least 0\n"
    assert calls == []
    assert not (tmp_path / "outputs").exists()


@pytest.mark.processes
def test_process_exits_with_2_and_one_line_before_a_sweep_starts(tmp_path: Path) -> None:
    result = python("-m", "negexp", "train", "-m", "seed=0,1", "sampler.end_rate=0.1,-0.1")
    assert result.returncode == 2
    assert result.stderr == "negexp: sampler.end_rate=-0.1: must be between 0 and 1\n"
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


# --- what it runs -------------------------------------------------------------------------------------------------


def test_run_goes_to_a_dated_folder_below_its_name(tmp_path: Path, calls: Calls) -> None:
    assert main(["train", "name=mine", "seed=3"]) == 0
    [(config, folder, overrides)] = calls
    assert (config.name, config.seed, overrides) == ("mine", 3, ["name=mine", "seed=3"])
    assert folder.parent == tmp_path / "outputs" / "mine"
    assert len(folder.name) == len("2026-01-31_23-59-59")


def test_paths_of_a_report_may_hold_commas_stars_and_quotes(calls: Calls, tmp_path: Path) -> None:
    for path in ("a,b", "a/*", "it's", "x=1,y={2}", "[0]", "a b"):
        assert main(["report", f"runs={path}", f"output={path}"]) == 0
        config = calls[-1][0]
        assert (config.runs, config.output) == (path, path)
    assert main(["report", "runs='a,b'", "output=null"]) == 0
    assert (calls[-1][0].runs, calls[-1][0].output) == ("a,b", None)
    assert list(tmp_path.iterdir()) == []


def test_paths_of_a_run_may_hold_commas_and_equals_signs(calls: Calls, tmp_path: Path) -> None:
    path = tmp_path / "seed=0,sampler=hard" / "a,b=c.csv"
    path.parent.mkdir()
    path.write_text("point,counter\n")
    assert main(["train", "data=pairs", f"data.path={path}", "hydra.run.dir=out"]) == 0
    assert calls[-1][0].data.path == str(path)
    (path.parent / "config.yaml").write_text(to_yaml(calls[-1][0]), encoding="utf-8")
    assert main(["evaluate", f"run={path.parent}", "output=x=1,y=2"]) == 0
    assert (calls[-1][0].run, calls[-1][0].output) == (str(path.parent), "x=1,y=2")


@pytest.mark.parametrize("name", ["here", "seed=0,sampler=hard-1a2b", "it's"])
def test_run_folder_can_be_named(tmp_path: Path, calls: Calls, name: str) -> None:
    assert main(["train", f"hydra.run.dir={tmp_path}/{name}"]) == 0
    assert [folder for _, folder, _ in calls] == [tmp_path / name]


def test_run_folder_that_cannot_be_made_is_refused_in_one_line(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["train", "hydra.run.dir=file/x"]) == 2
    reason = "cannot be written (Not a directory); give another folder"
    assert capsys.readouterr().err == f"negexp: hydra.run.dir=file/x: {reason}\n"
    assert calls == []


def test_sweep_has_a_folder_per_job(tmp_path: Path, calls: Calls) -> None:
    assert main(["train", "-m", "name=both", "sampler=hard,random", "seed=0,1"]) == 0
    jobs = [(config.sampler.name, config.seed) for config, _, _ in calls]
    assert jobs == [("hard", 0), ("hard", 1), ("random", 0), ("random", 1)]
    folders = [folder for _, folder, _ in calls]
    assert {folder.parent for folder in folders} == {tmp_path / "outputs" / "sweeps" / "both"}
    assert len(set(folders)) == 4
    for (sampler, seed), folder in zip(jobs, folders, strict=True):
        assert f"sampler={sampler}" in folder.name
        assert f"seed={seed}" in folder.name


def test_sweep_folder_name_stays_short_enough_for_a_file_system(calls: Calls) -> None:
    path = "/".join(["deep folder"] * 40)
    assert main(["train", "-m", f"name='{path}/a','{path}/b'"]) == 0
    assert len({folder for _, folder, _ in calls}) == 2
    assert all(len(folder.name) <= 120 for _, folder, _ in calls)


def test_job_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = []

    def run(config: TrainConfig, folder: Path, overrides: list[str]) -> None:
        seeds.append(config.seed)
        if config.seed == 0:
            raise InputError("data.path=x: does not exist")

    stub_commands(monkeypatch, run)
    assert main(["train", "-m", "seed=0,1"]) == 2
    assert seeds == [0, 1]
    job, reason = capsys.readouterr().err.removeprefix("negexp: 1 of 2 jobs failed: ").split(": ", 1)
    assert job.startswith("seed=0-")
    assert reason == "data.path=x: does not exist\n"


def test_own_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: TrainConfig, folder: Path, overrides: list[str]) -> None:
        raise ZeroDivisionError("ours")

    stub_commands(monkeypatch, run)
    with pytest.raises(ZeroDivisionError, match="ours"):
        main(["train"])


def test_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(config: TrainConfig, folder: Path, overrides: list[str]) -> None:
        raise KeyboardInterrupt

    stub_commands(monkeypatch, run)
    assert main(["train"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


# --- names that become paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../..", "..", "/etc", "a/b", "a\\b", "a b", "\n\0:*?", "x" * 300, "", "ü", ".hidden"]
)
def test_a_name_cannot_lead_out_of_its_folder(name: str) -> None:
    assert 0 < len(slug(name)) <= 120
    assert not set(slug(name)) & set("/\\: \n\0*?")
    assert not slug(name).startswith(".")
    assert slug(name) == slug(name) != name


def test_names_stay_as_they_are_where_they_can_and_apart_where_not() -> None:
    assert slug("my-run_1.0") == "my-run_1.0"
    names = ["a/b", "a_b", "a:b", "a b", "x" * 300, "x" * 301, "A/b"]
    assert len({slug(name).lower() for name in names}) == len(names)


def test_run_with_a_hostile_name_stays_below_outputs(tmp_path: Path, calls: Calls) -> None:
    assert main(["train", "name='../../etc'"]) == 0
    [(_, folder, _)] = calls
    assert folder.parent.parent == tmp_path / "outputs"


def test_job_folders_tell_configurations_apart_and_stay_readable(calls: Calls) -> None:
    values = "1e-5,2e-5,3e-5"
    assert main(["train", "-m", "sampler=hard,random", f"trainer.lr={values}", "model=minilm"]) == 0
    names = [folder.name for _, folder, _ in calls]
    assert len({name.rsplit("-", 1)[1] for name in names}) == 6
    assert names[0].startswith("model=minilm,sampler=hard,trainer.lr=1e-05-")


def test_job_folder_is_that_of_the_configuration_not_of_the_command(calls: Calls) -> None:
    def digest(*overrides: str) -> str:
        calls.clear()
        assert main(["train", "-m", *overrides]) == 0
        return calls[-1][1].name.rsplit("-", 1)[1]

    plain = digest("seed=0")
    whole = calls[-1][1].name
    assert digest("seed=0", "sampler=decay") == digest("seed=0", "trainer.lr=3e-4") == plain != digest("seed=1")
    digest("seed=0", "resume=must", "name=other", "tracker.progress=never", "checkpoint.keep=5")
    assert calls[-1][1].name == whole


def test_a_signal_is_not_hidden_by_an_error_in_the_code_that_it_interrupts() -> None:
    def cleanup_fails() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)  # the signal arrives here
        finally:
            raise AttributeError("half-done state")

    with pytest.raises(Stopped) as stopped, stops_at_once():
        cleanup_fails()
    assert stopped.value.exit_code == 143
    with pytest.raises(AttributeError), stops_at_once():  # without a signal the error stays
        raise AttributeError
