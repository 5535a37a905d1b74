"""Several processes train one run: the same negatives and ranks as one process, and losses equal to rounding.

The processes are started here as torchrun starts them, with its variables; one test uses torchrun itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from attempts import contents
from conftest import compose_train

from negexp.application import workers
from negexp.cli import main
from negexp.errors import InputError

pytestmark = pytest.mark.processes

COMMON = ["experiment=smoke", "model.dropout=0", "trainer.precision=float32", "trainer.threads=1"]
LONGEST = 120  # seconds until a test gives up
NEEDS_FAISS = pytest.mark.skipif(find_spec("faiss") is None, reason="needs the extra faiss")


class Processes:
    """The processes of one run, with their output."""

    def __init__(self, count: int, overrides: list[str], folders: list[Path]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.started = [
            subprocess.Popen(
                [sys.executable, "-m", "negexp", *overrides],
                cwd=folders[rank % len(folders)],
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(count)
        ]

    def end(self) -> list[tuple[int, str, str]]:
        """Wait; return code, standard output and errors of each process."""
        output = [process.communicate(timeout=LONGEST) for process in self.started]
        return [(process.returncode, *texts) for process, texts in zip(self.started, output, strict=True)]


def train(count: int, folder: Path, *overrides: str) -> None:
    """Train into a folder with some processes."""
    command = ["train", *COMMON, *overrides, f"hydra.run.dir={folder}"]
    ended = Processes(count, command, [folder.parent]).end()
    assert [code for code, _, _ in ended] == [0] * count, ended
    assert all(not out and not errors for _, out, errors in ended[1:]), "only the main process speaks"


def assert_equal_runs(one: Path, several: Path) -> None:
    """Assert that negatives and ranks are equal, distances and losses to rounding."""
    names = sorted(path.relative_to(one) for path in one.glob("*/*.parquet"))
    assert names == sorted(path.relative_to(several) for path in several.glob("*/*.parquet"))
    for name in names:
        before, after = pd.read_parquet(one / name), pd.read_parquet(several / name)
        inexact = before.select_dtypes("float").columns
        pd.testing.assert_frame_equal(before.drop(columns=inexact), after.drop(columns=inexact))
        np.testing.assert_allclose(after[inexact], before[inexact], atol=1e-5)
    before, after = (pd.read_csv(folder / "metrics.csv").filter(regex="^(?!seconds)") for folder in (one, several))
    pd.testing.assert_frame_equal(before, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "overrides"),
    [
        (2, "loss=info_nce_listwise sampler=hard sampler.num_negatives=2 index=exact"),
        (2, "loss=triplet_ce sampler=decay trainer.gradient_clip=0.1 trainer.average=last"),
        (
            4,
            "loss=info_nce loss.learn_temperature=true loss.directions=[query_to_counter,counter_to_query] "
            "batch=debates model.shared_encoder=false model.query_head=residual sampler=mixed trainer.accumulation=2 "
            "sampler.refresh.steps=1",
        ),
        (
            2,
            "loss=info_nce model.reranker=cross trainer.monitor=clean/retrieval/epa/accuracy@1 sampler=static "
            "trainer.chunk_pairs=3 trainer.batch_size=8",
        ),
        (2, "loss=info_nce sampler=random model.freeze_encoder=true model.query_head=residual"),
        (2, "loss=info_nce sampler=bm25 mining=window sampler.mining.low=0 sampler.mining.high=4"),
        (4, "loss=info_nce sampler=scheduled schedule@sampler.random_rate=cosine sampler.refresh.drift=0.0001"),
        pytest.param(2, "loss=info_nce sampler=hard index=faiss", marks=NEEDS_FAISS),
    ],
)
def test_several_processes_give_what_one_gives(tmp_path: Path, count: int, overrides: str) -> None:
    train(1, tmp_path / "one", *overrides.split())
    train(count, tmp_path / "several", *overrides.split())
    assert_equal_runs(tmp_path / "one", tmp_path / "several")


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    overrides = ["sampler=hard", "loss=info_nce"]
    train(1, tmp_path / "one", *overrides, "trainer.epochs=4")
    for epochs, count in enumerate((2, 1, 4, 2), start=1):
        train(count, tmp_path / "changing", *overrides, f"trainer.epochs={epochs}")
    assert_equal_runs(tmp_path / "one", tmp_path / "changing")


def test_hosts_share_no_folder(tmp_path: Path) -> None:
    hosts = [tmp_path / "first", tmp_path / "second"]
    for host in hosts:
        host.mkdir()
    for epochs in (1, 2):  # the second time, they go on from the first host's commit
        command = ["train", *COMMON, f"trainer.epochs={epochs}", "hydra.run.dir=run"]
        assert [code for code, _, _ in Processes(2, command, hosts).end()] == [0, 0]
    assert (hosts[0] / "run" / "result.json").exists()
    assert not list(hosts[1].iterdir())
    train(2, tmp_path / "one_host", "trainer.epochs=2")
    assert contents(hosts[0] / "run") == contents(tmp_path / "one_host")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_and_the_same_command_goes_on(tmp_path: Path, killed: int) -> None:
    train(2, tmp_path / "undisturbed", "trainer.epochs=6")
    command = ["train", *COMMON, "trainer.epochs=6", f"hydra.run.dir={tmp_path / 'run'}"]
    rng = np.random.default_rng(killed)
    for attempt in range(2):
        processes = Processes(2, command, [tmp_path])
        wait_for(partial(has_met, tmp_path / "run", attempt + 1), processes.started[0])
        time.sleep(rng.uniform(0, 1.5))
        if processes.started[killed].poll() is None:
            processes.started[killed].kill()
            code, _, errors = processes.end()[1 - killed]
            assert code in (0, 1), errors  # 0: the run was over
            if code == 1:
                assert errors.splitlines()[-1].startswith("negexp: another process of this run has ended"), errors
                assert "Traceback" not in errors
        else:
            processes.end()
    train(2, tmp_path / "run", "trainer.epochs=6")
    assert contents(tmp_path / "run") == contents(tmp_path / "undisturbed")


def has_met(run: Path, times: int) -> bool:
    """Return whether two processes have met for a run so many times."""
    log = run / "train.log"
    return log.exists() and log.read_text().count(", 2 processes;") >= times


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a condition holds, or the process has ended."""
    while not condition() and process.poll() is None:
        time.sleep(0.02)


