"""The keys of the cross-encoder that re-ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from negexp.components import Options, option
from negexp.config.sections import TrainerConfig
from negexp.errors import InputError


@dataclass
class RerankerConfig(Options):
    """Training of the cross-encoder (`model.reranker=cross`), after the bi-encoder."""

    epochs: int = option("times that every list is trained on", low=1)
    batch_size: int = option("pairs a batch, each with a list of 1 + negatives candidates", low=1)
    lr: float = option("learning rate of its encoder", low=0)
    head_lr: float = option("of the linear layer that scores", low=0)
    warmup_share: float = option("share of the steps over which the rates rise; then they fall to 0", low=0, high=0.99)
    negatives: int = option("negatives of a list, drawn anew in each epoch", low=1)
    depth: int = option("so many nearest allowed arguments of the trained encoder, among which they are drawn", low=1)
    max_length: int = option("tokens of point and candidate together; the longer text is cut first", low=5)

    def check(self) -> None:
        """Raise `InputError` when a list needs more negatives than there are neighbours to draw from."""
        if self.depth < self.negatives:
            raise InputError(
                f"reranker.depth={self.depth}: is below reranker.negatives={self.negatives}, which are drawn among the "
                "depth nearest; raise depth"
            )

    def trainer(self, trainer: TrainerConfig) -> TrainerConfig:
        """Return the trainer's keys with those of the cross-encoder in their place."""
        return replace(
            trainer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            head_lr=self.head_lr,
            warmup_steps=0,
            warmup_share=self.warmup_share,
            lr_schedule="linear",
            average="none",
            accumulation=1,
        )
