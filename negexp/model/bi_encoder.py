"""The model: towers that embed arguments, and the classifier that scores pairs of embeddings."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from negexp.config import ModelConfig
from negexp.model.encoder import freeze_layers, pool, state_size
from negexp.model.trainable import Trainable
from negexp.model.vectors import Vectors

NO_COUNTER, COUNTER = 0, 1  # the pair classifier's classes

Role = Literal["query", "candidate"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"none": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class Tower(nn.Module):
    """An encoder with pooling and retrieval head: token ids -> (retrieval embedding, pooled embedding)."""

    def __init__(self, encoder: PreTrainedModel, config: ModelConfig) -> None:
        super().__init__()
        hidden = state_size(encoder)
        self.encoder = encoder
        self.pooling = config.pooling
        self.normalize = config.normalize
        self.frozen = config.freeze_encoder
        self.head = nn.Identity() if config.retrieval_dim is None else nn.Linear(hidden, config.retrieval_dim)
        self.hidden_size = hidden
        self.retrieval_size = hidden if config.retrieval_dim is None else config.retrieval_dim
        if self.frozen:
            self.encoder.requires_grad_(False)
        freeze_layers(encoder, config.freeze_layers)

    def train(self, mode: bool = True) -> Tower:
        """Set training mode; a frozen encoder stays in evaluation mode, so its embeddings do not change."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return retrieval (texts, retrieval_size) and pooled (texts, hidden_size) embeddings in float32."""
        pooled = pool(self.encoder(input_ids=ids, attention_mask=mask), mask, self.pooling)
        return self.retrieval(pooled), pooled

    def retrieval(self, pooled: Tensor) -> Tensor:
        """Return the retrieval embeddings (texts, retrieval_size) of pooled ones (texts, hidden_size).

        The head costs little, and the index would search vectors with its rounding errors: no autocast here.
        """
        with torch.autocast(pooled.device.type, enabled=False):
            retrieval: Tensor = self.head(pooled)
            return nn.functional.normalize(retrieval, dim=-1) if self.normalize else retrieval


class QueryHead(nn.Module):
    """A residual map of queries: z + U gelu(V z), then normalised if `normalize`; U starts at 0."""

    def __init__(self, size: int, normalize: bool) -> None:
        super().__init__()
        self.inner, self.outer, self.normalize = nn.Linear(size, size), nn.Linear(size, size, bias=False), normalize
        nn.init.zeros_(self.outer.weight)

    def forward(self, retrieval: Tensor) -> Tensor:
        """Return the embeddings of queries (queries, size) from those of texts."""
        with torch.autocast(retrieval.device.type, enabled=False):
            moved = retrieval + self.outer(nn.functional.gelu(self.inner(retrieval)))
            return nn.functional.normalize(moved, dim=-1) if self.normalize else moved


class PairClassifier(nn.Module):
    """Two-class linear classifier over both embeddings and their absolute differences.

    Features of `concat`: [r_p, r_c, |r_p - r_c|, h_p, h_c, |h_p - h_c|], r retrieval and h pooled embeddings;
    With `retrieval`, the features are the first three only; with `hidden`, the last three only.
    """

    def __init__(self, retrieval_size: int, hidden_size: int, config: ModelConfig) -> None:
        super().__init__()
        self.use_retrieval = config.classifier_features in ("concat", "retrieval")
        self.use_hidden = config.classifier_features in ("concat", "hidden")
        size = 3 * (retrieval_size * self.use_retrieval + hidden_size * self.use_hidden)
        self.layer_norm = nn.LayerNorm(size) if config.layer_norm else nn.Identity()
        self.activation = ACTIVATIONS[config.activation]()
        self.linear = nn.Linear(size, 2)

    def features(self, r_point: Tensor, h_point: Tensor, r_candidate: Tensor, h_candidate: Tensor) -> Tensor:
        """Return the classifier's inputs (..., features)."""
        pairs = zip(self.used(r_point, h_point), self.used(r_candidate, h_candidate), strict=True)
        return torch.cat([part for p, c in pairs for part in (p, c, (p - c).abs())], dim=-1)

    def used(self, retrieval: Tensor, hidden: Tensor) -> list[Tensor]:
        """Return those of a text's two embeddings that the classifier uses."""
        return [part for part, use in ((retrieval, self.use_retrieval), (hidden, self.use_hidden)) if use]

    def forward(self, r_point: Tensor, h_point: Tensor, r_candidate: Tensor, h_candidate: Tensor) -> Tensor:
        """Return logits (..., 2): [no counter, counter]. All four inputs share their leading dimensions."""
        features = self.features(r_point, h_point, r_candidate, h_candidate)
        logits: Tensor = self.linear(self.activation(self.layer_norm(features)))
        return logits


class BiEncoder(Trainable):
    """One tower for points as queries and one for candidates (the same one when shared), and the heads.

    The heads are the pair classifier, and the query head, which maps the retrieval embeddings of queries.
    """

    def __init__(
        self, towers: list[Tower], classifier: PairClassifier | None, query_head: QueryHead | None = None
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)
        self.classifier = classifier
        self.query_head = query_head

    def tower(self, role: Role) -> Tower:
        """Return the tower that embeds texts in the given role."""
        tower = self.towers[0 if role == "query" else -1]
        assert isinstance(tower, Tower)
        return tower

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters of the encoders."""
        encoders = [module.encoder for module in self.towers if isinstance(module, Tower)]
        return [parameter for encoder in encoders for parameter in encoder.parameters() if parameter.requires_grad]

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of retrieval heads, pair classifier and query head."""
        heads = [module.head for module in self.towers if isinstance(module, Tower)]
        modules = [module for module in (*heads, self.classifier, self.query_head) if module is not None]
        return [parameter for module in modules for parameter in module.parameters()]

    def as_queries(self, texts: Vectors) -> Vectors:
        """Return the embeddings of texts as queries: the query head's, where there is one."""
        return texts if self.query_head is None else Vectors(self.query_head(texts.retrieval), texts.pooled)

    @property
    def shared(self) -> bool:
        """Return whether one tower embeds both queries and candidates."""
        return len(self.towers) == 1

    def forward(self, ids: Tensor, mask: Tensor, role: Role) -> tuple[Tensor, Tensor]:
        """Return retrieval and pooled embeddings (texts, ·) of texts in the given role, before the query head."""
        embeddings: tuple[Tensor, Tensor] = self.tower(role)(ids, mask)
        return embeddings
