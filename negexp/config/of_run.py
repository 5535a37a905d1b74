"""The configuration of a command that uses a run again: the run's values, and those that the command line changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from negexp.config.commands import EvaluateConfig, MineConfig, TrainConfig
from negexp.config.parse import load_run_config
from negexp.config.sections import DataConfig, EvaluationConfig
from negexp.errors import InputError

Group = TypeVar("Group", DataConfig, EvaluationConfig)
Command = TypeVar("Command", EvaluateConfig, MineConfig)


def completed_by_run(values: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, Any]:
    """Return the values of a command with the data of its run, whose reader may have keys of its own."""
    if values["run"] in (None, "???"):  # ???: missing; it is refused when the configuration is parsed
        return values
    path = Path(str(values["run"])).expanduser() / "config.yaml"
    return _with_data_of_run(values, load_run_config(path), overrides)


def _with_data_of_run(values: Mapping[str, Any], trained: TrainConfig, overrides: Sequence[str]) -> Mapping[str, Any]:
    """Return the values of a command whose section `data` has the keys of the run's reader.

    The values are the run's, except for the keys that the command line gives. A group on the command line stays.
    """
    given = given_keys(overrides)
    if "data" in given:
        return values
    changed = {key: value for key, value in values["data"].items() if f"data.{key}" in given}
    return {**values, "data": {**asdict(trained.data), **changed}}


def with_run(config: Command, trained: TrainConfig, overrides: Sequence[str]) -> Command:
    """Return a command's configuration with the values of its run.

    The model is the run's. Seed, data, evaluation, precision and `fused` are the run's too, except for the keys that
    the command line gives (`overrides`, in Hydra's syntax). A group on the command line, as in `data=arguana`, replaces
    the run's group.

    Raises
    ------
    InputError
        When the command line gives a model too, or when its keys contradict the run's.
    """
    given = given_keys(overrides)
    if gives_model(overrides):
        raise InputError(f"run={config.run}: the run brings its own model; leave out model, or leave out run")
    data = data_of_run(config.data, trained, overrides)
    if isinstance(config, EvaluateConfig):
        config = replace(config, evaluation=_changed("evaluation", trained.evaluation, config.evaluation, given))
    return replace(
        config,
        seed=config.seed if "seed" in given else trained.seed,
        precision=config.precision or trained.trainer.precision,
        fused=config.fused or trained.trainer.fused,
        model=trained.model,
        data=data,
    )


def data_of_run(composed: DataConfig, trained: TrainConfig, overrides: Sequence[str]) -> DataConfig:
    """Return the run's section `data` with the keys that the command line gives; `data=NAME` there replaces it.

    Raises
    ------
    InputError
        When the keys contradict the run's.
    """
    data = _changed("data", trained.data, composed, given_keys(overrides))
    data.check()
    return data


def gives_model(overrides: Sequence[str]) -> bool:
    """Return whether the command line chooses a model, or changes a key of it."""
    return "model" in {key.partition(".")[0] for key in given_keys(overrides)}


def _changed(group: str, own: Group, composed: Group, given: Collection[str]) -> Group:
    """Return the run's group with the values of the given keys, or the composed group where the group is given."""
    if group in given:
        return composed
    keys = [key.removeprefix(f"{group}.") for key in given if key.startswith(f"{group}.")]
    return replace(own, **{key: getattr(composed, key) for key in keys})


def given_keys(overrides: Sequence[str]) -> set[str]:
    """Return the keys and groups that the command line gives."""
    return {override.lstrip("+~").partition("=")[0].partition("@")[0] for override in overrides}
