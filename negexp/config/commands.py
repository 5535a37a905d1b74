"""Configurations of whole commands: every key that `negexp train`, `evaluate`, `mine` and `bench` read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from negexp.components import Options, component, option
from negexp.config.cache import CacheConfig
from negexp.config.model import ModelConfig
from negexp.config.reranker import RerankerConfig
from negexp.config.sections import (
    BARS,
    LARGEST_SEED,
    PRECISIONS,
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    IndexConfig,
    LossConfig,
    SamplerConfig,
    TrackerConfig,
    TrainerConfig,
    check_device,
)
from negexp.errors import InputError

NEGATIVE_FORMATS = ("triplet", "n-tuple", "n-tuple-scores", "labeled-pair", "labeled-list", "flagembedding")


@dataclass
class TrainConfig(Options):
    """Everything `negexp train` reads; saved as the run's `config.yaml`."""

    name: str = option(
        "run folder: outputs/<name>/<date>_<time>, sweep folder: outputs/sweeps/<name>/<job>", decides=False
    )
    seed: int = option("every random draw derives from (seed, epoch, purpose)", low=0, high=LARGEST_SEED)
    resume: str = option(
        "auto: go on where the folder's run stopped; must: fail if there is none; never: fail if there is one",
        choices=("auto", "never", "must"),
        decides=False,
    )
    data: DataConfig = component("data", "pairs of texts")
    model: ModelConfig = option("the bi-encoder")
    sampler: SamplerConfig = component("sampler", "which negatives, and when")
    batch: BatchConfig = component("batch", "which pairs share a batch")
    index: IndexConfig = component("index", "neighbour search")
    loss: LossConfig = component("loss", "what is minimised")
    trainer: TrainerConfig = option("optimisation")
    reranker: RerankerConfig = option("the cross-encoder of model.reranker=cross")
    evaluation: EvaluationConfig = option("ranking")
    checkpoint: CheckpointConfig = option("commits", decides=False)
    tracker: TrackerConfig = option("what a run tells the outside", decides=False)
    cache: CacheConfig = option("embeddings that runs share", decides=False)

    def check(self) -> None:
        """Raise `InputError` when nothing would learn, or a pair classifier would that re-ranks nothing."""
        check_something_learns(self.loss, self.model)
        if self.model.reranker == "cross" and isinstance(self.loss, LossConfig) and self.loss.trains_classifier():
            raise InputError(
                f"model.reranker=cross: does not use the pair classifier, which loss.name={self.loss.name} trains; use "
                "loss=info_nce or loss=triplet, or model.reranker=pair"
            )
        if self.model.reranker == "cross" and self.evaluation.rerank_weight == 1:
            raise InputError(
                "evaluation.rerank_weight=1: keeps the order of retrieval, so the cross-encoder of model.reranker="
                "cross would be trained for nothing; use another weight, or model.reranker=pair"
            )


@dataclass
class EvaluateConfig(Options):
    """Everything `negexp evaluate` reads."""

    run: str | None = option(
        "a folder that `negexp train` wrote; null: zero-shot, the pooled embedding and cosine, or BM25"
    )
    split: str = option("", choices=("train", "validation", "test"))
    output: str | None = option("where evaluation/ is written; null: Hydra's run folder")
    seed: int = option("draws the random weights of model=tiny", low=0, high=LARGEST_SEED)
    precision: str | None = option("null: the run's own, zero-shot float32", choices=PRECISIONS)
    device: str = option("auto | cpu | cuda | cuda:N | mps")
    fused: str | None = option("as trainer.fused; null: the run's own, zero-shot auto", choices=("auto", "off"))
    tokens_per_batch: int | None = option("null: chosen for the device", low=1)
    progress: str = option("bars: auto (a terminal only) | always | never", choices=BARS)
    trec: bool = option("true: TREC run and qrels files for every protocol, stage and task, below trec/")
    trec_depth: int | None = option("candidates a query in the run files; null: all of them", low=1)
    data: DataConfig = component("data", "pairs of texts")
    model: ModelConfig = option("the encoder, or BM25, without a run")
    evaluation: EvaluationConfig = option("ranking")

    def check(self) -> None:
        """Raise `InputError` unless the device has a name that torch knows."""
        check_device("device", self.device)