def test_torchrun_stops_all_processes_at_the_same_step(tmp_path: Path) -> None:
    options = ["--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "negexp", "train", *COMMON]
    command += ["trainer.epochs=200", f"hydra.run.dir={tmp_path / 'run'}"]
    launched = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for((tmp_path / "run" / "metrics.csv").exists, launched)
    launched.send_signal(signal.SIGTERM)
    output = launched.communicate(timeout=LONGEST)[0]
    assert launched.returncode != 0
    assert "negexp: stopped by SIGTERM" in output, output
    epochs = len(pd.read_csv(tmp_path / "run" / "metrics.csv"))
    assert 0 < epochs < 200
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train", "data=pairs", "data.path=absent.csv"], "data.path=absent.csv"),
        (["train", "experiment=smoke", "sampler=hardest"], "sampler/hardest"),
        (["train", "experiment=smoke", "-m", "seed=0,1"], "-m: WORLD_SIZE=2"),
        (["report", "runs=outputs"], "WORLD_SIZE=2: negexp report runs in one process"),
        (["train", "experiment=smoke", "resume=must"], "resume=must"),
    ],
)
def test_a_wrong_input_is_one_line_of_one_process(tmp_path: Path, overrides: list[str], message: str) -> None:
    ended = Processes(2, overrides, [tmp_path]).end()
    assert [code for code, _, _ in ended] == [2, 2], ended
    assert message in ended[0][2]
    assert ended[0][2].count("\n") == 1
    assert ended[1][2] == ""


def test_variables_that_fit_no_process_are_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert main(["train", "experiment=smoke"]) == 2
    assert "RANK=0, WORLD_SIZE=two" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_negexp_starts_the_processes_itself(tmp_path: Path) -> None:
    train(2, tmp_path / "torchrun", "sampler=hard")
    command = [sys.executable, "-m", "negexp", "train", *COMMON, "sampler=hard", "trainer.processes=2"]
    run = subprocess.run([*command, "hydra.run.dir=run"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ", 2 processes;" in run.stdout
    assert run.stderr == ""
    ours, theirs = contents(tmp_path / "run"), contents(tmp_path / "torchrun")
    others = {"config.yaml", "result.json"}  # they name trainer.processes
    assert {name for name in ours if ours[name] != theirs[name]} <= others
    again = [*command, "hydra.run.dir=run", "resume=never"]
    refused = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "resume=never" in refused.stderr


def test_what_a_worker_refuses_is_said_whichever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second worker refuses its input, and the first one waits for it."""

    def start(exchange: Path, count: int, threads: int) -> list[subprocess.Popen[bytes]]:
        program = (
            "import sys, time; from unittest.mock import Mock; from pathlib import Path; "
            "from negexp.application import worker; from negexp.errors import InputError; "
            "worker.join = worker._end_with_parent = Mock(); "
            "worker.load_run_config = Mock(); worker.find = Mock(); worker.find().run = run = Mock(); "
            "wrong = InputError('lower the batch size'); "
            "run.side_effect = wrong if sys.argv[2] == '1' else lambda *_: time.sleep(60); "
            "sys.exit(worker.main(Path(sys.argv[1])))"
        )
        return [
            subprocess.Popen(
                [sys.executable, "-c", program, str(exchange), str(rank)],
                env={**os.environ, "RANK": str(rank)},
                stdin=subprocess.PIPE,
            )
            for rank in range(count)
        ]

    monkeypatch.setattr(workers, "_start", start)
    monkeypatch.setattr(workers, "HydraConfig", Mock(get=lambda: Mock(job_logging={"version": 1})))
    monkeypatch.setattr(workers, "OmegaConf", Mock(to_container=lambda config, resolve: config))
    with pytest.raises(InputError, match="lower the batch size"):
        workers.run_in_processes("train", compose_train("experiment=smoke"), tmp_path, [], 2)


@pytest.mark.parametrize("gone", ["starter", "worker"])
def test_processes_that_negexp_started_end_together(tmp_path: Path, gone: str) -> None:
    command = [sys.executable, "-m", "negexp", "train", *COMMON, "trainer.epochs=300", "trainer.processes=2"]
    starter = subprocess.Popen(
        [*command, "hydra.run.dir=run"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for((tmp_path / "run" / "metrics.csv").exists, starter)
    workers = [int(one) for one in Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()]
    assert len(workers) == 2
    os.kill(starter.pid if gone == "starter" else workers[1], signal.SIGKILL)
    _, errors = starter.communicate(timeout=LONGEST)
    if gone == "worker":
        assert starter.returncode == 1
        assert "process 1 with code -9" in errors.splitlines()[-1]
        assert "Traceback" not in errors
    latest = time.monotonic() + LONGEST
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < latest
        time.sleep(0.05)
