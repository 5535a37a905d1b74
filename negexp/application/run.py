"""One command: check flags and overrides, compose and check every job's configuration, then let Hydra run it."""

from __future__ import annotations

import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from negexp.application.code import refuse_code
from negexp.application.compose import (
    accept_key,
    compose_or_explain,
    config_dir,
    configure,
    quote_path,
    quote_text,
)
from negexp.application.help import command_help
from negexp.application.plugins import register_search_path
from negexp.application.sweep import Job, Outcome, Sweep
from negexp.command import find
from negexp.config import CONF_DIR
from negexp.errors import InputError
from negexp.nearest import did_you_mean
from negexp.world import join, started


def run_command(command: str, arguments: list[str]) -> None:
    """Compose and check the configuration of the command of that name, then run it: once, or as a sweep of jobs."""
    logging.raiseExceptions = False  # print no traceback when a log cannot be written, as on a full disk
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray's launcher reports each use to Ray's makers
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its errors and exits with 1, instead of raising them
    register_search_path()
    parser = get_args_parser()
    parser.error = partial(_refuse_flag, parser)  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(arguments)
    flags = [argument for argument in arguments if argument not in args.overrides]
    if not args.multirun:
        args.overrides = [quote_path(override, find(command).paths) for override in args.overrides]
        args.overrides = [quote_text(override, find(command).texts) for override in args.overrides]
    args.overrides = [accept_key(override, find(command).completed) for override in args.overrides]
    sys.argv = ["negexp", *args.overrides, *flags]  # Hydra parses again; it misreads flags between overrides
    _check_flags(command, args)
    jobs: int | None = 1
    if args.help:
        print(_help(command, args))
        return
    if not (args.hydra_help or args.cfg or args.info or args.shell_completion):
        jobs = _check_jobs(command, args)
    elif args.cfg or args.info:
        with config_dir(command, args) as (name, overrides):
            compose_or_explain(name, overrides)
    _meet(command, args)
    if args.multirun:
        _run_sweep(command, jobs)
    else:
        _run_once(command)


def _meet(command: str, args: Namespace) -> None:
    """Join the other processes that torchrun has started; all but the main one write elsewhere."""
    processes = started()[1]
    if processes > 1 and find(command).processes is None:
        raise InputError(f"WORLD_SIZE={processes}: negexp {command} runs in one process; start it without torchrun")
    if processes > 1 and args.multirun:
        raise InputError(
            f"-m: WORLD_SIZE={processes}: several processes run one job; start a sweep without torchrun, with "
            "trainer.processes=N"
        )
    world = join()
    if not world.main:
        own = quote_path(f"hydra.run.dir={world.own_folder(Path())}", find(command).paths)
        sys.argv.insert(1 + len(args.overrides), own)  # the last override of a key counts


def _help(command: str, args: Namespace) -> str:
    with config_dir(command, args) as (name, overrides):
        return command_help(command, compose_or_explain(name, overrides, return_hydra_config=True))


def _run_once(command: str) -> None:
    job = Job(command)
    try:
        _run_hydra(command, job)
    except OSError as error:
        if job.raised is not None:
            raise
        if error.filename is None:  # Hydra prints, for --cfg
            raise InputError(f"standard output cannot be written ({error.strerror})") from None
        # Hydra could not make the folder or open the log
        reason = f"cannot be written ({error.strerror}); give another folder"
        raise InputError(f"hydra.run.dir={error.filename}: {reason}") from None
    if job.raised is not None:
        raise job.raised


def _run_sweep(command: str, jobs: int | None) -> None:
    """Run all jobs, print their outcomes, and run the command's `after_sweep` on the folder of the sweep."""
    sweep, launcher = Sweep(jobs), None
    try:
        _run_hydra(command, Job(command, sweep.inbox))
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception as error:  # a job never raises: Hydra or the launcher failed (no folder, a killed process)
        launcher = error
    finally:
        outcomes = sweep.finish()
    after_sweep = find(command).after_sweep
    if after_sweep is not None:
        _run_after_sweep(after_sweep, outcomes)
    sweep.raise_failures(outcomes, launcher)


def _run_after_sweep(name: str, outcomes: list[Outcome]) -> None:
    """Run a command as `negexp NAME runs=FOLDER` on the folder of every sweep that has outcomes."""
    command = find(name)
    for folder in sorted({outcome.sweep for outcome in outcomes}):
        overrides = [quote_path(f"runs={folder}", command.paths)]
        with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
            config = configure(command, compose(name, overrides), overrides)
        try:
            command.run(config, Path(folder), overrides)
        except InputError as error:  # no job finished; the reasons of the jobs follow
            print(f"no {name} of the sweep: {error}")


def _run_hydra(command: str, job: Job) -> None:
    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=command)(job)()


def _check_flags(command: str, args: Namespace) -> None:
    """Raise `InputError` where Hydra would print a traceback or several lines."""
    if args.experimental_rerun is not None:
        raise InputError("--experimental-rerun: reads a pickle, which can run code; give the overrides instead")
    if args.multirun and not find(command).sweeps:
        usage = "; usage: ".join(["", *find(command).usage[:1]])
        raise InputError(f"--multirun: negexp {command} is no sweep{usage}")
    actions = [flag for flag in ("run", "multirun", "cfg", "info", "shell-completion") if _given(args, flag)]
    if len(actions) > 1:
        raise InputError(f"--{' --'.join(actions)}: only one of them at a time")
    for flag in ("config-dir", "config-path"):
        folder = _given(args, flag)
        if folder is not None and not Path(folder).is_dir():
            raise InputError(f"--{flag}={folder}: no such folder")
    for override in args.overrides:
        if override.lstrip("+~").startswith("hydra.sweeper.params"):
            raise InputError(f"{override}: sweep by giving values with commas and -m, as in seed=0,1 -m")


def _given(args: Namespace, flag: str) -> Any:
    return getattr(args, flag.replace("-", "_"))


def _refuse_flag(parser: ArgumentParser, message: str) -> NoReturn:
    """Raise `InputError` in one line, where argparse would print its whole usage."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    wrong = message.removeprefix("unrecognized arguments: ").split(" ")[0].partition("=")[0]
    raise InputError(f"{message}{did_you_mean(wrong, flags) or '; --help lists the flags'}")


def _check_jobs(command: str, args: Namespace) -> int | None:
    """Parse the configuration of every job, so that a mistake costs no time and leaves no folder behind.

    Returns the number of jobs; None when the sweeper chooses them while it runs.
    """
    with config_dir(command, args) as (name, overrides):
        if not args.multirun:
            config = compose_or_explain(name, overrides, return_hydra_config=True)
            refuse_code(config.hydra, overrides)
            if config.hydra.mode is not None and config.hydra.mode != RunMode.RUN:
                raise InputError(f"hydra.mode={config.hydra.mode.name}: give -m instead")
            configure(find(command), config, overrides)
            return 1
        parsed = OverridesParser.create().parse_overrides(overrides)
        fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
        config = compose_or_explain(name, fixed, return_hydra_config=True)  # an overlay may bring a sweep of its own
        refuse_code(config.hydra, fixed)
        if not config.hydra.sweeper._target_.endswith("BasicSweeper"):
            return None  # another sweeper chooses its jobs while it runs; each is then checked as it starts
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        parsed = OverridesParser.create().parse_overrides(params) + parsed
        jobs = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
        for job in jobs:
            config = compose_or_explain(name, job, return_hydra_config=True)
            refuse_code(config.hydra, job)
            configure(find(command), config, job)
        return len(jobs)
