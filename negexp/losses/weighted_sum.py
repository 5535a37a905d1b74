"""Any losses, added with weights."""

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
    """Losses by the names under which their parts are logged."""

    terms: dict[str, LossConfig] = component("loss", "the losses that are added, by names of your own")
    weights: dict[str, float] = option("the weight of each term", low=0)

    def check(self) -> None:
        """Raise `InputError` when terms and weights do not match."""
        if self.terms.keys() != self.weights.keys() or not self.terms:
            raise InputError(
                f"loss.weights={self.weights}: must have a weight for each of loss.terms ({', '.join(self.terms)})"
            )

    def trains_classifier(self) -> bool:
        """Return whether a term does."""
        return any(term.trains_classifier() for name, term in self.terms.items() if self.weights[name] > 0)


class WeightedSum(Loss):
    """The sum of weight times loss; parts are logged as `<term>_<part>`."""

    Options = WeightedSumOptions
    options: WeightedSumOptions

    def __init__(self, options: WeightedSumOptions) -> None:
        super().__init__(options)
        self.terms = nn.ModuleDict({name: build("loss", term) for name, term in options.terms.items()})
        self.points_are_candidates = any(term.points_are_candidates for term in self.terms.values())

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return `total` and the parts of all terms."""
        parts: dict[str, Tensor] = {}
        total = batch.query.retrieval.new_zeros(())
        for name, term in self.terms.items():
            found = term(batch, classifier)
            total = total + self.options.weights[name] * found.pop("total")
            parts |= {f"{name}_{part}": value for part, value in found.items()}
        return {"total": total, **parts}
