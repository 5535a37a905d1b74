"""Encoders of transformers: set their dropout, read their size, run them without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from negexp.config import ModelConfig
from negexp.errors import InputError

# Configuration keys of transformers for dropout on attention probabilities, and on everything else.
ATTENTION_DROPOUT_KEYS = ("attention_probs_dropout_prob", "attention_dropout")
DROPOUT_KEYS = ("hidden_dropout_prob", "hidden_dropout", "dropout", "embedding_dropout", "mlp_dropout")


def prepare_config(encoder_config: PreTrainedConfig, config: ModelConfig) -> None:
    """Set the architecture's own dropout keys to `model.dropout` and `model.attention_dropout`.

    Raises
    ------
    InputError
        When the architecture is an encoder-decoder, or has no dropout that these keys could set.
    """
    kind = encoder_config.model_type
    if encoder_config.is_encoder_decoder:
        raise InputError(f"model.pretrained={config.pretrained}: {kind} is an encoder-decoder; give an encoder")
    everywhere = (*DROPOUT_KEYS, *ATTENTION_DROPOUT_KEYS)
    settings = {
        "dropout": (config.dropout, everywhere),
        "attention_dropout": (config.attention_dropout, ATTENTION_DROPOUT_KEYS),
    }
    for name, (rate, keys) in settings.items():  # attention last: its own rate replaces the general one
        if rate is None:
            continue
        own = [key for key in keys if hasattr(encoder_config, key)]
        if not own and rate > 0:
            raise InputError(f"model.{name}={rate}: {kind} has no such dropout to set; use model.{name}=null")
        for key in own:
            setattr(encoder_config, key, rate)


def freeze_layers(encoder: PreTrainedModel, count: int) -> None:
    """Stop the training of the first `count` transformer layers, and of all parameters before them.

    Raises
    ------
    InputError
        When the encoder has no more than `count` layers, or its layers are not in one list.
    """
    if count == 0:
        return
    layers = encoder.config.num_hidden_layers
    lists = [name for name, part in encoder.named_modules() if isinstance(part, nn.ModuleList) and len(part) == layers]
    if not lists:
        raise InputError(
            f"model.freeze_layers={count}: no list of layers was found in {encoder.config.model_type}; set it to 0"
        )
    if count >= layers:
        raise InputError(
            f"model.freeze_layers={count}: the encoder has only {layers} layers; lower it, or set "
            "model.freeze_encoder=true"
        )
    for name, parameter in encoder.named_parameters():  # in the order of the forward pass
        if name.startswith(f"{lists[0]}.{count}."):
            return
        parameter.requires_grad_(False)


def state_size(encoder: PreTrainedModel) -> int:
    """Return the size of an encoder's hidden states, measured: the configuration key differs between architectures."""
    ids = torch.ones(1, 2, dtype=torch.long)
    with without_gradients(encoder):
        size: int = encoder(input_ids=ids, attention_mask=ids).last_hidden_state.shape[-1]
    return size


def pool(output: BaseModelOutputWithPooling, mask: Tensor, pooling: str) -> Tensor:
    """Return pooled states (texts, hidden) in float32 from an encoder's output, by `model.pooling`."""
    if pooling == "pooler":
        pooled = output.pooler_output  # check_encoder has refused encoders without it
        assert pooled is not None
        return pooled.float()
    states = output.last_hidden_state  # (texts, tokens, hidden)
    assert states is not None
    if pooling == "cls":
        return states[:, 0].float().contiguous()  # so that its bits in the heads do not depend on the texts' length
    weight = mask.unsqueeze(-1).float()  # (texts, tokens, 1)
    return (states.float() * weight).sum(1) / weight.sum(1)


@contextmanager
def without_gradients(encoder: PreTrainedModel, training: bool = False) -> Iterator[None]:
    """Run a block without gradients, in training or evaluation mode; then restore the mode and torch's generator."""
    before = encoder.training
    encoder.train(training)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            yield
    finally:
        encoder.train(before)
