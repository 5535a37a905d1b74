"""Names and types of every key. Values live in `conf/` only, so no field that a YAML file sets has a default here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DataConfig:
    """What is read, and what becomes of copies and leaks."""

    name: str
    path: str | None
    train_overlap: str
    copies: str
    match: str
    validation_share: float
    test_share: float
    split_seed: int
    max_pairs: int | None
    max_bytes: int
    max_files: int


@dataclass
class ModelConfig:
    """Encoder, pooling, retrieval head and pair classifier."""

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
    """Which negatives a pair gets, and when they are refreshed."""

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
    """How nearest neighbours are found."""

    name: str
    leaf_size: int
    block_bytes: int


@dataclass
class LossConfig:
    """The loss and the weights of its parts."""

    name: str
    margin: float
    triplet_weight: float
    positive_weight: float
    negative_weight: float
    detach_classifier: bool


@dataclass
class TrainerConfig:
    """Epochs, batches, optimizer, precision and device."""

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
    threads: int | None
    tokens_per_batch: int | None
    monitor: str
    patience: int | None
    profile: bool


@dataclass
class EvaluationConfig:
    """How deep the classifier re-ranks, and how many training queries are ranked."""

    rerank_k: int
    train_queries: int
    block_bytes: int


@dataclass
class TrackerConfig:
    """What a run shows and writes besides its results."""

    ledger: bool
    progress: str


@dataclass
class CheckpointConfig:
    """How many commits a run keeps."""

    keep: int


@dataclass
class TrainConfig:
    """Everything `negexp train` reads; saved as the run's `config.yaml`."""

    name: str
    seed: int
    resume: str
    data: DataConfig
    model: ModelConfig
    sampler: SamplerConfig
    index: IndexConfig
    loss: LossConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
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
    trec: bool
    trec_depth: int | None
    data: DataConfig
    model: ModelConfig
    evaluation: EvaluationConfig


@dataclass
class BenchConfig:
    """Everything `negexp bench` reads."""

    bench: str
    output: str | None
    seed: int
    repeats: int
    progress: str
    embed_texts: int | None
    search_rows: int
    mine_pairs: int
    rerank_queries: int
    epoch_pairs: int | None
    scale_largest: int
    scale_minutes: float
    data: DataConfig
    model: ModelConfig
    sampler: SamplerConfig
    index: IndexConfig
    loss: LossConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig


@dataclass
class ReportConfig:
    """Everything `negexp report` reads."""

    runs: str
    output: str | None
    texts: bool
    examples: int
