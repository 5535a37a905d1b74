"""Sections of the configuration: name, type, range and help of every key. Values are in `conf/` only.

The section of a component has the keys that all components of its kind share; its other keys are beside its class.
"""

from __future__ import annotations

from dataclasses import dataclass

from negexp.components import Options, component, option
from negexp.config.model import BM25Config
from negexp.errors import InputError

AUTO = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")
BARS = ("auto", "always", "never")
LARGEST_SEED = 2**32 - 1


def check_device(key: str, device: str) -> None:
    """Raise `InputError` unless a value names a device."""
    kind, _, number = device.partition(":")
    if kind not in AUTO or (number and not (kind == "cuda" and number.isdigit())):
        raise InputError(f"{key}={device}: must be one of auto, cpu, cuda, cuda:N, mps")


@dataclass
class DataConfig(Options):
    """The keys that all corpus readers share."""

    name: str
    path: str | None = option("the corpus: a folder, an archive or a table; null for the demo, which is shipped")
    train_overlap: str = option(
        "training pairs that share a text with validation or test; queries: drop those whose point is a query there",
        choices=("drop", "queries", "keep"),
    )
    copies: str = option("training pairs with the same two texts as an earlier one", choices=("merge", "keep"))
    match: str = option(
        "when two texts are the same: normalized ignores case, white space and Unicode form",
        choices=("exact", "normalized"),
    )
    validation_share: float = option("share of the debates (or rows) when a table has no split column", low=0, high=1)
    test_share: float = option("the same for test", low=0, high=1)
    split_seed: int = option(
        "draws that split; apart from `seed`, so that a sweep over seeds compares the same queries",
        low=0,
        high=LARGEST_SEED,
    )
    max_pairs: int | None = option("at most so many pairs of each split, whole debates first (for trials)", low=1)
    max_bytes: int = option("refuse a corpus that is larger, an archive once it is unpacked", low=1, decides=False)
    max_files: int = option("refuse an archive or a folder with more files", low=1, decides=False)

    def check(self) -> None:
        """Raise `InputError` when the drawn splits would leave one without pairs."""
        if self.validation_share <= 0 or self.test_share <= 0 or self.validation_share + self.test_share >= 1:
            raise InputError(
                f"data.validation_share={self.validation_share} and data.test_share={self.test_share}: both must be "
                "above 0, their sum below 1"
            )


@dataclass
class RefreshConfig(Options):
    """When embeddings, index and negatives are made anew."""

    epochs: int = option("at the start of every so many epochs", low=1)
    steps: int | None = option("also after every so many optimizer steps of an epoch; null: never within one", low=1)
    drift: float | None = option(
        "only if a sample of texts has moved by more since the last refresh, by the mean of 1 - cosine; else the "
        "negatives stay, and nothing is embedded for them; null: always",
        low=0,
        high=2,
    )

    def check(self) -> None:
        """Raise `InputError` when steps are counted in epochs that keep their negatives."""
        if self.steps is not None and self.epochs > 1:
            raise InputError(
                f"sampler.refresh.steps={self.steps}: refreshes within an epoch, sampler.refresh.epochs={self.epochs} "
                "skips whole epochs; give one of them"
            )


@dataclass
class MiningConfig(Options):
    """The keys that all mining policies share."""

    name: str

    def check_sampler(self, sampler: SamplerConfig, key: str) -> None:
        """Raise `InputError` when the policy cannot serve a strategy; `key` is the key of the policy's section."""


@dataclass
class ScheduleConfig(Options):
    """The keys that all schedules share."""

    name: str

    def extremes(self) -> tuple[float, ...]:
        """Return values that include the smallest and the largest one; empty if they are not known."""
        return ()


@dataclass
class SamplerConfig(Options):
    """The keys that all strategies share."""

    name: str
    num_negatives: int = option("k negatives a pair", low=1)
    candidates: str = option(
        "the arguments to choose from; auto: points and counters, with a collection its documents; with a collection, "
        "its documents take the place of the counters in `both` and `counters` too",
        choices=("auto", "both", "points", "counters"),
    )
    exclude: list[str] = option(
        "never a negative; self: the pair's own arguments, duplicates: copies of them, and counters of copies, "
        "repeats: a text that the pair has as a negative already; the golds of the pair's query are always excluded",
        choices=("self", "duplicates", "repeats"),
    )
    refresh_every: int = option("another name of refresh.epochs", low=1)
    refresh: RefreshConfig = option("when negatives are made anew")
    mining: MiningConfig = component(
        "mining", "which neighbours count as hard; strategies that mine nothing (random, static) ignore it"
    )
    source: str = option(
        "where neighbours come from: retrieval embeddings, or BM25 scores of the training texts, which stay the same; "
        "strategies that mine nothing (random, static) ignore it",
        choices=("embeddings", "bm25"),
    )
    bm25: BM25Config = option("of source=bm25")

    def check(self) -> None:
        """Raise `InputError` when a pair's own texts could become its negatives."""
        if "self" not in self.exclude:
            raise InputError(f"sampler.exclude={self.exclude}: must contain self (a pair's own texts are no negatives)")
        if self.refresh.drift is not None and self.source != "embeddings":
            raise InputError(
                f"sampler.refresh.drift={self.refresh.drift}: neighbours by sampler.source={self.source} do not move; "
                "leave out drift, or use sampler.source=embeddings"
            )
        self.mining.check_sampler(self, "sampler.mining")


