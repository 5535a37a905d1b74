"""Optimizer steps over the training pairs and their negatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from negexp.config import TrainerConfig
from negexp.errors import InputError
from negexp.progress import progress_bar
from negexp.randomness import derive
from negexp.sampling import Negatives
from negexp.signals import check_stop
from negexp.training.batch import BatchBuilder
from negexp.training.profile import part
from negexp.training.trainee import BiEncoderTrainee

Ints = NDArray[np.int64]
BatchCallback = Callable[[int, dict[str, Tensor]], None]  # arguments: the number of the batch in the epoch, its losses

# Reading a loss waits for the GPU, so losses are read together after some steps; on a CPU there is no wait.
STEPS_BETWEEN_READS = {"cpu": 1, "cuda": 25, "mps": 25}


class TrainingEpoch:
    """One epoch over all pairs, in the given batches. `train` may be called repeatedly."""

    def __init__(
        self,
        trainee: BiEncoderTrainee,
        builder: BatchBuilder,
        config: TrainerConfig,
        batches: Sequence[Ints],
        seed: int,
        epoch: int,
    ) -> None:
        self.trainee, self.builder, self.config, self.epoch = trainee, builder, config, epoch
        self.batches = batches
        self.done = 0  # batches trained so far
        self.losses: list[dict[str, Tensor]] = []  # of each batch
        self.validation: Sequence[float] = ()  # the monitored value of each finished epoch
        trainee.start_epoch()
        rank = builder.encoder.runtime.world.rank
        torch.manual_seed(derive(seed, epoch, f"dropout {rank}" if rank else "dropout"))

    @property
    def steps(self) -> int:
        """Return the number of optimizer steps so far."""
        return -(-self.done // self.config.accumulation)

    @property
    def share(self) -> float:
        """Return the share of the batches trained so far."""
        return self.done / len(self.batches)

    @property
    def finished(self) -> bool:
        """Return whether all batches are trained."""
        return self.done == len(self.batches)

    def train(self, negatives: Negatives, steps: int | None, after_batch: BatchCallback) -> None:
        """Take the given number of optimizer steps, or all remaining ones; call `after_batch` after each batch.

        Raises
        ------
        InputError
            When a loss is not finite. The message has epoch and step.
        """
        self.trainee.model.train()
        stop = len(self.batches) if steps is None else self.done + steps * self.config.accumulation
        stop, runtime = min(stop, len(self.batches)), self.builder.encoder.runtime
        read_every, unread = STEPS_BETWEEN_READS[runtime.device.type], self.done
        bar_of_batches = progress_bar(
            stop - self.done, f"training epoch {self.epoch}", "batch", self.builder.encoder.progress
        )
        with bar_of_batches as bar:
            while self.done < stop:
                check_stop(everywhere=True)
                losses = self._batch(negatives)
                self.losses.append(losses)
                self.done += 1
                if self.done % read_every == 0 or self.done == stop:
                    self._check_finite(unread)
                    unread = self.done
                after_batch(self.done - 1, losses)
                bar.update()

    def means(self) -> dict[str, float]:
        """Return the mean losses over the trained pairs: `loss`, `loss_<part>`."""
        weight = torch.tensor([len(batch) for batch in self.batches[: self.done]], dtype=torch.float64)
        means = {}
        for name in self.losses[0]:
            values = torch.stack([losses[name] for losses in self.losses]).cpu().double()
            means[name] = float((values * weight).sum() / weight.sum())
        return means

    def _batch(self, negatives: Negatives) -> dict[str, Tensor]:
        """Compute the gradients of one batch, and take the optimizer step after the last batch of an accumulation."""
        batch, accumulation = self.batches[self.done], self.config.accumulation
        first = self.done - self.done % accumulation
        pairs = sum(map(len, self.batches[first : first + accumulation]))
        classifier = self.trainee.model.classifier
        assert classifier is not None
        with part("forward"):
            texts = self.builder.build(batch, negatives).at(self.epoch + self.share, self.validation)
            parts = self.trainee.loss(texts, classifier)
        with part("backward"):
            total = parts.pop("total")
            (total / (pairs / len(batch))).backward()  # the sum equals the gradient of one batch with all these pairs
        if (self.done + 1) % accumulation == 0 or self.done + 1 == len(self.batches):
            with part("optimizer"):
                self.trainee.step(self._trained(first), self._trained(self.done + 1))
        return {"loss": total.detach(), **{f"loss_{name}": value.detach() for name, value in parts.items()}}

    def _trained(self, batches: int) -> float:
        """Return the share of all epochs after some batches of this one."""
        return (self.epoch + batches / len(self.batches)) / self.config.epochs

    def _check_finite(self, first: int) -> None:
        totals = torch.stack([losses["loss"] for losses in self.losses[first:]])
        bad = (~torch.isfinite(totals)).nonzero()
        if len(bad):
            raise InputError(
                f"epoch {self.epoch}, step {first + int(bad[0])}: the loss is {float(totals[bad[0]]):g}; the last "
                f"commit is intact. Lower trainer.lr={self.config.lr:g}, or set trainer.gradient_clip or "
                "trainer.precision=float32"
            )
