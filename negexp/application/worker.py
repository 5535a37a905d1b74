"""One of the processes of a job with `trainer.processes`; `workers.py` starts it."""

from __future__ import annotations

import json
import logging.config
import os
import sys
import threading
from pathlib import Path
from typing import Any

from negexp.application.workers import CONFIG, JOB, OUTCOME
from negexp.command import find
from negexp.config import load_run_config
from negexp.errors import InputError
from negexp.signals import Stopped, stops_at_once
from negexp.world import LostProcessError, ToldError, join


def main(exchange: Path) -> int:
    """Do the job that is described in a folder, and return the exit code."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads((exchange / JOB).read_bytes())
    logging.raiseExceptions = False
    logging.config.dictConfig(job["logging"])
    command = find(job["command"])
    config = load_run_config(exchange / CONFIG, kinds=None)
    try:
        with stops_at_once():
            join()
            outcome: dict[str, Any] = {"outcome": command.run(config, Path(job["folder"]), job["overrides"]) or "done"}
            code = 0
    except (ToldError, Stopped, LostProcessError):  # another process says so
        return 1
    except InputError as error:
        outcome, code = {"refused": str(error)}, 2
    (exchange / OUTCOME.format(os.environ["RANK"])).write_text(json.dumps(outcome), encoding="utf-8")
    return code


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: every file is whole or absent."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
