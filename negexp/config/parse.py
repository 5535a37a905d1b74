"""Turns Hydra's configuration, or a run's saved `config.yaml`, into a typed and checked one, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from negexp.components import Options, flatten, parse
from negexp.components.options import is_section, rules
from negexp.config.commands import TrainConfig
from negexp.errors import InputError

LARGEST_CONFIG = 2**20  # bytes; a run's has two thousand
RAISED = "ValueError raised while resolving interpolation: "  # OmegaConf's prefix of a resolver's error
DEEPEST = 20  # levels of a configuration; a run's has three
BM25 = {"k1": 1.5, "b": 0.75, "method": "lucene", "stop_words": "none"}
CROSS_ENCODER = {  # not used by the pair classifier of these runs
    **{"epochs": 2, "batch_size": 8, "lr": 2e-5, "head_lr": 1e-3, "warmup_share": 0.1},
    **{"negatives": 3, "depth": 10, "max_length": 256},
}
# Keys that no run of version 0.1 has, with the values that reproduce its behaviour.
LATER_KEYS: dict[str, Any] = {
    "data.match": "exact",
    "model.query_head": "none",
    "model.freeze_layers": 0,
    "model.attention_dropout": None,
    "trainer.fused": "auto",
    "trainer.warmup_share": 0.0,
    "trainer.lr_schedule": "constant",
    "trainer.average": "none",
    "trainer.average_decay": 0.99,
    "trainer.processes": 1,
    "trainer.chunk_pairs": None,
    "sampler.refresh": {"epochs": "${sampler.refresh_every}", "steps": None, "drift": None},
    "sampler.mining": {"name": "nearest"},
    "batch": {"name": "shuffled", "separate_copies": False},
    "sampler.source": "embeddings",
    "sampler.bm25": BM25,
    "model.encoder": "transformer",
    "model.bm25": BM25,
    "tracker.listeners": {},
    "evaluation.rerank_weight": 0.0,
    "model.reranker": "pair",
    "reranker": CROSS_ENCODER,
    "cache": {"keep": True, "folder": None, "max_bytes": 2**31},
}
# The same for the keys of one component.
LATER_COMPONENT_KEYS: dict[tuple[str, str], dict[str, Any]] = {("data", "arguana"): {"titles": "keep"}}
# Keys that version 0.1 wrote for every strategy, null or empty where a strategy did not have them.
EARLIER_KEYS = ("start_rate", "step", "end_rate", "options")

Schema = TypeVar("Schema", bound=Options)


def parse_config(config: DictConfig, schema: type[Schema], kinds: Collection[str] | None = None) -> Schema:
    """Return the typed configuration of a command.

    Parameters
    ----------
    config
        What Hydra composed, or what a run saved.
    schema
        All keys of the command.
    kinds
        Kinds of components whose keys are parsed, None for all. Components of other kinds stay plain mappings, and
        their code, which may be another package's, is not imported.

    Raises
    ------
    InputError
        Naming the first wrong key.
    """
    try:
        with _without_environment():
            values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        reason = (error.msg or str(error)).split("\n", 1)[0].removeprefix(RAISED)
        raise InputError(f"{key}: {reason}") from None
    return parse(schema, values, kinds=None if kinds is None else frozenset(kinds))


def parse_train(config: DictConfig, kinds: Collection[str] | None = None) -> TrainConfig:
    """Return the typed configuration of a training run; see `parse_config`."""
    return parse_config(config, TrainConfig, kinds)


def load_run_config(path: Path, kinds: Collection[str] | None = ("data",)) -> TrainConfig:
    """Read a run folder's `config.yaml`. It may come from a stranger: nothing in it is executed or looked up.

    By default only components of the kind `data` are parsed, see `parse_config`: reports and evaluations need no other.

    Raises
    ------
    InputError
        When it is too large or no YAML, has anchors (which can grow without bound) or interpolations (a run's
        configuration is resolved), or has unknown keys.
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
    _bring_up_to_date(loaded)
    return parse_train(loaded, kinds)


def _bring_up_to_date(config: DictConfig) -> None:
    """Give a run of version 0.1 the keys of later versions, and remove its empty keys."""
    for key, value in LATER_KEYS.items():
        group, _, name = key.rpartition(".")
        node = config.get(group) if group else config
        if isinstance(node, DictConfig) and name not in node:
            node[name] = value
    for (group, name), values in LATER_COMPONENT_KEYS.items():
        node = config.get(group)
        if isinstance(node, DictConfig) and node.get("name") == name:
            config[group] = {**values, **node}
    sampler = config.get("sampler")
    if isinstance(sampler, DictConfig):
        for name in EARLIER_KEYS:
            if name in sampler and not sampler[name] and sampler[name] != 0:
                del sampler[name]


def _bomb(text: str) -> str | None:
    """Return what in a YAML text could take unbounded memory or time, or None; it is parsed event by event."""
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


@cache
def decides_result(key: str) -> bool:
    """Return whether a dotted key can change the result of a run: `decides` of its option and of its sections.

    The keys that only one component has always decide.

    >>> [decides_result(key) for key in ("seed", "trainer.lr", "trainer.profile", "tracker.ledger", "name")]
    [True, True, False, False, False]
    """
    section: type[Options] = TrainConfig
    for part in key.split("."):
        declared = rules(section).get(part)
        if declared is None:
            return True
        annotation, rule = declared
        if not rule.decides:
            return False
        if not is_section(annotation):
            return True
        section = annotation
    return True


def config_hash(config: TrainConfig) -> str:
    """Return a SHA-256 over every key that decides the result."""
    values = {key: value for key, value in flatten(asdict(config)).items() if decides_result(key)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@contextmanager
def _without_environment() -> Iterator[None]:
    """Refuse values from environment variables: they would be saved with the run."""

    def refuse(name: str, default: object = None) -> None:
        raise ValueError(f"${{oc.env:{name}}} would be saved with the run; let the shell look it up: ${name}")

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
