"""A weighted sum of other losses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from negexp.components import build, component, option
from negexp.config import LossConfig
from negexp.errors import InputError
from negexp.model.bi_encoder import PairClassifier
from negexp.model.loss import Loss, TextBatch


@dataclass
class WeightedSumOptions(LossConfig):
    """Losses by name, and their weights. The name of a term is the prefix of its parts in the log."""

    terms: dict[str, LossConfig] = component("loss", "the losses to add, by any names")
    weights: dict[str, float] = option("the weight of each term", low=0)

    def check(self) -> None:
        """Raise `InputError` when terms and weights do not match."""
        if self.terms.keys() != self.weights.keys() or not self.terms:
            raise InputError(
                f"weights={self.weights}: must have a weight for each of loss.terms ({', '.join(self.terms)}), "
                "and no other"
            )
        if not any(self.weights.values()):
            raise InputError(f"weights={self.weights}: all are 0, so nothing would learn; set one above 0")

    def trains_classifier(self) -> bool:
        """Return whether a term with a weight above 0 trains the pair classifier."""
        return any(term.trains_classifier() for name, term in self.terms.items() if self.weights[name] > 0)


class WeightedSum(Loss):
    """The sum of weight times loss; parts are logged as `<term>_<part>`."""

    Options = WeightedSumOptions
    options: WeightedSumOptions

    def __init__(self, options: WeightedSumOptions) -> None:
        super().__init__(options)
        terms: list[Loss] = [build("loss", term) for term in options.terms.values()]
        self.points_are_candidates = any(term.points_are_candidates for term in terms)
        self.terms = nn.ModuleList(terms)  # in a ModuleDict, a term could not be called `train` or `type`

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return `total` and the parts of all terms."""
        parts: dict[str, Tensor] = {}
        total = batch.query.retrieval.new_zeros(())
        for name, term in zip(self.options.terms, self.terms, strict=True):
            term_parts = term(batch, classifier)
            total = total + self.options.weights[name] * term_parts.pop("total")
            parts |= {f"{name}_{part}": value for part, value in term_parts.items()}
        return {"total": total, **parts}
