"""InfoNCE: softmax cross-entropy of each pair among the texts of its batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negexp.components import option, scheduled
from negexp.config import LossConfig, ScheduleConfig
from negexp.errors import InputError
from negexp.model.bi_encoder import PairClassifier
from negexp.model.loss import Loss, TextBatch
from negexp.model.wrong_matches import WrongMatches, cross_entropy
from negexp.sampling import ScheduledNumber
from negexp.sampling.schedules.constant import ConstantOptions

DIRECTIONS = ("query_to_counter", "counter_to_query", "query_to_query", "counter_to_counter")
LOWEST_LEARNED = 0.01  # as in CLIP (Radford et al. 2021), whose logits are scaled by 100 at most


@dataclass
class InfoNCEOptions(LossConfig):
    """The temperature, the wrong matches of a pair, and how much hard ones count."""

    temperature: float = option("divides the cosine similarities", low=0.001, high=1000)
    learn_temperature: bool = option(
        "true: the temperature is learned with trainer.head_lr, from this value on, and stays above 0.01"
    )
    directions: list[str] = option(
        "which wrong matches share the pair's softmax: candidates of the point (query_to_counter), the other points of "
        "the counter, the other points of the point, the other counters of the counter. The pair's negatives and the "
        "in_batch keys are for query_to_counter alone",
        choices=DIRECTIONS,
    )
    in_batch_counters: bool = option("true: the other pairs' counters are candidates of the point")
    in_batch_points: bool = option("true: the other pairs' points are candidates of the point")
    in_batch_negatives: bool = option("true: the other pairs' negatives are candidates of the point")
    hardness: ScheduleConfig = scheduled(
        "added to a negative's logit: this times its cosine, as a constant; 0: nothing", low=0, high=1000
    )
    hardness_of: str = option(
        "candidates that `hardness` is for: own (the pair's own negatives) | in_batch (the others) | all",
        choices=("own", "in_batch", "all"),
    )
    beta: float = option(
        "concentration on hard wrong matches of Robinson et al. 2021; 0: all count the same", low=0, high=1000
    )
    guided_margin: float | None = option(
        "leave out wrong matches above the pair's own cosine minus this (GISTEmbed, the model is its own guide); null: "
        "none. It hides what has to be learned where the nearest text is rarely the counter, as in arguana",
        low=-2,
        high=2,
    )

    def check(self) -> None:
        """Raise `InputError` when keys contradict each other."""
        directions, hard = f"directions=[{', '.join(self.directions)}]", self.can_harden()
        if not {"query_to_counter", "counter_to_query"} & set(self.directions):
            raise InputError(f"{directions}: must have query_to_counter or counter_to_query")
        if len(set(self.directions)) < len(self.directions):
            raise InputError(f"{directions}: has a direction twice; give each once")
        if {"query_to_query", "query_to_counter"} <= set(self.directions) and self.in_batch_points:
            raise InputError(
                f"{directions}: would count each point twice beside in_batch_points=true; set that to false or leave "
                "out query_to_query"
            )
        if self.learn_temperature and self.temperature < LOWEST_LEARNED:
            raise InputError(
                f"temperature={self.temperature}: a learned one stays above {LOWEST_LEARNED}; start with more, or set "
                "learn_temperature=false"
            )
        if hard and "query_to_counter" not in self.directions:
            raise InputError(f"{directions}: leaves out query_to_counter, which hardness is for; add it")
        if hard and self.beta > 0:
            raise InputError(f"beta={self.beta}: cannot be combined with hardness; set one of them to 0")

    def can_harden(self) -> bool:
        """Return whether `hardness` is anything but 0 all the time."""
        return not (isinstance(self.hardness, ConstantOptions) and self.hardness.constant == 0)


class InfoNCE(Loss):
    """Mean over pairs of -log(e^g / (m e^g + sum of w e^s)), g and s: cosine / temperature (van den Oord et al. 2018).

    g belongs to point and counter, each s to a wrong match. The sum is one over all directions, as in Li et al. 2023
    (GTE, arXiv 2308.03281); m is 1, or 2 if both query_to_counter and counter_to_query have the pair itself, as there.

    * query_to_counter: the point and its candidates: its own negatives, and the in-batch texts that the keys name.
    * counter_to_query: the counter, and the other pairs' points as queries.
    * query_to_query: the point, and the other pairs' points, all as queries.
    * counter_to_counter: the counter, and the other pairs' counters.

    What `TextBatch.allowed` forbids is no wrong match. The pair's own negatives have their weight w in
    `TextBatch.weight` (0: none was found), all others w = 1. Beside the same point or counter, a text counts once, as
    the pair's own negative if it is one; the text of the gold is never a wrong match.

    `hardness` adds alpha * cosine, without its gradient, to logits of query_to_counter (Lan et al. 2025, equation 5, as
    sentence-transformers' MultipleNegativesRankingLoss). `beta`: see `WrongMatches.logits`. `guided_margin`: Solatorio
    2024, arXiv 2402.16829, with an absolute margin.

    The similarity is the cosine also for embeddings that are not normalised. The index then searches in another order,
    so use `model.normalize=true`.
    """

    Options = InfoNCEOptions
    options: InfoNCEOptions

    def __init__(self, options: InfoNCEOptions) -> None:
        super().__init__(options)
        self.points_are_candidates = options.in_batch_points or "query_to_query" in options.directions
        self.hardness = ScheduledNumber(options, "hardness")
        if options.learn_temperature:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(options.temperature)))

    def temperature(self) -> Tensor | float:
        """Return the temperature; a learned one is at least 0.01, and keeps its gradient there."""
        if not self.options.learn_temperature:
            return self.options.temperature
        learned = self.log_temperature.exp()
        return learned + (learned.clamp_min(LOWEST_LEARNED) - learned).detach()

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return `total` and, the same, `softmax`; also `temperature` if it is learned, `masked` if guided.

        `masked` is the share of the wrong matches that `guided_margin` leaves out.
        """
        query = F.normalize(batch.query.retrieval, dim=-1)  # (pairs, r)
        candidate = F.normalize(batch.candidate.retrieval, dim=-1)  # (columns, r)
        gold = (query * candidate[batch.positive]).sum(1, keepdim=True)  # (pairs, 1)
        wrong = WrongMatches.join(list(self._wrong_matches(batch, query, candidate)))
        parts = {}
        if self.options.guided_margin is not None:
            kept = wrong.shown & (wrong.similarity.detach() <= gold.detach() - self.options.guided_margin)
            parts["masked"] = 1 - kept.sum() / wrong.shown.sum().clamp_min(1)
            wrong = replace(wrong, shown=kept)
        temperature = self.temperature()
        if isinstance(temperature, Tensor):
            parts["temperature"] = temperature
        gold = gold / temperature
        golds = len({"query_to_counter", "counter_to_query"} & set(self.options.directions))
        softmax = cross_entropy(gold.expand(-1, golds), wrong.logits(temperature, self.options.beta))
        return {"total": softmax, "softmax": softmax, **parts}

    def _wrong_matches(self, batch: TextBatch, query: Tensor, candidate: Tensor) -> Iterator[WrongMatches]:
        """Yield the wrong matches of the points, then those of the counters, each text once."""
        directions = self.options.directions
        counter, positive = candidate[batch.positive], batch.positive
        of_point, of_counter = [], []
        if "query_to_counter" in directions:
            of_point.append(self._candidates(batch, query @ candidate.T))
        if "query_to_query" in directions:
            of_point.append(WrongMatches.in_batch(query @ query.T, batch.allowed[:, batch.point], batch.query_text))
        if "counter_to_query" in directions:  # whether a counter is wrong for a point, the other way round
            allowed = batch.allowed[:, positive].T
            of_counter.append(WrongMatches.in_batch(counter @ query.T, allowed, batch.query_text))
        if "counter_to_counter" in directions:
            allowed = batch.allowed[:, positive]
            of_counter.append(WrongMatches.in_batch(counter @ counter.T, allowed, batch.text[positive]))
        for parts, gold in ((of_point, batch.text[positive]), (of_counter, batch.query_text)):
            if parts:
                yield WrongMatches.join(parts).once(gold, batch.texts)

    def _candidates(self, batch: TextBatch, similarity: Tensor) -> WrongMatches:
        options = self.options
        found = WrongMatches.candidates(
            batch,
            similarity,
            counters=options.in_batch_counters,
            points=options.in_batch_points,
            negatives=options.in_batch_negatives,
        )
        hardness = self.hardness.value(batch.progress, batch.validation)
        if hardness == 0:
            return found
        harder = {"own": found.own, "in_batch": ~found.own, "all": torch.ones_like(found.own)}[options.hardness_of]
        return replace(found, bias=found.bias + hardness * similarity.detach() * harder)
