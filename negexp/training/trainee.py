"""The state that training changes: model, loss, optimizer, learning rate and averaged weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from negexp.config import TrainerConfig
from negexp.model import BiEncoder
from negexp.model.loss import Loss
from negexp.model.trainable import Trainable
from negexp.runtime import Runtime
from negexp.training.learning_rate import LearningRate
from negexp.world import World

Model = TypeVar("Model", bound=Trainable)
Criterion = TypeVar("Criterion", bound=nn.Module)


@dataclass
class Trainee(Generic[Model, Criterion]):
    """The state that training changes. A loss may have parameters of its own, such as a learned temperature."""

    model: Model
    loss: Criterion
    optimizer: Optimizer
    rate: LearningRate
    config: TrainerConfig
    average: AveragedModel | None
    world: World

    @property
    def evaluated(self) -> Model:
        """Return the model that is evaluated and kept: with averaged weights, unless `trainer.average` is none."""
        return self.model if self.average is None else cast(Model, self.average.module)

    def start_epoch(self) -> None:
        """Forget the weights of the previous epoch where the average is that of one epoch."""
        if self.average is not None and self.config.average == "last":
            self.average.n_averaged.zero_()

    def step(self, before: float, after: float) -> None:
        """Take an optimizer step with the gradients so far; the arguments are those of `LearningRate.step`."""
        parameters = [*self.model.parameters(), *self.loss.parameters()]
        self.world.average_gradients(parameters)
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)
        self.rate.step(before, after)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)


BiEncoderTrainee = Trainee[BiEncoder, Loss]


def build_trainee(model: Model, loss: Criterion, config: TrainerConfig, runtime: Runtime) -> Trainee[Model, Criterion]:
    """Move model and loss to the device, and create optimizer, learning rate and average."""
    model.to(runtime.device)
    loss.to(runtime.device)
    decay = config.weight_decay
    groups = [
        {"params": parameters, "lr": lr, "weight_decay": weight_decay}
        for parameters, lr, weight_decay in (
            (model.encoder_parameters(), config.lr, decay),
            (model.head_parameters(), config.head_lr, decay),
            (list(loss.parameters()), config.head_lr, 0.0),  # a temperature has no reason to move towards 1
        )
        if parameters
    ]
    kind = {"adam": Adam, "adamw": AdamW}[config.optimizer]
    optimizer = kind(groups, fused=runtime.device.type != "mps")
    rate, average = LearningRate(optimizer, config), _average(model, config)
    return Trainee(model, loss, optimizer, rate, config, average, runtime.world)


def _average(model: nn.Module, config: TrainerConfig) -> AveragedModel | None:
    if config.average == "none":
        return None
    mean = get_swa_multi_avg_fn() if config.average == "last" else get_ema_multi_avg_fn(config.average_decay)
    return AveragedModel(model, multi_avg_fn=mean)
