"""Whether an encoder can be used: it is tried on two texts, as all texts are embedded.

Some architectures of transformers give padded texts other hidden states than unpadded ones, by design or by a defect,
and some need inputs that a text does not have. A list of them would be incomplete with the next release.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from negexp.config import ModelConfig
from negexp.errors import InputError
from negexp.model.encoder import without_gradients

LONGEST_TRIED = 1024  # tokens
TOLERANCE = 1e-3  # relative difference of hidden states; rounding stays below a hundredth of it
# What the architectures raise for an input that they cannot take, or when they need another input or library.
REFUSALS = (AssertionError, AttributeError, ImportError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def check_encoder(encoder: PreTrainedModel, config: ModelConfig, vocabulary: int, pad_id: int) -> None:
    """Refuse an encoder that cannot embed texts of `model.max_length` tokens rightly.

    `vocabulary` is the number of token ids to draw from; `pad_id` is the one that fills up shorter texts.

    Raises
    ------
    InputError
        When the encoder has fewer positions, keeps another dropout than `model.dropout`, has no output for
        `model.pooling`, gives padded texts other hidden states, or computes no attention.
    """
    _check_positions(encoder, config)
    _check_dropout(encoder, config)
    name, kind = f"model.pretrained={config.pretrained}", encoder.config.model_type
    length = min(config.max_length, LONGEST_TRIED)
    try:
        found = _try(encoder, *_random_texts(length, vocabulary, pad_id), pad_id)
    except REFUSALS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: {kind} cannot embed a text of {length} tokens ({reason}); use another") from None
    if config.pooling == "pooler" and not found.pooled:
        raise InputError(f"model.pooling=pooler: {kind} has no pooled output; use cls or mean")
    if not found.padding <= TOLERANCE:  # NaN is refused too
        raise InputError(
            f"{name}: {kind} gives padded texts other hidden states, by {found.padding:.1%}, so that an embedding "
            "depends on its batch; use another encoder"
        )
    if not found.attends:
        raise InputError(f"{name}: {kind} computes no attention here; use another encoder")


class Trial(NamedTuple):
    """What became of two texts: `padding` is the largest relative difference that padding made to hidden states.

    pooled: whether there is a pooled output; attends: whether a token changes the hidden states of other tokens.
    """

    padding: float
    pooled: bool
    attends: bool


def _try(encoder: PreTrainedModel, text: Tensor, other: Tensor, pad_id: int) -> Trial:
    """Embed a text (tokens,) and its first third in one batch, then each alone, then a text that differs in the middle.

    Hidden states of attention in windows depend on the length, so the text should be as long as texts will be.
    """
    places, short = torch.arange(len(text)), max(1, len(text) // 3)
    padded = torch.stack([text, torch.where(places < short, text, pad_id)])
    mask = (places < torch.tensor([[len(text)], [short]])).long()
    with without_gradients(encoder):
        together = encoder(input_ids=padded, attention_mask=mask)
        alone = [_states(encoder, text), _states(encoder, text[:short])]
        changed = _states(encoder, other)
    with without_gradients(encoder, training=True):
        encoder(input_ids=padded, attention_mask=mask)  # some ask for more of a text in training
    pairs = zip(together.last_hidden_state, alone, strict=True)
    differences = [relative_difference(states[: len(one)], one) for states, one in pairs]
    unchanged = text == other
    attends = not torch.equal(changed[unchanged], alone[0][unchanged])
    return Trial(float(torch.tensor(differences).max()), getattr(together, "pooler_output", None) is not None, attends)


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference over the norm of the second."""
    return float((one - other).norm() / other.norm())


def _random_texts(length: int, vocabulary: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Return two texts (length,) without padding that differ in the token in the middle."""
    numbers = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(0))
    numbers = numbers[numbers != pad_id]
    tokens = numbers.repeat(length // len(numbers) + 2)
    text, other = tokens[:length].clone(), tokens[:length].clone()
    other[length // 2] = tokens[length // 2 + 1]
    return text, other


def _states(encoder: PreTrainedModel, text: Tensor) -> Tensor:
    """Return the hidden states (tokens, hidden) of one text, without padding."""
    states: Tensor = encoder(input_ids=text[None], attention_mask=torch.ones_like(text)[None]).last_hidden_state
    return states[0]


def _check_positions(encoder: PreTrainedModel, config: ModelConfig) -> None:
    positions = getattr(encoder.config, "max_position_embeddings", None)
    for name, module in encoder.named_modules():
        # RoBERTa and its kin count positions from one after that of padding
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            positions = module.num_embeddings - module.padding_idx - 1
    if positions is not None and 0 < positions < config.max_length:
        raise InputError(
            f"model.max_length={config.max_length}: {encoder.config.model_type} takes {positions} tokens; "
            f"use at most {positions}"
        )


def _check_dropout(encoder: PreTrainedModel, config: ModelConfig) -> None:
    for name, module in encoder.named_modules():
        if config.dropout is not None and isinstance(module, nn.Dropout) and module.p != config.dropout:
            raise InputError(
                f"model.dropout={config.dropout}: {name} of {encoder.config.model_type} keeps {module.p}; "
                "use model.dropout=null"
            )
