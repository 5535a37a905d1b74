"""A cross-encoder from a folder: an encoder with a head of one output, as transformers and sentence-transformers write.

The score is the one that `CrossEncoder(FOLDER).predict` of sentence-transformers gives. Nothing in the folder runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from negexp.errors import InputError
from negexp.model.encoder_check import check_positions

LONGEST_SETTINGS = 2**20  # bytes of a JSON file of settings
ACTIVATIONS = {
    "torch.nn.modules.activation.Sigmoid": True,
    "torch.nn.modules.linear.Identity": False,
}  # as sentence-transformers names them; whether the score is a sigmoid of the logit


class SequenceClassifier(nn.Module):
    """Encoder -> head -> one logit, or its sigmoid.

    takes_types: whether the encoder is given the types that tell the two texts of an input apart. As with transformers
    that is so where the tokenizer has them among its outputs.
    """

    def __init__(self, model: PreTrainedModel, sigmoid: bool, takes_types: bool) -> None:
        super().__init__()
        self.model, self.sigmoid, self.takes_types = model, sigmoid, takes_types

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Return scores (inputs,) in float32 from token ids, attention mask and token types (inputs, tokens)."""
        segments = {"token_type_ids": types} if self.takes_types else {}
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask, **segments).logits[:, 0].float()
        return logits.sigmoid() if self.sigmoid else logits


class LoadedClassifier(NamedTuple):
    """A cross-encoder with its tokenizer; max_length: tokens of both texts together."""

    model: SequenceClassifier
    tokenizer: PreTrainedTokenizerBase
    max_length: int


def load_sequence_classifier(folder: Path, key: str) -> LoadedClassifier:
    """Load a cross-encoder; `key` names the folder in messages, as in `rescore=FOLDER`.

    Raises
    ------
    InputError
        When the folder cannot be loaded, has no trained head, or more than one output.
    """
    common: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **common)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **common
        )
        sigmoid = _uses_sigmoid(folder, model)
    except InputError:
        raise
    except Exception as error:  # the JSON reader, the tokenizer and the encoders raise errors of many types
        reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
        raise InputError(
            f"{key}: cannot be loaded ({reason}); give a folder with config.json, a tokenizer and model.safetensors"
        ) from None
    if report["missing_keys"]:
        raise InputError(f"{key}: is no cross-encoder, since it has no weights for {sorted(report['missing_keys'])[0]}")
    if model.config.num_labels != 1:
        raise InputError(f"{key}: has {model.config.num_labels} outputs; give a cross-encoder with one score")
    takes_types = "token_type_ids" in tokenizer.model_input_names
    classifier = SequenceClassifier(model.eval(), sigmoid, takes_types)
    return LoadedClassifier(classifier, tokenizer, _max_length(model, tokenizer, key))


def _uses_sigmoid(folder: Path, model: PreTrainedModel) -> bool:
    """Return whether the folder's score is the sigmoid of the logit: so it is, unless the folder says otherwise."""
    name = getattr(model.config, "sbert_ce_default_activation_function", None)
    name = (getattr(model.config, "sentence_transformers", None) or {}).get("activation_fn", name)
    settings = folder / "config_sentence_transformers.json"
    if settings.is_file() and settings.stat().st_size <= LONGEST_SETTINGS:
        name = json.loads(settings.read_text(encoding="utf-8")).get("activation_fn", name)
    if name is None:
        return True
    if name not in ACTIVATIONS:
        raise ValueError(f"activation_fn {name} is none of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _max_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, key: str) -> int:
    """Return the tokenizer's limit, or the number of positions where it has none."""
    positions = int(getattr(model.config, "max_position_embeddings", 0) or 0)
    length = int(tokenizer.model_max_length)
    if length > LONGEST_SETTINGS:  # transformers' sign of a tokenizer without a limit
        if not positions:
            raise InputError(f"{key}: names no largest number of tokens; set model_max_length in tokenizer_config.json")
        return positions
    check_positions(model, length, f"{key}: model_max_length")
    return length
