"""One epoch of optimizer steps over the training pairs and their negatives."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from negexp.config import TrainerConfig
from negexp.corpus import Split
from negexp.embedding import encode_batches
from negexp.errors import InputError
from negexp.model import BiEncoder, LossParts, PairClassifier, Role, TripletCrossEntropy
from negexp.progress import progress_bar
from negexp.randomness import derive, generator
from negexp.runtime import Runtime
from negexp.sampling import Negatives
from negexp.tokens import TokenTable
from negexp.training.profile import StepProfile, part

Ints = NDArray[np.int64]

# Reading a loss waits for the GPU, so it is read once in so many steps; a CPU has nothing to wait for.
STEPS_BETWEEN_READS = {"cpu": 1, "cuda": 25, "mps": 25}


@dataclass
class Trainee:
    """What training changes: the model, and the optimizer with its schedule."""

    model: BiEncoder
    optimizer: Optimizer
    schedule: LambdaLR


def build_trainee(model: BiEncoder, config: TrainerConfig, runtime: Runtime) -> Trainee:
    """Move the model to its device and give it an optimizer; the learning rate warms up linearly, then stays."""
    model.to(runtime.device)
    groups = [
        {"params": parameters, "lr": lr}
        for parameters, lr in ((model.encoder_parameters(), config.lr), (model.head_parameters(), config.head_lr))
        if parameters
    ]
    kind = {"adam": Adam, "adamw": AdamW}[config.optimizer]
    optimizer = kind(groups, lr=config.lr, weight_decay=config.weight_decay, fused=runtime.device.type != "mps")
    schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (config.warmup_steps + 1)))
    return Trainee(model, optimizer, schedule)


def train_epoch(
    trainee: Trainee,
    criterion: TripletCrossEntropy,
    tokens: TokenTable,
    train: Split,
    negatives: Negatives,
    config: TrainerConfig,
    runtime: Runtime,
    seed: int,
    epoch: int,
    progress: str,
    profiled: StepProfile | None = None,
) -> dict[str, float]:
    """Train on every pair once, in an order drawn from (seed, epoch); return the mean losses over pairs.

    Raises
    ------
    InputError
        When a loss is not finite; epoch and step are named.
    """
    torch.manual_seed(derive(seed, epoch, "dropout"))
    trainee.model.train()
    batches = _batches(len(train), config.batch_size, seed, epoch)
    losses = torch.zeros(len(batches), 4, device=runtime.device)  # total and parts, read in bulk
    read_every = STEPS_BETWEEN_READS[runtime.device.type]
    bar_of_batches = progress_bar(len(batches), f"training epoch {epoch}", "batch", progress)
    with bar_of_batches as bar, nullcontext() if profiled is None else profiled:
        for number, batch in enumerate(batches):
            first = number - number % config.accumulation  # of the batches that share an optimizer step
            pairs = sum(map(len, batches[first : first + config.accumulation]))
            with part("forward"):
                parts = batch_loss(trainee.model, criterion, tokens, train, negatives.argument, batch, runtime)
            with part("backward"):
                (parts.total / (pairs / len(batch))).backward()  # the step is that of one batch of all these pairs
            losses[number] = torch.stack(parts).detach()
            if (number + 1) % config.accumulation == 0 or number + 1 == len(batches):
                with part("optimizer"):
                    _step(trainee, config.gradient_clip)
            if (number + 1) % read_every == 0 or number + 1 == len(batches):
                _check_finite(losses, number, epoch, config.lr)
            if profiled is not None:
                profiled.step()
            bar.update()
    weight = torch.tensor([len(batch) for batch in batches], dtype=torch.float64)[:, None]
    mean = (losses.double().cpu() * weight).sum(0) / weight.sum()
    return dict(zip(("loss", "loss_triplet", "loss_positive", "loss_negative"), mean.tolist(), strict=True))


def batch_loss(
    model: BiEncoder,
    criterion: TripletCrossEntropy,
    tokens: TokenTable,
    train: Split,
    negatives: Ints,
    batch: Ints,
    runtime: Runtime,
) -> LossParts:
    """Return the loss of some pairs: all their texts are encoded together, each distinct one once per role.

    `negatives` (pairs, k) are argument numbers: row r of table `point` is r, row r of table `counter` is n + r.
    """
    texts = np.concatenate([train.point, train.counter])
    points = tokens.row[train.point[batch]]
    candidates = tokens.row[np.concatenate([train.counter[batch], texts[negatives[batch]].ravel()])]
    pairs, k = len(batch), negatives.shape[1]
    if model.shared:
        r, h = _encode(model, "query", tokens, np.concatenate([points, candidates]), runtime)
        r_point, h_point, r_other, h_other = r[:pairs], h[:pairs], r[pairs:], h[pairs:]
    else:
        r_point, h_point = _encode(model, "query", tokens, points, runtime)
        r_other, h_other = _encode(model, "candidate", tokens, candidates, runtime)
    r_counter, h_counter = r_other[:pairs], h_other[:pairs]
    r_negative, h_negative = r_other[pairs:].view(pairs, k, -1), h_other[pairs:].view(pairs, k, -1)
    assert model.classifier is not None
    inputs = [r_point, h_point, r_counter, h_counter, r_negative, h_negative]
    if criterion.config.detach_classifier:
        inputs = [embedding.detach() for embedding in inputs]
    parts: LossParts = criterion(r_point, r_counter, r_negative, *_classify(model.classifier, *inputs))
    return parts


def _classify(
    classifier: PairClassifier,
    r_point: Tensor,
    h_point: Tensor,
    r_counter: Tensor,
    h_counter: Tensor,
    r_negative: Tensor,
    h_negative: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the logits of the positive pairs (pairs, 2) and of the negative ones (pairs, k, 2)."""
    r_points, h_points = r_point[:, None].expand_as(r_negative), h_point[:, None].expand_as(h_negative)
    positive = classifier(r_point, h_point, r_counter, h_counter)
    return positive, classifier(r_points, h_points, r_negative, h_negative)


def _encode(model: BiEncoder, role: Role, tokens: TokenTable, rows: Ints, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Return retrieval and pooled embeddings (rows, ·), each distinct row encoded once."""
    distinct, place = np.unique(rows, return_inverse=True)
    batches = list(encode_batches(model, role, tokens, distinct, runtime))
    order = np.argsort(np.concatenate([positions for positions, _, _ in batches]))
    back = runtime.to_device(torch.from_numpy(order[place]))
    return torch.cat([part for _, part, _ in batches])[back], torch.cat([part for _, _, part in batches])[back]


def _batches(pairs: int, batch_size: int, seed: int, epoch: int) -> list[Ints]:
    order = generator(seed, epoch, "batches").permutation(pairs)
    return np.array_split(order, range(batch_size, pairs, batch_size))


def _step(trainee: Trainee, gradient_clip: float | None) -> None:
    if gradient_clip is not None:
        nn.utils.clip_grad_norm_(trainee.model.parameters(), gradient_clip)
    trainee.optimizer.step()
    trainee.schedule.step()
    trainee.optimizer.zero_grad(set_to_none=True)


def _check_finite(losses: Tensor, number: int, epoch: int, lr: float) -> None:
    bad = (~torch.isfinite(losses[: number + 1, 0])).nonzero()
    if len(bad):
        raise InputError(
            f"epoch {epoch}, step {int(bad[0])}: the loss is {float(losses[bad[0], 0]):g}; the last commit is intact. "
            f"Lower trainer.lr={lr:g}, or set trainer.gradient_clip or trainer.precision=float32"
        )
