"""Sweeps by launchers of Hydra, in processes of their own: submitit here and through Slurm's commands, and Ray.

There is no Slurm here. `sbatch`, `srun`, `scontrol` and `sacct` are stand-ins that run what submitit gives them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from attempts import differences
from hydra.errors import HydraException
from omegaconf import OmegaConf

from negexp.application.code import refuse_code
from negexp.application.explain import explain
from negexp.application.sweep import Outcome, Sweep
from negexp.errors import InputError, JobsFailedError

SWEEP = ["train", "experiment=smoke", "-m", "trainer.threads=1", "tracker.progress=never"]
LONG = "trainer.epochs=20"  # long enough to be signalled after its second epoch
JOBS = Path("outputs/sweeps/smoke")


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "negexp", *SWEEP, *arguments]
    piped = subprocess.PIPE
    return subprocess.Popen(command, stdout=piped, stderr=piped, text=True, cwd=folder, env=os.environ | environment)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, out, err


def wait_for(found: Callable[[], object]) -> None:
    for _ in range(1200):
        if found():
            return
        time.sleep(0.1)
    raise AssertionError("did not happen within two minutes")


def epochs(folder: Path, seed: int) -> int:
    """Return how many epochs the job of that seed has committed."""
    tables = list((folder / JOBS).glob(f"seed={seed},*/metrics.csv"))
    return len(pd.read_csv(tables[0])) if tables else 0


def job(folder: Path, seed: int) -> Path:
    (found,) = (folder / JOBS).glob(f"seed={seed},*/")
    return found


def outcomes(folder: Path) -> list[str]:
    return pd.read_csv(folder / JOBS / "jobs.csv")["outcome"].tolist()


def task_of_submitit(folder: Path, seed: int) -> int:
    """Return the process that submitit's controller started for the job of that seed."""
    for task in (folder / JOBS / ".submitit").glob("[0-9]*/*_log.out"):
        if f", seed {seed}" in task.read_text():
            controller = int(task.parent.name)
            children = Path(f"/proc/{controller}/task/{controller}/children").read_text()
            return int(children.split()[0])
    raise AssertionError(f"no job of seed {seed}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sweep by Hydra's own launcher: one job, seed 0."""
    folder = tmp_path_factory.mktemp("basic")
    code, _, err = finish(start(folder, LONG, "seed=0"))
    assert code == 0, err
    return folder


@pytest.mark.launchers
def test_a_preempted_job_of_submitit_is_queued_again_and_a_killed_one_is_told_of(
    undisturbed: Path, tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    sweep = ["hydra/launcher=submitit_local", LONG, "seed=0,1"]
    process = start(tmp_path, *sweep)
    wait_for(lambda: epochs(tmp_path, 0) >= 2 and epochs(tmp_path, 1) >= 1)
    preempted, killed = (task_of_submitit(tmp_path, seed) for seed in (0, 1))
    os.kill(preempted, signal.SIGTERM)  # a scheduler sends both, one after the other
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: epochs(tmp_path, 0) >= 3)
    os.kill(preempted, signal.SIGUSR2)
    code, out, err = finish(process)
    assert code == 1
    assert outcomes(tmp_path) == ["continued"]
    assert err.splitlines()[-1].startswith(
        "negexp: 1 of 2 jobs failed: 1 did not come to an end (UncompletedJobError: "
    )
    assert "report of 1 runs in outputs/sweeps/smoke/report/report.html" in out
    assert differences(job(tmp_path, 0), job(undisturbed, 0)) == []
    log = (job(tmp_path, 0) / "train.log").read_text()
    assert (log.count("stopped; the same command goes on"), log.count("going on after epoch")) == (1, 1)
    code, out, err = finish(start(tmp_path, *sweep))
    assert (code, outcomes(tmp_path)) == (0, ["skipped", "continued"])


@pytest.mark.launchers
def test_several_tasks_of_submitit_train_one_run(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"]
    code, out, err = finish(start(tmp_path, *launcher, LONG, "seed=0"))
    assert code == 0, err
    assert outcomes(tmp_path) == ["done"]
    assert "report of 1 runs" in out
    assert ", 2 processes; sampler" in (job(tmp_path, 0) / "train.log").read_text()


SBATCH = """#!/bin/bash
cp "$1" "$SLURM_STAND_IN/batch.sh"
for task in 0 1; do
  (
    export SLURM_JOB_ID=7$task SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task
    export SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1
    while true; do
      bash "$1"
      rm "$SLURM_STAND_IN/requeue-7_$task" || break
    done
    touch "$SLURM_STAND_IN/ended-$task"
  ) >/dev/null 2>&1 &
done
echo "Submitted batch job 7"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do [[ $1 == --unbuffered ]] || shift; shift; done
echo $$ >"$SLURM_STAND_IN/process-$SLURM_ARRAY_TASK_ID"
exec "$@"
"""
SCONTROL = """#!/bin/bash
touch "$SLURM_STAND_IN/$1-$2"
"""
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
for task in 0 1; do
  state=RUNNING; test -e "$SLURM_STAND_IN/ended-$task" && state=COMPLETED
  echo "7_$task|$state|here"
done
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """Return a folder with stand-ins of Slurm's commands."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "sacct": SACCT}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.launchers
def test_slurm_gets_a_batch_script_and_a_job_at_its_time_limit_is_queued_again_as_often_as_allowed(
    undisturbed: Path, slurm: Path, tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    keys = ["partition=short", "timeout_min=5", "max_num_timeout=1", "signal_delay_s=60", "cpus_per_task=2"]
    launcher = ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{key}" for key in keys)]
    launcher.append("hydra.launcher.setup=['export ON_A_NODE=1']")
    found = {"PATH": f"{slurm}:{os.environ['PATH']}", "SLURM_STAND_IN": str(slurm)}
    process = start(tmp_path, *launcher, LONG, "seed=0,1", **found)
    wait_for(lambda: epochs(tmp_path, 0) >= 2)
    first = (slurm / "process-0").read_text()
    os.kill(int(first), signal.SIGUSR2)  # with a limit of 5 minutes, submitit takes every signal for the time limit
    wait_for(lambda: (slurm / "process-0").read_text() not in (first, "") and epochs(tmp_path, 0) >= 5)
    os.kill(int((slurm / "process-0").read_text()), signal.SIGUSR2)
    code, out, err = finish(process)
    assert code == 143, err
    assert outcomes(tmp_path) == ["stopped", "done"]
    assert "report of 1 runs in" in out
    log = (job(tmp_path, 0) / "train.log").read_text()
    assert (log.count("stopped; the same command goes on"), log.count("going on after epoch")) == (2, 1)
    script = (slurm / "batch.sh").read_text().splitlines()
    for flag in ("array=0-1%2", "partition=short", "time=5", "signal=USR2@60", "cpus-per-task=2", "job-name=train"):
        assert f"#SBATCH --{flag}" in script
    assert "export ON_A_NODE=1" in script
    assert sum(line.startswith("srun") and "submitit.core._submit" in line for line in script) == 1
    assert finish(start(tmp_path, LONG, "seed=0,1"))[0] == 0  # by Hydra's own launcher
    assert outcomes(tmp_path) == ["continued", "skipped"]
    assert differences(job(tmp_path, 0), job(undisturbed, 0)) == []


@pytest.mark.launchers
def test_jobs_of_ray_end_with_the_report(undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    ray = [
        "hydra/launcher=ray",
        "+hydra.launcher.ray.init.include_dashboard=false",
        "+hydra.launcher.ray.init.num_cpus=1",
    ]
    code, out, err = finish(start(tmp_path, *ray, LONG, "seed=0,1"))
    assert code == 0, err
    assert outcomes(tmp_path) == ["done", "done"]
    assert "report of 2 runs in outputs/sweeps/smoke/report/report.html" in out
    assert differences(job(tmp_path, 0), job(undisturbed, 0)) == []


def test_a_sweep_names_stopped_jobs_after_failed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(*found: tuple[str, bool], jobs: int) -> tuple[str, int]:
        outcomes = [Outcome(n, f"job{n}", "s", kind, 1.0, f"why{n}", defect) for n, (kind, defect) in enumerate(found)]
        with pytest.raises(JobsFailedError) as raised:
            Sweep(jobs).raise_failures(outcomes, None)
        return str(raised.value), raised.value.exit_code

    monkeypatch.chdir(tmp_path)
    stopped, failed, done = ("stopped", False), ("failed", False), ("done", False)
    assert error(stopped, done, jobs=2) == ("1 of 2 jobs stopped: job0: why0", 143)
    assert error(stopped, failed, done, jobs=3)[0].startswith("2 of 3 jobs failed: job1: why1; and 1 more, see")
    assert error(stopped, failed, done, jobs=3)[1] == 2
    assert error(stopped, ("failed", True), jobs=2)[1] == 1
    missing = "2 did not come to an end (killed, or out of memory); run the command again"
    assert error(done, jobs=3) == (f"2 of 3 jobs failed: {missing}", 1)
    Sweep(3).raise_failures([Outcome(0, "", "s", kind, 1.0) for kind in ("done", "continued", "skipped")], None)


@pytest.mark.parametrize(
    ("launcher", "extra"),
    [("joblib", "joblib"), ("ray", "ray"), ("submitit_local", "submitit"), ("submitit_slurm", "submitit")],
)
def test_a_launcher_that_is_not_installed_names_the_extra(launcher: str, extra: str) -> None:
    said = explain(HydraException(f"Could not find 'hydra/launcher/{launcher}'"))
    assert said.endswith(
        f"'hydra/launcher/{launcher}'; it comes with negexp's extra `{extra}`: pip install '.[{extra}]'"
    )


def refuse_launcher(launcher: str, *overrides: str) -> str:
    config = OmegaConf.create(f"name: x\nhydra:\n  job: {{name: ''}}\n  launcher: {launcher}\n")
    for node in ("sweeper", "callbacks", "job_logging", "hydra_logging"):
        config.hydra[node] = {}
    try:
        refuse_code(config.hydra, overrides)
    except InputError as error:
        return str(error)
    return ""


def test_commands_of_a_launcher_come_from_the_command_line_only() -> None:
    setup = "{setup: [module load cuda], partition: short}"
    assert refuse_launcher(setup).startswith("hydra.launcher.setup[0]=module load cuda: a launcher may run it")
    assert refuse_launcher(setup, "hydra.launcher.setup_it=1") != ""
    assert refuse_launcher(setup, "hydra.launcher.setup=['module load cuda']") == ""
    nested = "{additional_parameters: {export: LD_PRELOAD=x, mail-type: END}}"
    assert "additional_parameters.export" in refuse_launcher(
        nested, "+hydra.launcher.additional_parameters.mail-type=END"
    )
    assert "runtime_env" in refuse_launcher("{ray: {init: {runtime_env: {working_dir: /x}}}}")
    assert (
        refuse_launcher("{setup: null, additional_parameters: {}, partition: short, ray: {init: {num_cpus: 1}}}") == ""
    )


def test_a_line_more_in_a_batch_script_is_refused() -> None:
    assert "has several lines" in refuse_launcher('{comment: "a\\nrm -r x"}')
    assert refuse_launcher("{name: '${hydra.job.name}', submitit_folder: '${name}/%j'}") == ""
    config = OmegaConf.create({"hydra": {"job": {"name": "a\nrm -r x"}, "launcher": {"name": "${hydra.job.name}"}}})
    for node in ("sweeper", "callbacks", "job_logging", "hydra_logging"):
        config.hydra[node] = {}
    with pytest.raises(InputError, match="has several lines"):
        refuse_code(config.hydra, [])
