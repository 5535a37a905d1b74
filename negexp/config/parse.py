"""From what Hydra composed, or from a run's saved `config.yaml`, to typed and checked configurations, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from negexp.config.checks import check_evaluate, check_report, check_train, flatten
from negexp.config.schema import BenchConfig, EvaluateConfig, ReportConfig, TrainConfig
from negexp.errors import InputError

LARGEST_CONFIG = 2**20  # bytes; a run's has two thousand
RAISED = "ValueError raised while resolving interpolation: "  # how OmegaConf begins what a resolver says
DEEPEST = 20  # levels of a configuration; a run's has three
# Keys that run folders of earlier versions lack, with what those versions did.
EARLIER_VALUES = {"trainer.fused": "auto"}  # 0.1
BESIDES = ("data.max_bytes", "data.max_files", "trainer.profile")

Schema = TypeVar("Schema", TrainConfig, EvaluateConfig, BenchConfig, ReportConfig)


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


def parse_bench(config: DictConfig) -> BenchConfig:
    """Return the typed configuration of a benchmark, or raise `InputError` naming the first wrong key."""
    parsed = _typed(config, BenchConfig)
    check_train(parsed)
    return parsed


def parse_report(config: DictConfig) -> ReportConfig:
    """Return the typed configuration of a report, or raise `InputError` naming the first wrong key."""
    if OmegaConf.is_missing(config, "runs"):
        raise InputError("runs: needs runs=DIR, a folder that `negexp train` wrote; several with commas between them")
    parsed = _typed(config, ReportConfig)
    check_report(parsed)
    return parsed


def load_run_config(path: Path) -> TrainConfig:
    """Read a run folder's `config.yaml`, which may come from a stranger: nothing in it is executed or looked up.

    Raises
    ------
    InputError
        When it is too large, no YAML, has anchors (which can grow without end), interpolations (a run's configuration
        is resolved), or keys that are not known.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; run= must name a folder that `negexp train` wrote")
    if not path.is_file() or path.is_symlink() or path.stat().st_size > LARGEST_CONFIG:
        raise InputError(f"{path}: is no regular file of at most {LARGEST_CONFIG} bytes, as a run's is")
    try:
        text = path.read_text(encoding="utf-8")
        bomb = _bomb(text)
        loaded = OmegaConf.create(text) if bomb is None else None
    except Exception as error:  # YAML errors and OmegaConf's have no common base
        raise InputError(f"{path}: cannot be read as YAML: {error}") from None
    if bomb is not None:
        raise InputError(f"{path}: has {bomb}; a run's configuration has none")
    if not isinstance(loaded, DictConfig):
        raise InputError(f"{path}: holds no mapping; run= must name a folder that `negexp train` wrote")
    if "${" in text:
        raise InputError(f"{path}: has an interpolation; a run's configuration is resolved, and nothing is looked up")
    _add_earlier_values(loaded)
    return parse_train(loaded)


def _add_earlier_values(loaded: DictConfig) -> None:
    for key, value in EARLIER_VALUES.items():
        group, _, name = key.rpartition(".")
        section = OmegaConf.select(loaded, group)
        if isinstance(section, DictConfig) and name not in section:
            section[name] = value


def _bomb(text: str) -> str | None:
    """Return what in a YAML text could take memory or time without end; events are looked at as they come."""
    depth = 0
    for event in yaml.parse(text):
        if getattr(event, "anchor", None):
            return "YAML anchors"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            return f"more than {DEEPEST} levels"
    return None


def to_yaml(config: TrainConfig) -> str:
    """Return the resolved configuration as YAML, enough to rebuild the model."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


def decides_result(key: str) -> bool:
    """Return whether a dotted key can change what a run comes to; what is only kept, limited or looked at cannot."""
    return key.split(".")[0] not in ("name", "resume", "tracker", "checkpoint") and key not in BESIDES


def config_hash(config: TrainConfig) -> str:
    """Return a SHA-256 over every key that decides the result."""
    values = {key: value for key, value in flatten(asdict(config)).items() if decides_result(key)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _typed(config: DictConfig, schema: type[Schema]) -> Schema:
    try:
        with _without_environment():
            typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), config))
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        reason = (error.msg or str(error)).split("\n", 1)[0].removeprefix(RAISED)
        raise InputError(f"{key}: {reason}") from None
    assert isinstance(typed, schema)
    for key, value in flatten(asdict(typed)).items():
        given = OmegaConf.select(config, key)
        if isinstance(value, bool) and not isinstance(given, bool):  # OmegaConf takes any integer, and "on", for one
            raise InputError(f"{key}={given}: must be true or false")
    return typed


@contextmanager
def _without_environment() -> Iterator[None]:
    """Refuse values that are looked up in the environment: they would be saved with the run."""

    def refuse(name: str, default: object = None) -> None:
        raise ValueError(f"${{oc.env:{name}}} would be saved with the run; let the shell look it up: ${name}")

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
