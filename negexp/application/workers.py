"""Run a job in several processes of this machine, as torchrun would (`trainer.processes`)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from negexp.config import TrainConfig, to_yaml
from negexp.errors import InputError
from negexp.world import LostProcessError

LONGEST_STOP = 60.0  # seconds that a process may take to finish its step before it is killed
LAST_WORDS = 2.0  # seconds in which the others say what was wrong, after one has ended with an error
LONGEST_WAIT = 10.0  # the same after another one has ended: it may wait for that one on a GPU
CONFIG, JOB = "config.yaml", "job.json"  # what goes to the workers
OUTCOME = "outcome-{}.json"  # what comes back from each of them, by rank


def run_in_processes(command: str, config: TrainConfig, folder: Path, overrides: Sequence[str], count: int) -> str:
    """Start workers, wait until all have ended, and return the outcome of the job.

    Raises
    ------
    InputError
        What a worker refuses.
    LostProcessError
        When a worker ended early; the others are stopped.
    """
    with tempfile.TemporaryDirectory(prefix="negexp-job-") as name:
        exchange = Path(name)
        logging: Any = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
        job = {"command": command, "folder": str(folder), "overrides": list(overrides), "logging": logging}
        (exchange / CONFIG).write_text(to_yaml(config), encoding="utf-8")
        (exchange / JOB).write_text(json.dumps(job), encoding="utf-8")
        threads = config.trainer.threads or max(1, (os.cpu_count() or 1) // count)
        workers = _start(exchange, count, threads)
        patience = LONGEST_STOP
        try:
            _wait(workers)
            patience = LONGEST_WAIT
        finally:
            _stop(workers, patience)
        files = [exchange / OUTCOME.format(rank) for rank in range(count)]
        found = [json.loads(file.read_bytes()) for file in files if file.exists()]
    refused = next((one["refused"] for one in found if "refused" in one), None)
    if refused is not None:
        raise InputError(refused)
    ended = [f"process {rank} with code {one.returncode}" for rank, one in enumerate(workers) if one.returncode]
    if ended:
        raise LostProcessError(f"{', '.join(ended)} ended early; the same command goes on")
    return str(found[0]["outcome"])


def _start(exchange: Path, count: int, threads: int) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    shared["LOCAL_WORLD_SIZE"] = str(count)
    shared["OMP_NUM_THREADS"] = str(threads)  # else each process takes all cores
    return [
        subprocess.Popen(
            [sys.executable, "-m", "negexp.application.worker", str(exchange)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,  # closed when this process dies; then the worker ends too
            start_new_session=True,  # Ctrl-C goes to this process, which stops the workers
        )
        for rank in range(count)
    ]


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all workers have ended, or one of them with an error; the others may then end by themselves."""
    latest = float("inf")
    while any(worker.poll() is None for worker in workers) and time.monotonic() < latest:
        if any(worker.returncode for worker in workers):
            latest = min(latest, time.monotonic() + LAST_WORDS)
        time.sleep(0.05)


def _stop(workers: Sequence[subprocess.Popen[bytes]], patience: float) -> None:
    """Let the workers finish their step, and wait for them as many seconds."""
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    latest = time.monotonic() + patience
    for worker in workers:
        try:
            worker.wait(max(0.0, latest - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        if worker.stdin is not None:
            worker.stdin.close()
