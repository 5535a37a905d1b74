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
CONFIG, JOB, OUTCOME = "config.yaml", "job.json", "outcome.json"  # what goes to the workers, and comes back


def run_in_processes(command: str, config: TrainConfig, folder: Path, overrides: Sequence[str], count: int) -> str:
    """Start workers, wait until all have ended, and return the outcome of the job.

    Raises
    ------
    InputError
        What the main worker refuses.
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
        try:
            _wait(workers)
        finally:
            _stop(workers)
        outcome = exchange / OUTCOME
        found = json.loads(outcome.read_bytes()) if outcome.exists() else {}
    if "refused" in found:
        raise InputError(found["refused"])
    ended = [f"process {rank} with code {one.returncode}" for rank, one in enumerate(workers) if one.returncode]
    if ended:
        raise LostProcessError(f"{', '.join(ended)} ended early; the same command goes on")
    return str(found["outcome"])


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
    """Wait until all workers have ended, or one of them with an error."""
    while any(worker.poll() is None for worker in workers):
        if any(worker.returncode for worker in workers):
            return
        time.sleep(0.05)


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let the workers finish their step, and wait for them."""
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    latest = time.monotonic() + LONGEST_STOP
    for worker in workers:
        try:
            worker.wait(max(0.0, latest - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        if worker.stdin is not None:
            worker.stdin.close()
