"""One command: flags and overrides checked, every job's configuration composed and checked, then run by Hydra."""

from __future__ import annotations

import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from negexp.application.code import refuse_code
from negexp.application.explain import explain
from negexp.application.parsers import PARSERS
from negexp.application.plugins import register_search_path
from negexp.application.sweep import Job, Sweep, write_sweep_report
from negexp.config import CONF_DIR, parse_report
from negexp.errors import InputError
from negexp.nearest import did_you_mean

PATHS = ("runs", "run", "output", "data.path", "model.pretrained", "hydra.run.dir")  # keys whose values are paths


def run_command(command: str, arguments: list[str]) -> None:
    """Compose and check `command`'s configuration, then run it: once, or as every job of a sweep."""
    logging.raiseExceptions = False  # a log that cannot be written, as on a full disk, is no reason for tracebacks
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors to us instead of printing them and exiting with 1
    register_search_path()
    parser = get_args_parser()
    parser.error = partial(_refuse_flag, parser)  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(arguments)
    flags = [argument for argument in arguments if argument not in args.overrides]
    if not args.multirun:
        args.overrides = [_quote_path(override) for override in args.overrides]
    sys.argv = ["negexp", *args.overrides, *flags]  # Hydra parses again, and takes flags between overrides amiss
    _check_flags(command, args)
    jobs: int | None = 1
    if not (args.help or args.hydra_help or args.cfg or args.info or args.shell_completion):
        jobs = _check_jobs(command, args)
    elif args.cfg or args.info or args.help:
        with _config_dir(command, args) as (name, overrides):
            _compose(name, overrides)
    if args.multirun:
        _run_sweep(command, jobs)
        return
    job = Job(command)
    try:
        _run_hydra(command, job)
    except OSError as error:
        if job.raised is not None:
            raise
        if error.filename is None:  # Hydra prints, for --help and --cfg
            raise InputError(f"standard output cannot be written ({error.strerror})") from None
        # Hydra makes the folder and opens the log
        reason = f"cannot be written ({error.strerror}); give another folder"
        raise InputError(f"hydra.run.dir={error.filename}: {reason}") from None
    if job.raised is not None:
        raise job.raised


def _run_sweep(command: str, jobs: int | None) -> None:
    """Run all jobs, print what became of them, and write the report of what they finished."""
    sweep, launcher = Sweep(jobs), None
    try:
        _run_hydra(command, Job(command, sweep.inbox))
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception as error:  # a job never raises, so this is Hydra's or the launcher's: no folder, a killed process
        launcher = error
    finally:
        outcomes = sweep.finish()
    if command == "train":
        for folder in sorted({outcome.sweep for outcome in outcomes}):
            with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
                config = parse_report(compose("report", [_quote_path(f"runs={folder}")]))
            write_sweep_report(config)
    sweep.raise_failures(outcomes, launcher)


def _run_hydra(command: str, job: Job) -> None:
    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=command)(job)()


def _quote_path(argument: str) -> str:
    """Quote a path for Hydra, whose grammar takes commas for a sweep, and stars and equals signs for an error."""
    key, equals, value = argument.partition("=")
    if key not in PATHS or not value or value[0] in "'\"" or value == "null":
        return argument
    escaped = value.replace("\\", "\\\\").replace("'", "\\'") if "'" in value else value
    return f"{key}{equals}'{escaped}'"


def _check_flags(command: str, args: Namespace) -> None:
    """Refuse what Hydra would answer with a traceback or with several lines."""
    if args.experimental_rerun is not None:
        raise InputError("--experimental-rerun: reads a pickle, which can run code; give the overrides instead")
    if command == "report" and args.multirun:
        raise InputError("--multirun: a report is no sweep; give all runs at once, runs=DIR,DIR")
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
    """Raise `InputError` in place of what argparse says over many lines."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    wrong = message.removeprefix("unrecognized arguments: ").split(" ")[0].partition("=")[0]
    raise InputError(f"{message}{did_you_mean(wrong, flags) or '; --help lists the flags'}")


def _check_jobs(command: str, args: Namespace) -> int | None:
    """Parse the configuration of every job, so that a mistake costs no time and leaves no folder behind.

    Returns the number of jobs; None when the sweeper chooses them while it runs.
    """
    with _config_dir(command, args) as (name, overrides):
        if not args.multirun:
            config = _compose(name, overrides, return_hydra_config=True)
            refuse_code(config.hydra)
            if config.hydra.mode is not None and config.hydra.mode != RunMode.RUN:
                raise InputError(f"hydra.mode={config.hydra.mode.name}: give -m instead")
            PARSERS[command](_without_hydra(config), overrides)
            return 1
        parsed = OverridesParser.create().parse_overrides(overrides)
        fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
        config = _compose(name, fixed, return_hydra_config=True)  # an overlay may bring a sweep of its own
        refuse_code(config.hydra)
        if not config.hydra.sweeper._target_.endswith("BasicSweeper"):
            return None  # another sweeper chooses its jobs while it runs; each is then checked as it starts
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        parsed = OverridesParser.create().parse_overrides(params) + parsed
        jobs = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
        for job in jobs:
            config = _compose(name, job, return_hydra_config=True)
            refuse_code(config.hydra)
            PARSERS[command](_without_hydra(config), job)
        return len(jobs)


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


@contextmanager
def _config_dir(command: str, args: Namespace) -> Iterator[tuple[str, list[str]]]:
    """Set Hydra to the folder that the flags name; yield the primary config's name and all overrides."""
    config_dir = Path(args.config_path or CONF_DIR).resolve()
    overrides = list(args.overrides)
    if args.config_dir is not None:
        overrides.append(f"hydra.searchpath=[file://{Path(args.config_dir).resolve()}]")
    with initialize_config_dir(config_dir=str(config_dir), version_base="1.3", job_name=command):
        yield args.config_name or command, overrides


def _compose(name: str, overrides: list[str], return_hydra_config: bool = False) -> DictConfig:
    try:
        return compose(name, overrides, return_hydra_config)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(explain(error, partial(_known_keys, name, overrides))) from None
    except ValueError as error:  # Hydra's for a group that is given anything but a name: sampler=3
        raise InputError(f"{' '.join(overrides)}: {error}") from None
    except TypeError:  # and for a list with anything but names: sampler=[3]
        raise InputError(f"{' '.join(overrides)}: a group takes a name; --help lists groups and names") from None
    except yaml.YAMLError as error:  # it names file and line
        raise InputError(f"--config-dir: {error}") from None


def _known_keys(name: str, overrides: list[str], wrong: str) -> dict[str, Any]:
    """Return the nested keys, and groups, that there are without the override of a wrong key."""
    others = [override for override in overrides if override.lstrip("+~").partition("=")[0] != wrong]
    for kept in (others, []):  # the others may be wrong too
        with suppress(HydraException, OmegaConfBaseException, ValueError, TypeError):
            config = compose(name, kept, return_hydra_config=wrong.startswith("hydra"))
            groups = GlobalHydra.instance().config_loader().list_groups("")
            keys = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
            return dict.fromkeys(groups) | keys
    return {}
