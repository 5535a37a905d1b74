"""The typed configuration: names and types of every key, and the checks that no single key can make.

Values live in `conf/` only, so no field that a YAML file sets has a default here. `parse_*` turn what Hydra
composed into these dataclasses; a run's saved `config.yaml` goes through the same door, and nothing in it can
name code to run.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from negexp.errors import InputError

CONF_DIR = Path(__file__).parent / "conf"
if not CONF_DIR.is_dir():  # a checkout or an editable install: the wheel carries the folder, the tree has it beside
    CONF_DIR = Path(__file__).parent.parent / "conf"


@dataclass
class DataConfig:
    name: str
    path: str | None
    train_overlap: str
    copies: str
    validation_share: float
    test_share: float
    split_seed: int
    max_pairs: int | None


@dataclass
class ModelConfig:
    pretrained: str | None
    revision: str | None
    max_length: int
    pooling: str
    retrieval_dim: int | None
    normalize: bool
    classifier_features: str
    layer_norm: bool
    activation: str
    shared_encoder: bool
    freeze_encoder: bool
    default_lr: float
    default_head_lr: float
    vocabulary_size: int
    hidden_size: int
    layers: int
    attention_heads: int
    dropout: float | None


@dataclass
class SamplerConfig:
    name: str
    num_negatives: int
    candidates: str
    exclude: list[str]
    refresh_every: int
    start_rate: float | None = None  # the three keys of `decay`; other strategies have no such key in their YAML
    step: float | None = None
    end_rate: float | None = None
    options: dict[str, Any] = field(default_factory=dict)  # for strategies from other packages: `+sampler.options.x=1`


@dataclass
class IndexConfig:
    name: str
    leaf_size: int
    block_bytes: int


@dataclass
class LossConfig:
    name: str
    margin: float
    triplet_weight: float
    positive_weight: float
    negative_weight: float


@dataclass
class TrainerConfig:
    epochs: int
    batch_size: int
    lr: float
    head_lr: float
    optimizer: str
    weight_decay: float
    warmup_steps: int
    gradient_clip: float | None
    accumulation: int
    precision: str
    device: str
    deterministic: bool
    tokens_per_batch: int | None
    monitor: str
    patience: int | None


@dataclass
class EvaluationConfig:
    rerank_k: int
    train_queries: int
    block_bytes: int


@dataclass
class TrackerConfig:
    ledger: bool
    progress: str
    keep_checkpoints: int


@dataclass
class TrainConfig:
    """Everything `negexp train` reads; saved as the run's `config.yaml`."""

    name: str
    seed: int
    data: DataConfig
    model: ModelConfig
    sampler: SamplerConfig
    index: IndexConfig
    loss: LossConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    tracker: TrackerConfig


@dataclass
class EvaluateConfig:
    """Everything `negexp evaluate` reads."""

    run: str | None
    split: str
    output: str | None
    seed: int
    precision: str | None
    device: str
    tokens_per_batch: int | None
    progress: str
    data: DataConfig
    model: ModelConfig
    evaluation: EvaluationConfig


Schema = TypeVar("Schema", TrainConfig, EvaluateConfig)

CHOICES: dict[str, tuple[str, ...]] = {
    "split": ("train", "validation", "test"),
    "precision": ("auto", "float32", "bfloat16"),
    "progress": ("auto", "always", "never"),
    "data.name": ("demo", "arguana", "pairs"),
    "data.train_overlap": ("drop", "keep"),
    "data.copies": ("merge", "keep"),
    "model.pooling": ("cls", "mean", "pooler"),
    "model.classifier_features": ("concat", "hidden", "retrieval"),
    "model.activation": ("none", "relu", "gelu", "tanh"),
    "sampler.candidates": ("both", "points", "counters"),
    "index.name": ("balltree", "exact"),
    "loss.name": ("triplet_ce",),
    "trainer.optimizer": ("adam", "adamw"),
    "trainer.precision": ("auto", "float32", "bfloat16"),
    "tracker.progress": ("auto", "always", "never"),
}

# key: (lowest, highest) allowed, ends included; None is no limit. A null value is left alone.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**32 - 1),
    "tokens_per_batch": (1, None),
    "data.validation_share": (0, 1),
    "data.test_share": (0, 1),
    "data.split_seed": (0, 2**32 - 1),
    "data.max_pairs": (1, None),
    "model.max_length": (3, None),
    "model.retrieval_dim": (1, None),
    "model.default_lr": (0, None),
    "model.default_head_lr": (0, None),
    "model.vocabulary_size": (100, None),
    "model.hidden_size": (1, None),
    "model.layers": (1, None),
    "model.attention_heads": (1, None),
    "model.dropout": (0, 0.99),
    "sampler.num_negatives": (1, None),
    "sampler.refresh_every": (1, None),
    "sampler.start_rate": (0, 1),
    "sampler.step": (0, None),
    "sampler.end_rate": (0, 1),
    "index.leaf_size": (1, None),
    "index.block_bytes": (1, None),
    "loss.margin": (0, None),
    "loss.triplet_weight": (0, None),
    "loss.positive_weight": (0, None),
    "loss.negative_weight": (0, None),
    "trainer.epochs": (1, None),
    "trainer.batch_size": (1, None),
    "trainer.lr": (0, None),
    "trainer.head_lr": (0, None),
    "trainer.weight_decay": (0, None),
    "trainer.warmup_steps": (0, None),
    "trainer.gradient_clip": (0, None),
    "trainer.accumulation": (1, None),
    "trainer.tokens_per_batch": (1, None),
    "trainer.patience": (1, None),
    "evaluation.rerank_k": (1, None),
    "evaluation.train_queries": (0, None),
    "evaluation.block_bytes": (1, None),
    "tracker.keep_checkpoints": (1, None),
}


