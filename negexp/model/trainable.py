"""The base of the models that are trained: their parameters by learning rate."""

from __future__ import annotations

from abc import abstractmethod

from torch import nn


class Trainable(nn.Module):
    """A model with an encoder and heads, which learn with different rates."""

    @abstractmethod
    def encoder_parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters of the encoders."""

    @abstractmethod
    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the layers that start from nothing."""
