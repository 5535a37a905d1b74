"""Compare an epoch with sentence-transformers' trainer: the same pairs, batches, loss, optimizer and dropout.

Both train a mean-pooled encoder without a head by a softmax over the counters of the batch, with AdamW at a constant
rate. Both tokenise within the time that is measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.bench.peer_trainer import NOT_INSTALLED, SCALE, missing_library, train_with_sentence_transformers
from negexp.bench.peers import mine_with_sentence_transformers, sentence_transformer
from negexp.bench.phases import TrainedEpoch, index_of, run_epoch, sampler_options, train_without_negatives
from negexp.bench.setting import Setting
from negexp.bench.timing import NEGEXP, PhaseResult, in_turns, rivals
from negexp.components import build
from negexp.components.parse import parse_component
from negexp.config import BatchConfig, BenchConfig, LossConfig
from negexp.corpus import Split
from negexp.randomness import generator
from negexp.sampling import Arguments, BatchPlan, BatchRound, EmbeddingSpace
from negexp.tokens import tokenize

Ints = NDArray[np.int64]

TRAINER = "SentenceTransformerTrainer"
MINED = "mine_hard_negatives + SentenceTransformerTrainer"
SAME, DEFAULT = "same precision", "its default precision (float32)"
TARGETS = {"cpu": {SAME: 3.0, DEFAULT: 5.0}, "cuda": {SAME: 1.2}}
TARGETS_WITH_MINING = {"cpu": {SAME: 4.0}}


class PeerEpoch(NamedTuple):
    """The mean loss of sentence-transformers' epoch, and each mined negative by its pair (anchor, positive)."""

    loss: float
    negatives: dict[tuple[str, str], str]


@dataclass(frozen=True)
class Contest:
    """What both train: the model and its configuration, the pairs, and the pairs of each batch."""

    setting: Setting
    pairs: Split
    batches: list[Ints]

    @classmethod
    def of(cls, setting: Setting) -> Contest:
        """Draw the pairs, and leave out what only one of the two has."""
        pairs = replace(setting.train_pairs(setting.config.trainer_pairs), collection=None)
        setting = setting.changed(_shared_config(setting))
        return cls(setting, pairs, _batches(setting, pairs))

    def fresh(self, state: dict[str, Any]) -> Setting:
        """Return the setting with these weights, and the tokens of the pairs, made anew."""
        setting, used = self.setting, set(self.pairs.texts().tolist())
        setting.built.model.load_state_dict(state)
        texts = [text if row in used else "" for row, text in enumerate(setting.corpus.texts)]
        return replace(setting, tokens=tokenize(texts, setting.built.tokenizer, setting.config.model.max_length))

    def columns(self) -> dict[str, list[str]]:
        """Return the texts of the pairs, in the columns of sentence-transformers."""
        texts = self.setting.corpus.texts
        return {"anchor": [texts[t] for t in self.pairs.point], "positive": [texts[t] for t in self.pairs.counter]}

    def precisions(self) -> dict[str, bool]:
        """Return the precisions of the trainer: name -> whether it is bfloat16 autocast."""
        return {SAME: True, DEFAULT: False} if self.setting.runtime.bfloat16 else {SAME: False}

    def train(self, model: Any, bfloat16: bool) -> PeerEpoch:
        """Train a copy of a SentenceTransformer in the same batches."""
        loss = train_with_sentence_transformers(self.setting, model, self.columns(), self.batches, bfloat16)
        return PeerEpoch(loss, {})

    def mine_and_train(self, model: Any, bfloat16: bool) -> PeerEpoch:
        """Mine a negative for each pair, and train a copy of a SentenceTransformer with them.

        Pairs for which mine_hard_negatives finds none are missing in their batches.
        """
        columns, encoder = self.columns(), copy.copy(model)
        if bfloat16:  # of the encoder alone: similarities would lose digits
            encoder.forward = self.setting.runtime.autocast()(model.forward)
        mined = mine_with_sentence_transformers(encoder, columns["anchor"], columns["positive"], 1)().to_dict()
        place = {pair: row for row, pair in enumerate(zip(mined["anchor"], mined["positive"], strict=True))}
        row = np.array([place.get(pair, -1) for pair in zip(*columns.values(), strict=True)])
        batches = [found for batch in self.batches if len(found := row[batch][row[batch] >= 0])]
        loss = train_with_sentence_transformers(self.setting, model, mined, batches, bfloat16)
        return PeerEpoch(loss, dict(zip(place, mined["negative"], strict=True)))

    def sizes(self) -> str:
        """Return the sizes of the phase in words."""
        config = self.setting.config
        return (
            f"{len(self.pairs)} pairs in batches of {config.trainer.batch_size}, "
            f"{self.setting.all_tokens_of(self.arguments)} tokens, cut at {config.model.max_length}"
        )

    @property
    def arguments(self) -> Ints:
        """Return the texts of all points, then of all counters."""
        return np.concatenate([self.pairs.point, self.pairs.counter])


