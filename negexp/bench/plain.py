"""An epoch as the original experiments computed it, written plainly: the baseline of the benchmark.

Texts are tokenised at each use. Batches are not sorted by length and are padded to their longest text. Dropout stays on
while embedding. One ball tree of leaf size 2 holds the points, another the counters. Each step has three forward passes
in float32. Re-ranking calls the pair classifier once per candidate pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import BallTree
from torch import Tensor
from torch.nn import functional as F

from negexp.bench.setting import Setting
from negexp.corpus import Split
from negexp.model import BiEncoder, PairClassifier
from negexp.model.bi_encoder import COUNTER, NO_COUNTER

EMBEDDING_BATCH = 32


class PlainEpoch:
    """One epoch over some pairs: embed, build trees, sample, train."""

    def __init__(self, setting: Setting, model: BiEncoder, pairs: Split, random_rate: float, margin: float) -> None:
        config = setting.config
        self.model, self.tokenizer, self.max_length = model, setting.built.tokenizer, config.model.max_length
        self.margin, self.batch_size, self.random_rate = margin, config.trainer.batch_size, random_rate
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.trainer.lr)
        self.points = [setting.corpus.texts[text] for text in pairs.point]
        self.counters = [setting.corpus.texts[text] for text in pairs.counter]
        self.device = setting.runtime.device
        self.rng = np.random.default_rng(config.seed)

    def run(self) -> None:
        """Run the epoch."""
        self.model.train()
        points, counters = self.embed(self.points), self.embed(self.counters)
        negatives = self.sample(points, counters)
        order = self.rng.permutation(len(self.points))
        for start in range(0, len(order), self.batch_size):
            self.step(order[start : start + self.batch_size], negatives)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return retrieval and pooled embeddings of a batch, padded to its longest text."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        ids, mask = (batch[name].to(self.device) for name in ("input_ids", "attention_mask"))
        return plain_forward(self.model, ids, mask)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return retrieval embeddings, converted through lists of Python floats."""
        rows: list[list[float]] = []
        with torch.no_grad():
            for start in range(0, len(texts), EMBEDDING_BATCH):
                rows += self.encode(texts[start : start + EMBEDDING_BATCH])[0].tolist()
        return np.array(rows)

    def sample(self, points: NDArray[np.float64], counters: NDArray[np.float64]) -> list[str]:
        """Return each pair's negative: a random text, or the nearest text of both trees that is not the pair's own."""
        trees = [BallTree(table, leaf_size=2) for table in (points, counters)]
        found = [tree.query(points, k=3) for tree in trees]
        texts = [self.points, self.counters]
        negatives = []
        for pair in range(len(points)):
            if self.rng.random() < self.random_rate:
                negatives.append(texts[self.rng.integers(2)][self.rng.integers(len(points))])
                continue
            near = [
                (distances[pair][i], texts[table][rows[pair][i]])
                for table, (distances, rows) in enumerate(found)
                for i in range(3)
                if rows[pair][i] != pair
            ]
            negatives.append(min(near)[1])
        return negatives

    def step(self, pairs: NDArray[np.intp], negatives: list[str]) -> None:
        """Take one optimizer step: three forward passes."""
        (r_p, h_p), (r_c, h_c), (r_n, h_n) = (
            self.encode([texts[pair] for pair in pairs]) for texts in (self.points, self.counters, negatives)
        )
        classifier = self.model.classifier
        assert classifier is not None
        labels = torch.ones(len(pairs), dtype=torch.long, device=self.device)
        loss = (
            F.triplet_margin_loss(r_p, r_c, r_n, margin=self.margin)
            + F.cross_entropy(classifier(r_p, h_p, r_c, h_c), labels * COUNTER)
            + F.cross_entropy(classifier(r_p, h_p, r_n, h_n), labels * NO_COUNTER)
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def plain_forward(model: BiEncoder, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return retrieval and pooled embeddings of a padded batch."""
    tower = model.get_submodule("towers.0")
    states = tower.get_submodule("encoder")(input_ids=ids, attention_mask=mask).last_hidden_state
    weight = mask.unsqueeze(-1).float()
    pooled = (states * weight).sum(1) / weight.sum(1)
    return F.normalize(tower.get_submodule("head")(pooled), dim=-1), pooled


def rerank_pair_by_pair(
    classifier: PairClassifier, query: tuple[Tensor, Tensor], candidate: tuple[Tensor, Tensor], candidates: Tensor
) -> Tensor:
    """Return the classifier's scores (queries, k), with one call per pair."""
    opinions = torch.empty(candidates.shape)
    with torch.inference_mode():
        for point in range(len(candidates)):
            for place, other in enumerate(candidates[point].tolist()):
                logits = classifier(query[0][point], query[1][point], candidate[0][other], candidate[1][other])
                opinions[point, place] = logits[COUNTER] - logits[NO_COUNTER]
    return opinions