LARGEST = 2**62  # a count beyond is a slip of the keyboard, and would not fit an array


def parse_train(config: DictConfig) -> TrainConfig:
    """Return the typed configuration of a training run, or raise `InputError` naming the first wrong key."""
    parsed = _typed(config, TrainConfig)
    _check_keys(parsed)
    _check_data(parsed.data)
    _check_model(parsed.model)
    _check_sampler(parsed.sampler)
    _check_device("trainer.device", parsed.trainer.device)
    loss = parsed.loss
    if loss.triplet_weight == loss.positive_weight == loss.negative_weight == 0:
        raise InputError("loss: all three weights are 0, nothing would be trained; set one above 0")
    if parsed.model.freeze_encoder and parsed.model.retrieval_dim is None and not _classifier_learns(loss):
        raise InputError(
            "model.freeze_encoder=true: with retrieval_dim=null only the classifier could learn, and its loss weights "
            "are 0; set loss.positive_weight above 0"
        )
    return parsed


def parse_evaluate(config: DictConfig) -> EvaluateConfig:
    """Return the typed configuration of an evaluation, or raise `InputError` naming the first wrong key."""
    parsed = _typed(config, EvaluateConfig)
    _check_keys(parsed)
    _check_data(parsed.data)
    _check_model(parsed.model)
    _check_device("device", parsed.device)
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
    return typed


def _check_keys(config: TrainConfig | EvaluateConfig) -> None:
    values = _flatten(asdict(config))
    for key, allowed in CHOICES.items():
        if values.get(key) is not None and values[key] not in allowed:
            raise InputError(f"{key}={values[key]}: must be one of {', '.join(allowed)}")
    for key, (low, high) in RANGES.items():
        value = values.get(key)
        if value is None:
            continue
        finite = value <= LARGEST if isinstance(value, int) else math.isfinite(value)
        if not finite or (low is not None and value < low) or (high is not None and value > high):
            wanted = f"at least {low}" if high is None else f"between {low} and {high}"
            raise InputError(f"{key}={value}: must be {wanted}")


def _check_data(data: DataConfig) -> None:
    if data.name == "demo" and data.path is not None:
        raise InputError(f"data.path={data.path}: data=demo ships its texts; a path needs data=arguana or data=pairs")
    if data.name != "demo" and data.path is None:
        raise InputError(f"data.path: data={data.name} needs data.path=... (the corpus folder, archive or table)")
    if data.validation_share <= 0 or data.test_share <= 0 or data.validation_share + data.test_share >= 1:
        raise InputError(
            f"data.validation_share={data.validation_share} and data.test_share={data.test_share}: both must be "
            "above 0, their sum below 1"
        )


def _check_model(model: ModelConfig) -> None:
    if model.pretrained is None and model.hidden_size % model.attention_heads:
        raise InputError(
            f"model.hidden_size={model.hidden_size}: no multiple of model.attention_heads={model.attention_heads}"
        )


def _check_sampler(sampler: SamplerConfig) -> None:
    unknown = sorted(set(sampler.exclude) - {"self", "duplicates"})
    if unknown:
        raise InputError(
            f"sampler.exclude={sampler.exclude}: {unknown[0]!r} is not known; choose from self, duplicates"
        )
    if "self" not in sampler.exclude:
        raise InputError(f"sampler.exclude={sampler.exclude}: must contain self (a pair's own texts are no negatives)")
    if sampler.name == "decay":
        start, step, end = sampler.start_rate, sampler.step, sampler.end_rate
        if start is None or step is None or end is None:
            raise InputError("sampler=decay needs sampler.start_rate, sampler.step and sampler.end_rate")
        if start < end:
            raise InputError(
                f"sampler.start_rate={start}: below sampler.end_rate={end}; the rate falls, so start above it"
            )


def _classifier_learns(loss: LossConfig) -> bool:
    return loss.positive_weight > 0 or loss.negative_weight > 0


def _check_device(key: str, device: str) -> None:
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise InputError(f"{key}={device}: must be one of auto, cpu, cuda, cuda:N, mps")


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key != "options":
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