@dataclass
class MineConfig(Options):
    """Everything `negexp mine` reads."""

    run: str | None = option("a folder that `negexp train` wrote: its data and best epoch's encoder; null: model=...")
    output: str = option("where negatives, report and ledger are written; new or empty", form="DIR")
    format: str = option("the columns of negatives.*, see negexp/mine/README.md", choices=NEGATIVE_FORMATS)
    file: str = option("negatives.jsonl or negatives.parquet", choices=("jsonl", "parquet"))
    split: str = option(
        "whose pairs get negatives, and whose arguments are the candidates. data.train_overlap and data.copies change "
        "train only",
        choices=("train", "validation", "test"),
    )
    epoch: int | None = option(
        "schedules have the value of this epoch, and draws its generator; null: the epoch after the run's best one, "
        "without a run 0",
        low=0,
    )
    rescore: str | None = option(
        "folder of a cross-encoder (sequence classification with one output), whose scores take the place of cosines "
        "in the file and in mining policies that compare similarities"
    )
    seed: int = option(
        "every random draw derives from (seed, epoch, purpose); the run's own, unless it is given",
        low=0,
        high=LARGEST_SEED,
    )
    precision: str | None = option("null: the run's own, zero-shot float32", choices=PRECISIONS)
    device: str = option("auto | cpu | cuda | cuda:N | mps")
    fused: str | None = option("as trainer.fused; null: the run's own, zero-shot auto", choices=("auto", "off"))
    tokens_per_batch: int | None = option("null: chosen for the device", low=1)
    progress: str = option("bars: auto (a terminal only) | always | never", choices=BARS)
    data: DataConfig = component("data", "pairs of texts")
    model: ModelConfig = option("the encoder, without a run")
    sampler: SamplerConfig = component("sampler", "which negatives")
    index: IndexConfig = component("index", "neighbour search")

    def check(self) -> None:
        """Raise `InputError` for an unknown device, a file that a format does not have, or a model without vectors."""
        check_device("device", self.device)
        if self.format == "flagembedding" and self.file != "jsonl":
            raise InputError(f"file={self.file}: FlagEmbedding reads JSONL; use file=jsonl, or another format")
        if self.model.encoder == "bm25":
            raise InputError(
                "model.encoder=bm25: has no embeddings, whose distances are reported; use sampler=bm25 beside an "
                "encoder, to mine by BM25"
            )


@dataclass
class BenchConfig(Options):
    """Everything `negexp bench` reads."""

    bench: str = option("which phases", choices=("embed", "mine", "rerank", "epoch", "trainer", "scale", "all"))
    output: str | None = option("where bench.json and bench.md are written; null: Hydra's run folder")
    progress: str = option("bars: auto (a terminal only) | always | never", choices=BARS)
    seed: int = option("", low=0, high=LARGEST_SEED)
    repeats: int = option("rounds after one to warm up", low=1)
    embed_texts: int | None = option(
        "embed: about so many training arguments, drawn with their copies; null: all", low=1
    )
    search_rows: int = option("mine: so many made-up vectors beside faiss; time grows with their square", low=100)
    mine_pairs: int = option("mine: so many pairs beside sentence-transformers' mine_hard_negatives", low=20)
    rerank_queries: int = option("rerank: with ten candidates each", low=1)
    epoch_pairs: int | None = option("epoch: so many training pairs, drawn; null: all", low=8)
    trainer_pairs: int | None = option(
        "trainer: so many training pairs, drawn, beside sentence-transformers' trainer; null: all", low=8
    )
    scale_largest: int = option("scale: arguments at most", low=4000)
    scale_minutes: float = option("scale: stop before a size that would take longer", low=0)
    data: DataConfig = component("data", "pairs of texts")
    model: ModelConfig = option("the bi-encoder")
    sampler: SamplerConfig = component("sampler", "which negatives")
    batch: BatchConfig = component("batch", "which pairs share a batch")
    index: IndexConfig = component("index", "neighbour search")
    loss: LossConfig = component("loss", "what is minimised")
    trainer: TrainerConfig = option("optimisation")
    evaluation: EvaluationConfig = option("ranking")

    def check(self) -> None:
        """Raise `InputError` when nothing would learn, or when neighbours would not come from an index."""
        check_something_learns(self.loss, self.model)
        if isinstance(self.sampler, SamplerConfig) and self.sampler.source != "embeddings":
            raise InputError(
                f"sampler.source={self.sampler.source}: bench times the search among embeddings; leave it out"
            )


def check_something_learns(loss: LossConfig | Mapping[str, Any], model: ModelConfig) -> None:
    """Raise `InputError` when the model is BM25, or when the encoder is frozen and nothing else learns."""
    if model.encoder == "bm25":
        raise InputError(
            "model.encoder=bm25: BM25 learns nothing; rank with it by negexp evaluate model=bm25, or mine with it by "
            "sampler.source=bm25"
        )
    heads = model.retrieval_dim is not None or model.query_head != "none"
    if not model.freeze_encoder or heads or isinstance(loss, Mapping):  # not parsed
        return
    if not loss.trains_classifier():
        raise InputError(
            f"model.freeze_encoder=true: only the pair classifier could learn, and loss.name={loss.name} does not "
            "train it; use another loss or weights, or set model.query_head=residual or model.retrieval_dim"
        )
