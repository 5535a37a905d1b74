"""The keys of the model: name, type, range and help of each. Values are in `conf/` only."""

from __future__ import annotations

from dataclasses import dataclass

from negexp.components import Options, option
from negexp.errors import InputError


@dataclass
class BM25Config(Options):
    """BM25 of two texts; see `negexp.lexical.BM25`."""

    k1: float = option("how soon more occurrences of a word count no more; 0: at once", low=0, high=100)
    b: float = option("how much a text's length counts against it; 0: not at all", low=0, high=1)
    method: str = option("variant of the formula, as bm25s names it", choices=("lucene", "robertson", "atire"))
    stop_words: str = option("words that do not count; english: bm25s's list", choices=("none", "english"))


@dataclass
class ModelConfig(Options):
    """The bi-encoder, or BM25 in its place."""

    encoder: str = option(
        "bm25: no encoder but BM25, the lexical baseline of negexp evaluate; documents are the distinct texts of the "
        "split, words are two or more letters or digits in lower case, without stemming",
        choices=("transformer", "bm25"),
    )
    bm25: BM25Config = option("of encoder=bm25")
    pretrained: str | None = option("hub id or local folder of an encoder; null: a small random BERT")
    revision: str | None = option("commit or tag on the hub")
    max_length: int = option("tokens; longer arguments are cut", low=3)
    pooling: str = option("what becomes of a text's hidden states", choices=("cls", "mean", "pooler"))
    retrieval_dim: int | None = option(
        "size of the retrieval head; null: the index searches the pooled embedding itself", low=1
    )
    normalize: bool = option("L2-normalise the retrieval embedding")
    classifier_features: str = option(
        "what the pair classifier sees: both embeddings, the pooled or the retrieval one",
        choices=("concat", "hidden", "retrieval"),
    )
    reranker: str = option(
        "orders the nearest: the pair classifier, or a cross-encoder that is trained afterwards (section reranker)",
        choices=("pair", "cross"),
    )
    layer_norm: bool = option("LayerNorm before the pair classifier")
    activation: str = option("before the pair classifier", choices=("none", "relu", "gelu", "tanh"))
    shared_encoder: bool = option("false: points as queries and candidates have an encoder each")
    query_head: str = option(
        "on the retrieval embedding z of queries alone; residual: z + U gelu(V z), with U = 0 at the start",
        choices=("none", "residual"),
    )
    freeze_encoder: bool = option("true: only the heads learn")
    freeze_layers: int = option(
        "so many of the lowest transformer layers, and the word embeddings, do not learn", low=0
    )
    default_lr: float = option("trainer.lr, unless that is set", low=0)
    default_head_lr: float = option("trainer.head_lr, unless that is set", low=0)
    vocabulary_size: int = option("of the random BERT", low=100)
    hidden_size: int = option("of the random BERT", low=1)
    layers: int = option("of the random BERT", low=1)
    attention_heads: int = option("of the random BERT", low=1)
    dropout: float | None = option(
        "of the encoder's hidden states and attention; null: as a pretrained one comes", low=0, high=0.99
    )
    attention_dropout: float | None = option(
        "of the encoder's attention probabilities; null: as model.dropout. 0 makes a training step on a CPU cheaper",
        low=0,
        high=0.99,
    )

    def check(self) -> None:
        """Raise `InputError` when keys contradict each other, or the heads of the random BERT do not share its size."""
        if self.freeze_encoder and self.freeze_layers:
            raise InputError(
                f"model.freeze_layers={self.freeze_layers}: model.freeze_encoder=true freezes all layers; set one of "
                "them to 0 or false"
            )
        if self.pretrained is None and self.hidden_size % self.attention_heads:
            raise InputError(
                f"model.hidden_size={self.hidden_size}: no multiple of model.attention_heads={self.attention_heads}"
            )
