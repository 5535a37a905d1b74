"""Check an encoder by embedding two texts in the way that all texts are embedded.

In some architectures of transformers, padding changes the hidden states of a text, by design or by a defect. Others
need inputs that a text does not have. A list of such architectures would be out of date with the next release.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from negexp.config import ModelConfig
from negexp.errors import InputError
from negexp.model.encoder import without_gradients

LONGEST_PROBE = 1024  # tokens
TOLERANCE = 1e-3  # relative difference of hidden states; rounding errors are below a hundredth of it
# The errors of architectures that reject the input, or that need another input or library.
REFUSALS = (AssertionError, AttributeError, ImportError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def check_encoder(encoder: PreTrainedModel, config: ModelConfig, vocabulary: int, pad_id: int) -> None:
    """Raise `InputError` for an encoder that cannot embed texts of `model.max_length` tokens correctly.

    `vocabulary` is the number of token ids; `pad_id` is the id that pads shorter texts.

    Raises
    ------
    InputError
        When the encoder has fewer positions, ignores `model.dropout`, has no output for `model.pooling`, computes other
        hidden states for padded texts, or computes no attention.
    """
    _check_positions(encoder, config)
    _check_dropout(encoder, config)
    name, kind = f"model.pretrained={config.pretrained}", encoder.config.model_type
    length = min(config.max_length, LONGEST_PROBE)
    try:
        result = _probe(encoder, *_random_texts(length, vocabulary, pad_id), pad_id)
    except REFUSALS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: {kind} cannot embed a text of {length} tokens ({reason}); use another") from None
    if config.pooling == "pooler" and not result.pooled:
        raise InputError(f"model.pooling=pooler: {kind} has no pooled output; use cls or mean")
    if not result.padding_difference <= TOLERANCE:  # NaN is refused too
        raise InputError(
            f"{name}: {kind} gives padded texts other hidden states, by {result.padding_difference:.1%}, so that an "
            "embedding depends on its batch; use another encoder"
        )
    if not result.attends:
        raise InputError(f"{name}: {kind} computes no attention here; use another encoder")


class ProbeResult(NamedTuple):
    """How an encoder treated two texts.

    padding_difference: the largest relative difference of hidden states between padded and unpadded texts.
    pooled: whether the encoder has a pooled output.
    attends: whether a change of one token changes the hidden states of other tokens.
    """

    padding_difference: float
    pooled: bool
    attends: bool


def _probe(encoder: PreTrainedModel, text: Tensor, other: Tensor, pad_id: int) -> ProbeResult:
    """Embed a text (tokens,) and its first third in one batch, then each alone, then `other`.

    `other` differs from the text in one token. Window attention depends on the length, so the text should be as long as
    the longest texts of the corpus.
    """
    places, short = torch.arange(len(text)), max(1, len(text) // 3)
    padded = torch.stack([text, torch.where(places < short, text, pad_id)])
    mask = (places < torch.tensor([[len(text)], [short]])).long()
    with without_gradients(encoder):
        together = encoder(input_ids=padded, attention_mask=mask)
        alone = [_states(encoder, text), _states(encoder, text[:short])]
        changed = _states(encoder, other)
    with without_gradients(encoder, training=True):
        encoder(input_ids=padded, attention_mask=mask)  # some need more inputs in training mode
    pairs = zip(together.last_hidden_state, alone, strict=True)
    differences = [relative_difference(states[: len(one)], one) for states, one in pairs]
    unchanged = text == other
    attends = not torch.equal(changed[unchanged], alone[0][unchanged])
    pooled = getattr(together, "pooler_output", None) is not None
    return ProbeResult(float(torch.tensor(differences).max()), pooled, attends)


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference, divided by the norm of `other`."""
    return float((one - other).norm() / other.norm())


def _random_texts(length: int, vocabulary: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Return two texts (length,) without padding; they differ in the middle token."""
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
    check_positions(encoder, config.max_length, "model.max_length")


def check_positions(encoder: PreTrainedModel, max_length: int, key: str) -> None:
    """Raise `InputError` when an encoder has fewer positions than the tokens that a key allows."""
    positions = getattr(encoder.config, "max_position_embeddings", None)
    for name, module in encoder.named_modules():
        # RoBERTa and related models count positions from `padding_idx + 1`
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            positions = module.num_embeddings - module.padding_idx - 1
    if positions is not None and 0 < positions < max_length:
        raise InputError(
            f"{key}={max_length}: {encoder.config.model_type} takes {positions} tokens; use at most {positions}"
        )


def _check_dropout(encoder: PreTrainedModel, config: ModelConfig) -> None:
    if config.dropout is None:
        return
    asked = (config.dropout, config.attention_dropout)
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Dropout) and module.p not in asked:
            raise InputError(
                f"model.dropout={config.dropout}: {name} of {encoder.config.model_type} keeps {module.p}; "
                "use model.dropout=null"
            )