@dataclass
class BatchConfig(Options):
    """The keys that all batch plans share."""

    name: str
    separate_copies: bool = option(
        "true: two pairs that share a text, as point or counter, never stand in one batch; one of them moves to the "
        "next batch with room, or to a new one"
    )


@dataclass
class IndexConfig(Options):
    """The keys of the built-in indexes, so that one can take another's place."""

    name: str
    leaf_size: int = option("where a tree turns to brute force; an index without a tree ignores it", low=1)
    block_bytes: int = option("memory for one block of vectors or distances", low=1)


@dataclass
class LossConfig(Options):
    """The keys that all losses share."""

    name: str

    def trains_classifier(self) -> bool:
        """Return whether the loss gives the pair classifier a gradient."""
        return False


@dataclass
class TrainerConfig(Options):
    """Optimisation, and where and how it is computed."""

    epochs: int = option("times that every pair is trained on", low=1)
    batch_size: int = option("pairs a batch; batch=debates cuts a debate that is larger", low=1)
    lr: float = option("learning rate of the encoder", low=0)
    head_lr: float = option("of retrieval head and classifier, which start from nothing", low=0)
    optimizer: str = option("", choices=("adam", "adamw"))
    weight_decay: float = option("", low=0)
    warmup_steps: int = option("optimizer steps over which the learning rate rises to lr", low=0)
    warmup_share: float = option("the same as a share of all optimizer steps; give one of the two", low=0, high=0.99)
    lr_schedule: str = option(
        "the learning rate after the warm-up: constant, or falling to 0 at the end of the last epoch",
        choices=("constant", "linear", "cosine"),
    )
    average: str = option(
        "weights that are evaluated and kept; last: mean over the optimizer steps of the last epoch, ema: "
        "exponential moving average over all steps",
        choices=("none", "last", "ema"),
    )
    average_decay: float = option("ema: weight of the previous average in each step", low=0, high=1)
    gradient_clip: float | None = option("largest gradient norm; null: any", low=0)
    accumulation: int = option("batches an optimizer step", low=1)
    processes: int = option(
        "processes of this machine that train together, each on a GPU or a share of the cores; torchrun can start more",
        low=1,
        decides=False,
    )
    chunk_pairs: int | None = option(
        "embed so many pairs of a batch at a time, and again for their gradients: less memory for large batches, about "
        "a third more time (GradCache); null: all at once",
        low=1,
    )
    precision: str = option("auto: bfloat16 autocast on GPUs and CPUs with instructions for it", choices=PRECISIONS)
    device: str = option("auto | cpu | cuda | cuda:N | mps; auto: the GPU where there is one")
    fused: str = option(
        "auto: texts without padding (on a GPU in bfloat16 only), on a CPU with negexp's own attention and dropout; "
        "off: all as torch and transformers do it",
        choices=("auto", "off"),
    )
    deterministic: bool = option("only algorithms that give the same bits every time")
    threads: int | None = option(
        "CPU threads; null: all cores. Another number of threads rounds differently", low=1, high=4096
    )
    tokens_per_batch: int | None = option("padded tokens in one forward call; null: chosen for the device", low=1)
    monitor: str = option("validation metric that picks the best epoch: protocol/stage/task/metric")
    patience: int | None = option("stop after so many epochs without a better one; null: never", low=1)
    profile: bool = option(
        "true: write profile/: seconds by phase, and by operator of a few steps, of one epoch", decides=False
    )

    def check(self) -> None:
        """Raise `InputError` for an unknown device, two keys for the warm-up, or an average that would not move."""
        check_device("trainer.device", self.device)
        if self.warmup_steps > 0 and self.warmup_share > 0:
            raise InputError(
                f"trainer.warmup_steps={self.warmup_steps} and trainer.warmup_share={self.warmup_share}: both set the "
                "warm-up; set one of them to 0"
            )
        if self.average == "ema" and self.average_decay == 1:
            raise InputError(
                "trainer.average_decay=1.0: the average would keep the weights of the first step; lower it, as to 0.95"
            )


@dataclass
class EvaluationConfig(Options):
    """Ranking of all candidates."""

    rerank_k: int = option("the k nearest that the re-ranker orders", low=1)
    rerank_weight: float | None = option(
        "weight of the retrieval score in that order; 0: the re-ranker alone, 1: the retrieval order, null: the best "
        "on validation, chosen in each epoch",
        low=0,
        high=1,
    )
    train_queries: int = option("fixed sample of training queries whose accuracy is logged every epoch; 0: none", low=0)
    block_bytes: int = option("memory for one block of scores", low=1)


@dataclass
class ListenerConfig(Options):
    """The keys that all trackers share."""

    name: str


@dataclass
class TrackerConfig(Options):
    """What a run tells the outside."""

    ledger: bool = option("write negatives/epoch-NNN.parquet")
    progress: str = option("bars: auto (a terminal only) | always | never", choices=BARS)
    listeners: dict[str, ListenerConfig] = component("tracker", "trackers beside the files, by names of your own")


@dataclass
class CheckpointConfig(Options):
    """Commits."""

    keep: int = option("the newest so many commits, and the best", low=1)