def compare_epochs(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Train one epoch on pairs; the wrong matches are the other counters of the batch."""
    contest = Contest.of(setting)
    state = _copy(contest.setting.built.model.state_dict())

    def negexp_epoch() -> float:
        return train_without_negatives(contest.fresh(state), contest.pairs, contest.batches)

    seconds, results, remarks = _in_turns(contest, "trainer", TRAINER, negexp_epoch, contest.train)
    losses = [f"{name} {_loss(result):.4f}" for name, result in results.items()]
    flops = 3 * contest.setting.forward_flops(contest.setting.all_tokens_of(contest.arguments))
    return PhaseResult(
        "trainer",
        f"{contest.sizes()}; softmax over the counters of the batch",
        f"{NEGEXP}, {setting.runtime.describe()}",
        seconds[NEGEXP],
        rivals(seconds, _targets(TARGETS, setting, TRAINER)),
        *_floor(flops, setting, peak),
        [f"mean loss of the warm-up epoch, each with its own draws of dropout: {', '.join(losses)}"],
        remarks,
    )


def compare_epochs_with_mining(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Mine the nearest counter of every point anew, then train one epoch with it."""
    contest = Contest.of(setting)
    state = _copy(contest.setting.built.model.state_dict())
    sampler = sampler_options(setting, "hard", num_negatives=1, candidates="counters")

    def negexp_epoch() -> TrainedEpoch:
        return run_epoch(contest.fresh(state), contest.pairs, sampler, setting.runtime)

    seconds, results, remarks = _in_turns(contest, "trainer, mining", MINED, negexp_epoch, contest.mine_and_train)
    own: TrainedEpoch = results[NEGEXP]
    negatives = Arguments(contest.pairs).text[own.negatives.argument[:, 0]]
    texts = [setting.corpus.texts[text] for text in negatives]
    checks = []
    for name, peer in results.items():
        if isinstance(peer, PeerEpoch):
            pairs = zip(*contest.columns().values(), strict=True)
            same = np.mean([peer.negatives.get(pair) == text for pair, text in zip(pairs, texts, strict=True)])
            checks.append(
                f"{len(peer.negatives)} pairs have a negative of {name}; of all pairs, {same:.1%} have negexp's"
            )
    tokens = contest.setting.tokens_of(contest.arguments) + 3 * contest.setting.all_tokens_of(
        np.concatenate([contest.arguments, negatives])
    )
    return PhaseResult(
        "trainer, mining",
        f"{contest.sizes()}; one mined counter each; softmax over the counters and negatives of the batch",
        f"{NEGEXP}, {setting.runtime.describe()}",
        seconds[NEGEXP],
        rivals(seconds, _targets(TARGETS_WITH_MINING, setting, MINED)),
        *_floor(contest.setting.forward_flops(tokens), setting, peak),
        checks,
        remarks,
    )


def _in_turns(
    contest: Contest, phase: str, name: str, negexp: Callable[[], Any], peer: Callable[[Any, bool], PeerEpoch]
) -> tuple[dict[str, list[float]], dict[str, Any], list[str]]:
    """Return the seconds and the results of negexp and, where it is installed, the trainer in each precision."""
    contenders: dict[str, Callable[[], Any]] = {NEGEXP: negexp}
    remarks, config = [], contest.setting.config
    with ExitStack() as stack:
        if missing := missing_library():
            remarks.append(f"{missing} {NOT_INSTALLED}")
        else:
            model = stack.enter_context(sentence_transformer(contest.setting))
            for precision, bfloat16 in contest.precisions().items():
                contenders[f"{name}, {precision}"] = partial(peer, model, bfloat16)
        return *in_turns(contenders, config.repeats, phase, config.progress), remarks


def _shared_config(setting: Setting) -> BenchConfig:
    """Return the configuration without the parts and the options that sentence-transformers does not share."""
    config = setting.config
    model = replace(
        config.model,
        retrieval_dim=None,
        query_head="none",
        shared_encoder=True,
        pooling="mean",
        freeze_encoder=False,
        freeze_layers=0,
    )
    trainer = replace(
        config.trainer,
        optimizer="adamw",
        warmup_steps=0,
        warmup_share=0.0,
        lr_schedule="constant",
        average="none",
        accumulation=1,
    )
    return replace(config, model=model, trainer=trainer, loss=_loss_options(), batch=_batch_options())


def _loss_options() -> LossConfig:
    """Return the options of MultipleNegativesRankingLoss in negexp's words."""
    keys = {
        "name": "info_nce",
        "temperature": 1 / SCALE,
        "learn_temperature": False,
        "directions": ["query_to_counter"],
        "in_batch_counters": True,
        "in_batch_points": False,
        "in_batch_negatives": True,
        "hardness": 0.0,
        "hardness_of": "own",
        "beta": 0.0,
        "guided_margin": None,
    }
    options = parse_component("loss", keys, "loss")
    assert isinstance(options, LossConfig)
    return options


def _batch_options() -> BatchConfig:
    options = parse_component("batch", {"name": "shuffled", "separate_copies": True}, "batch")
    assert isinstance(options, BatchConfig)
    return options


def _batches(setting: Setting, pairs: Split) -> list[Ints]:
    """Return the batches that a run of negexp makes in its first epoch."""
    config = setting.config
    plan: BatchPlan = build("batch", config.batch)
    space = EmbeddingSpace(np.empty((len(pairs), 0)), {}, lambda vectors: index_of(setting, vectors))  # is not read
    rng = generator(config.seed, 0, "batches")
    return plan.batches(BatchRound(Arguments(pairs), lambda: space, config.trainer.batch_size, rng))


def _floor(flops: float, setting: Setting, peak: dict[str, float]) -> tuple[float, str]:
    rate = peak[setting.rate]
    return flops / rate, f"{flops / 1e9:.0f} GFLOP of the layers (without attention) at {rate / 1e9:.0f} GFLOP/s"


def _targets(targets: dict[str, dict[str, float]], setting: Setting, name: str) -> dict[str, float]:
    of_device = targets.get(setting.runtime.device.type, {})
    return {f"{name}, {precision}": ratio for precision, ratio in of_device.items()}


def _copy(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.clone() for name, value in state.items()}


def _loss(result: float | PeerEpoch) -> float:
    return result.loss if isinstance(result, PeerEpoch) else result
