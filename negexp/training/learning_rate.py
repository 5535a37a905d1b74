"""The learning rate of each optimizer step: warm-up, then constant or falling."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

from negexp.config import TrainerConfig


class LearningRate:
    """Sets the learning rates of an optimizer's groups, as multiples of their first values.

    `trainer.warmup_steps` or `trainer.warmup_share` raises them linearly. Then `trainer.lr_schedule` keeps them, or
    lowers them to 0 at the end of the last epoch: linearly or along half a cosine (Loshchilov & Hutter 2017, without
    restarts).
    """

    def __init__(self, optimizer: Optimizer, config: TrainerConfig) -> None:
        self.optimizer, self.config = optimizer, config
        self.base = [group["lr"] for group in optimizer.param_groups]
        self.steps = 0  # optimizer steps so far, in all epochs

    def step(self, before: float, after: float) -> None:
        """Set the rates for the next optimizer step; `before` and `after` are the shares of the training done."""
        factor = self.factor(before, after)
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * factor
        self.steps += 1

    def factor(self, before: float, after: float) -> float:
        """Return the multiple of the learning rate for the next optimizer step."""
        config, warm = self.config, self.config.warmup_share
        rise = min(1.0, (self.steps + 1) / (config.warmup_steps + 1))
        if warm > 0:
            rise = min(1.0, after / warm)
        done = min(1.0, max(0.0, (before - warm) / (1 - warm)))
        fall = {"constant": 1.0, "linear": 1.0 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
        return rise * fall[config.lr_schedule]

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps, for a commit."""
        return {"last_epoch": self.steps}  # the name that commits of version 0.1 have

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the number of steps in a commit."""
        self.steps = int(state["last_epoch"])
