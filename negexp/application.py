"""Hydra around a command: compose, refuse what is wrong before a folder is made, run once or as a sweep."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from negexp.config import (
    CONF_DIR,
    EvaluateConfig,
    TrainConfig,
    load_run_config,
    parse_evaluate,
    parse_report,
    parse_train,
)
from negexp.corpus import check_path
from negexp.errors import InputError
from negexp.evaluation.monitor import check_monitor
from negexp.sampling import build_sampler


def _train_config(config: DictConfig) -> TrainConfig:
    """Parse, and look up what only the parts know: strategies (also other packages'), metrics, files."""
    parsed = parse_train(config)
    build_sampler(parsed.sampler)
    check_monitor(parsed.trainer.monitor)
    check_path(parsed.data)
    return parsed


def _evaluate_config(config: DictConfig) -> EvaluateConfig:
    parsed = parse_evaluate(config)
    if parsed.run is None:
        check_path(parsed.data)
    else:
        load_run_config(Path(parsed.run) / "config.yaml")
    return parsed


PATHS = ("runs", "run", "output", "data.path", "model.pretrained")  # keys whose values are paths
PARSERS: dict[str, Callable[[DictConfig], Any]] = {
    "train": _train_config,
    "evaluate": _evaluate_config,
    "report": parse_report,
}


def run_command(command: str, arguments: list[str]) -> None:
    """Compose and check `command`'s configuration, then run it: once, or as every job of a sweep."""
    OmegaConf.register_new_resolver("negexp.job", job_name, replace=True)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors to us instead of printing them and exiting with 1
    parser = get_args_parser()
    parser.error = _refuse_flag  # type: ignore[method-assign]  # its own prints the usage, over many lines
    args = parser.parse_intermixed_args(arguments)
    flags = [argument for argument in arguments if argument not in args.overrides]
    if not args.multirun:
        args.overrides = [_quote_path(override) for override in args.overrides]
    sys.argv = ["negexp", *args.overrides, *flags]  # Hydra parses again, and takes flags between overrides amiss
    _check_flags(command, args)
    runs_jobs = not (args.help or args.hydra_help or args.cfg or args.info or args.shell_completion)
    if runs_jobs:
        _check_jobs(command, args)
    elif args.cfg or args.info:
        with _config_dir(command, args) as (name, overrides):
            _compose(name, overrides)

    failures: list[InputError] = []
    sweep_folders: set[str] = set()

    def job(config: DictConfig) -> None:
        # An InputError is kept, not raised: Hydra would print lines of its own and drop the rest of the sweep.
        try:
            parsed = PARSERS[command](config)
            module = importlib.import_module(f"negexp.commands.{command}")
            hydra_config = HydraConfig.get()
            if command == "train" and args.multirun:
                sweep_folders.add(str(hydra_config.sweep.dir))
            module.run(parsed, Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task))
        except InputError as error:
            failures.append(error)

    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=command)(job)()
    finally:
        for folder in sweep_folders:
            _report_on_sweep(folder)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise InputError(f"{len(failures)} jobs failed: " + "; ".join(str(failure) for failure in failures))


def _report_on_sweep(folder: str) -> None:
    """Write the report of a sweep, of what it finished, and print where it is."""
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        config = parse_report(compose("report", [_quote_path(f"runs={folder}")]))
    report = importlib.import_module("negexp.report")
    try:
        written = report.write_report(config.runs, config.output, config.texts, config.examples)
    except InputError as error:  # no job came to its end; their own reasons follow
        print(f"no report of the sweep: {error}")
        return
    left_out = [f"left out {one.folder}: {one.reason}" for one in written.skipped]
    lines = [*left_out, *written.remarks, *written.headlines]
    print("\n".join([*lines, f"report of {written.runs} runs in {written.folder}/report.html"]))


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


def _refuse_flag(message: str) -> NoReturn:
    raise InputError(f"{message}; --help lists the flags")


def job_name(override_dirname: str) -> str:
    """Return a sweep job's folder name: its overrides as a readable slug, short ones first, and their hash.

    The slug is cut; what comes first is what a sweep tends to vary, and not the path of the corpus.
    """
    digest = hashlib.sha256(override_dirname.encode()).hexdigest()[:8]
    overrides = ",".join(sorted(override_dirname.split(","), key=len))
    slug = re.sub(r"[^A-Za-z0-9._=,-]+", "_", overrides)[:100].strip("._,") or "job"
    return f"{slug}-{digest}"


def _check_jobs(command: str, args: Namespace) -> None:
    """Parse the configuration of every job, so that a mistake costs no time and leaves no folder behind."""
    with _config_dir(command, args) as (name, overrides):
        if not args.multirun:
            PARSERS[command](_compose(name, overrides))
            return
        parsed = OverridesParser.create().parse_overrides(overrides)
        fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
        config = _compose(name, fixed, return_hydra_config=True)  # an overlay may bring a sweep of its own
        if not config.hydra.sweeper._target_.endswith("BasicSweeper"):
            return  # another sweeper chooses its jobs while it runs; each is then checked as it starts
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        parsed = OverridesParser.create().parse_overrides(params) + parsed
        for jobs in BasicSweeper.split_arguments(parsed, None):
            for job in jobs:
                PARSERS[command](_compose(name, job))


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
    except ValueError as error:  # Hydra's for a group that is given anything but a name: sampler=3
        raise InputError(f"{' '.join(overrides)}: {error}") from None
