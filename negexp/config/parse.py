"""From what Hydra composed, or from a run's saved `config.yaml`, to typed and checked configurations, and back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from negexp.config.checks import check_evaluate, check_report, check_train, flatten
from negexp.config.schema import EvaluateConfig, ReportConfig, TrainConfig
from negexp.errors import InputError

Schema = TypeVar("Schema", TrainConfig, EvaluateConfig, ReportConfig)


def parse_train(config: DictConfig) -> TrainConfig:
    """Return the typed configuration of a training run, or raise `InputError` naming the first wrong key."""
    parsed = _typed(config, TrainConfig)
    check_train(parsed)
    return parsed


def parse_evaluate(config: DictConfig) -> EvaluateConfig:
    """Return the typed configuration of an evaluation, or raise `InputError` naming the first wrong key."""
    parsed = _typed(config, EvaluateConfig)
    check_evaluate(parsed)
    return parsed


def parse_report(config: DictConfig) -> ReportConfig:
    """Return the typed configuration of a report, or raise `InputError` naming the first wrong key."""
    if OmegaConf.is_missing(config, "runs"):
        raise InputError("runs: needs runs=DIR, a folder that `negexp train` wrote; several with commas between them")
    parsed = _typed(config, ReportConfig)
    check_report(parsed)
    return parsed


def load_run_config(path: Path) -> TrainConfig:
    """Read a run folder's `config.yaml`; nothing in it is executed, unknown keys are refused."""
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run= must name a folder that `negexp train` wrote") from None
    except Exception as error:  # YAML errors have no common base that OmegaConf would re-raise
        raise InputError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(loaded, DictConfig):
        raise InputError(f"{path}: holds no mapping; run= must name a folder that `negexp train` wrote")
    return parse_train(loaded)


def to_yaml(config: TrainConfig) -> str:
    """Return the resolved configuration as YAML, enough to rebuild the model."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


def config_hash(config: TrainConfig) -> str:
    """Return a SHA-256 over what decides the result: everything but the run's name and what it writes."""
    values = {key: value for key, value in asdict(config).items() if key not in ("name", "tracker")}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _typed(config: DictConfig, schema: type[Schema]) -> Schema:
    try:
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), config))
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        reason = (error.msg or str(error)).split("\n", 1)[0]
        raise InputError(f"{key}: {reason}") from None
    assert isinstance(typed, schema)
    for key, value in flatten(asdict(typed)).items():
        given = OmegaConf.select(config, key)
        if isinstance(value, bool) and not isinstance(given, bool):  # OmegaConf takes any integer, and "on", for one
            raise InputError(f"{key}={given}: must be true or false")
    return typed
