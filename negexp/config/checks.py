"""The checks of single values and of values against each other; each raises `InputError` naming the key."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from negexp.config.schema import (
    BenchConfig,
    DataConfig,
    EvaluateConfig,
    LossConfig,
    ModelConfig,
    ReportConfig,
    SamplerConfig,
    TrainConfig,
)
from negexp.errors import InputError

CHOICES: dict[str, tuple[str, ...]] = {
    "bench": ("embed", "mine", "rerank", "epoch", "scale", "all"),
    "resume": ("auto", "never", "must"),
    "split": ("train", "validation", "test"),
    "precision": ("auto", "float32", "bfloat16"),
    "fused": ("auto", "off"),
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
    "trainer.fused": ("auto", "off"),
    "tracker.progress": ("auto", "always", "never"),
}

# key: (lowest, highest) allowed, ends included; None is no limit. A null value is left alone.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**32 - 1),
    "repeats": (1, None),
    "embed_texts": (1, None),
    "search_rows": (100, None),
    "mine_pairs": (20, None),
    "rerank_queries": (1, None),
    "epoch_pairs": (8, None),
    "scale_largest": (4000, None),
    "scale_minutes": (0, None),
    "tokens_per_batch": (1, None),
    "trec_depth": (1, None),
    "examples": (0, None),
    "data.validation_share": (0, 1),
    "data.test_share": (0, 1),
    "data.split_seed": (0, 2**32 - 1),
    "data.max_pairs": (1, None),
    "data.max_bytes": (1, None),
    "data.max_files": (1, None),
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
    "trainer.threads": (1, 4096),
    "trainer.patience": (1, None),
    "evaluation.rerank_k": (1, None),
    "evaluation.train_queries": (0, None),
    "evaluation.block_bytes": (1, None),
    "checkpoint.keep": (1, None),
}

LARGEST = 2**62  # a count beyond is a slip of the keyboard, and would not fit an array


def check_train(config: TrainConfig | BenchConfig) -> None:
    """Check the configuration of a training run, or of a benchmark, which trains too."""
    _check_keys(config)
    _check_data(config.data)
    _check_model(config.model)
    _check_sampler(config.sampler)
    _check_device("trainer.device", config.trainer.device)
    _check_something_learns(config.loss, config.model)


def check_evaluate(config: EvaluateConfig) -> None:
    """Check the configuration of an evaluation."""
    _check_keys(config)
    _check_data(config.data)
    _check_model(config.model)
    _check_device("device", config.device)


def check_report(config: ReportConfig) -> None:
    """Check the configuration of a report."""
    _check_keys(config)


def _check_keys(config: TrainConfig | EvaluateConfig | BenchConfig | ReportConfig) -> None:
    values = flatten(asdict(config))
    for key, allowed in CHOICES.items():
        if values.get(key) is not None and values[key] not in allowed:
            # YAML reads a bare `off` as false
            remedy = '; in a YAML file write "off" in quotes' if "off" in allowed and values[key] == "False" else ""
            raise InputError(f"{key}={values[key]}: must be one of {', '.join(allowed)}{remedy}")
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


def _check_something_learns(loss: LossConfig, model: ModelConfig) -> None:
    classifier_learns = loss.positive_weight > 0 or loss.negative_weight > 0
    if loss.triplet_weight == 0 and not classifier_learns:
        raise InputError("loss: all three weights are 0, nothing would be trained; set one above 0")
    if model.freeze_encoder and model.retrieval_dim is None and not classifier_learns:
        raise InputError(
            "model.freeze_encoder=true: with retrieval_dim=null only the classifier could learn, and its loss weights "
            "are 0; set loss.positive_weight above 0"
        )


def _check_device(key: str, device: str) -> None:
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise InputError(f"{key}={device}: must be one of auto, cpu, cuda, cuda:N, mps")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys; a strategy's own options stay one value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key != "options":
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
