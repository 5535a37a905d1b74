"""Jobs: Hydra calls one for each configuration, in this process or another. A sweep collects their outcomes."""

from __future__ import annotations

import gc
import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import negexp.application.names  # noqa: F401  # a launcher's process needs the resolvers
from negexp.application.compose import configure
from negexp.application.workers import run_in_processes
from negexp.command import find
from negexp.errors import InputError, JobsFailedError
from negexp.signals import Stopped, stops_at_once
from negexp.tracking.files import shown, write_bytes, write_csv
from negexp.world import LostProcessError, current, join

log = logging.getLogger("negexp")

OUTCOMES = ("done", "continued", "skipped", "failed", "stopped")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job; `reason` says in one line why it failed or stopped, `defect` whether negexp is to blame."""

    number: int
    job: str
    sweep: str
    outcome: str
    seconds: float
    reason: str = ""
    defect: bool = False


@dataclass
class Job:
    """Called by Hydra with each job's configuration; launchers that start processes pickle it.

    A job of a sweep never raises, because Hydra would drop the jobs after it. It writes its outcome into `inbox`.
    """

    command: str
    inbox: Path | None = None
    raised: Exception | None = None  # by a single run; what is told in one line is only kept: Hydra would add lines

    def __call__(self, config: DictConfig) -> None:
        """Run one job."""
        logging.raiseExceptions = False  # also in a launcher's process: a closed pipe or a full disk ends no job
        if self.inbox is not None:
            self._run_in_sweep(config, self.inbox)
            return
        try:
            self._run(config)
        except (InputError, LostProcessError) as error:
            self.raised = error
        except Exception as error:
            self.raised = error
            raise

    def _run(self, config: DictConfig) -> str:
        world = join()  # a launcher may have started several processes for this job
        hydra = HydraConfig.get()
        overrides = list(hydra.overrides.task)
        command = find(self.command)
        parsed, folder = configure(command, config, overrides), Path(hydra.runtime.output_dir)
        processes = 1 if command.processes is None else command.processes(parsed)
        if processes > 1 and world.size == 1:
            return run_in_processes(self.command, parsed, folder, overrides, processes)
        return command.run(parsed, folder, overrides) or "done"

    def _run_in_sweep(self, config: DictConfig, inbox: Path) -> None:
        started, outcome, reason, defect = time.perf_counter(), "stopped", "", False
        stopped: Stopped | None = None
        try:
            with stops_at_once():
                outcome = self._run(config)
        except Stopped as stop:
            stopped, reason = stop, f"stopped by {stop.name}; the same command goes on"
        except (InputError, LostProcessError) as error:
            outcome, reason = "failed", str(error)
            log.error(reason)  # into the job's log
        except Exception as error:
            outcome, reason, defect = "failed", f"{_first_line(error)} (a defect, see the job's log)", True
            log.exception("a defect of negexp, not of your input")
        finally:
            hydra = HydraConfig.get()
            job, sweep, seconds = str(hydra.sweep.subdir), shown(Path(hydra.sweep.dir)), time.perf_counter() - started
            found = Outcome(hydra.job.num, job, sweep, outcome, seconds, reason, defect)
            if current().main:
                with suppress(InputError):  # a full disk: the sweep then reports a job without an outcome
                    write_bytes(inbox / f"{found.number}.json", json.dumps(asdict(found)).encode())
        # here the exceptions are deleted, and with them the model and the embeddings that their tracebacks held
        _free_memory()
        if stopped is not None:
            _pass_on(stopped.number)


def _pass_on(number: int) -> None:
    """Give a signal that stopped a job to the owner of the process.

    negexp's command line then ends the sweep. A process of submitit puts its job into the queue again and exits. Where
    it may not, it raises an error, and its launcher would not wait for the other jobs; so this job returns instead.
    """
    with suppress(Exception):  # `Stopped`, SystemExit and KeyboardInterrupt are none
        signal.raise_signal(number)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _inbox() -> tempfile.TemporaryDirectory[str]:
    """Return a folder below `outputs/`, which jobs on other machines of a cluster see too; else a temporary one."""
    try:
        Path("outputs").mkdir(exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".sweep-", dir=Path("outputs").resolve())
    except OSError:
        return tempfile.TemporaryDirectory(prefix="negexp-sweep-")


@dataclass
class Sweep:
    """A sweep and its inbox, into which its jobs write their outcomes, in whatever process they run."""

    jobs: int | None  # None: the sweeper chooses the jobs while it runs
    folder: tempfile.TemporaryDirectory[str] = field(default_factory=_inbox)

    @property
    def inbox(self) -> Path:
        """Return the folder of outcomes."""
        return Path(self.folder.name)

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes so far, in the order of the jobs."""
        found = [Outcome(**json.loads(path.read_bytes())) for path in self.inbox.glob("*.json")]
        return sorted(found, key=lambda outcome: outcome.number)

    def finish(self) -> list[Outcome]:
        """Write the table of outcomes as `jobs.csv` into the folder of the sweep, and print it."""
        import pandas as pd

        outcomes = self.outcomes()
        for sweep in sorted({outcome.sweep for outcome in outcomes}):
            own = [outcome for outcome in outcomes if outcome.sweep == sweep]
            table = pd.DataFrame([asdict(outcome) for outcome in own]).drop(columns="sweep")
            write_csv(Path(sweep) / "jobs.csv", table)
            print(_table(sweep, own))
        return outcomes

    def raise_failures(self, outcomes: Sequence[Outcome], launcher: Exception | None) -> None:
        """Raise `JobsFailedError` when a job failed, ended without an outcome, or was stopped in another process."""
        ended = ("done", "continued", "skipped")
        unfinished = [outcome for outcome in outcomes if outcome.outcome not in ended]
        failed = [outcome for outcome in unfinished if outcome.outcome == "failed"]
        missing = 0 if self.jobs is None else self.jobs - len(outcomes)
        reasons = [f"{one.job}: {one.reason}" for one in sorted(unfinished, key=lambda one: one.outcome)]
        if missing or launcher is not None:
            why = "killed, or out of memory" if launcher is None else _first_line(launcher)
            reasons.append(f"{missing} did not come to an end ({why}); run the command again")
        if reasons:
            total = self.jobs or len(outcomes)
            defect = launcher is not None or missing > 0 or any(one.defect for one in failed)
            first, more = reasons[0], len(reasons) - 1
            message = (
                f"{len(unfinished) + missing} of {total} jobs {'failed' if failed or defect else 'stopped'}: {first}"
            )
            message += f"; and {more} more, see jobs.csv beside the jobs" if more else ""
            raise JobsFailedError(message, exit_code=1 if defect else 2 if failed else 143)


def _table(sweep: str, outcomes: Sequence[Outcome]) -> str:
    counts = [(name, sum(one.outcome == name for one in outcomes)) for name in OUTCOMES]
    told = ", ".join(f"{count} {name}" for name, count in counts if count)
    lines = [f"\nsweep {sweep}: {told}", f"{'outcome':<10}{'seconds':>9}  job"]
    for one in outcomes:
        lines.append(f"{one.outcome:<10}{one.seconds:>9.1f}  {one.job}{': ' if one.reason else ''}{one.reason}")
    return "\n".join(lines)
