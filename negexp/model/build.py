"""Build a model with its tokenizer: random, pretrained (from the hub or a folder), or from a run folder."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from huggingface_hub import HfApi
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from negexp.config import ModelConfig
from negexp.errors import InputError
from negexp.model.bi_encoder import BiEncoder, PairClassifier, QueryHead, Tower
from negexp.model.encoder import prepare_config
from negexp.model.encoder_check import check_encoder
from negexp.model.fused import fuse
from negexp.randomness import derive
from negexp.tokens import padding_id, train_vocabulary

LARGEST_ENCODER_FILE = 256 * 2**20  # bytes, ten times the largest known vocabulary
MOST_LAYERS = 1000


class BuiltModel(NamedTuple):
    """A model, with the tokenizer and the encoder configuration that are needed to build it again."""

    model: BiEncoder
    tokenizer: PreTrainedTokenizerBase
    encoder_config: PreTrainedConfig

    def save(self, folder: Path) -> None:
        """Write the encoder's configuration and tokenizer for `restore_model`."""
        self.tokenizer.save_pretrained(folder)
        self.encoder_config.save_pretrained(folder)


def quiet_transformers() -> None:
    """Let transformers log errors only, and draw no bars: negexp has lines and bars of its own."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def build_model(
    config: ModelConfig, seed: int, vocabulary_texts: Sequence[str], *, heads: bool = True, fused: str = "auto"
) -> BuiltModel:
    """Build the model at the start of a run; without `heads`, it has no pair classifier (zero-shot).

    `fused=auto` gives the encoder the fast paths (`negexp.model.fused`); with `off`, it stays unchanged.

    Raises
    ------
    InputError
        When `model.pretrained` cannot be loaded. The message says how to fetch it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, 0, "model"))
        if config.pretrained is None:
            tokenizer: PreTrainedTokenizerBase = train_vocabulary(
                vocabulary_texts, config.vocabulary_size, config.max_length
            )
            encoder = _without_weights(_tiny_config(config, len(tokenizer)))
        else:
            tokenizer, encoder = _load_pretrained(config)
        if fused == "auto":
            fuse(encoder)
        if config.pretrained is not None:  # after fusing: the fast paths are checked as well
            check_encoder(encoder, config, len(tokenizer), padding_id(tokenizer))
        return BuiltModel(_assemble(encoder, config, heads), tokenizer, encoder.config)


def restore_model(config: ModelConfig, folder: Path, weights_bytes: int, *, fused: str = "auto") -> BuiltModel:
    """Build the model of a run from its `encoder/` folder, without loading its weights; `fused` as in `build_model`.

    Raises
    ------
    InputError
        When the folder is damaged, or describes an encoder that is larger than the file of its weights.
    """
    _check_files(folder)
    try:
        encoder_config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        _check_size(encoder_config, weights_bytes)
        with torch.random.fork_rng():
            encoder = _without_weights(encoder_config)
            if fused == "auto":
                fuse(encoder)
            return BuiltModel(_assemble(encoder, config, heads=True), tokenizer, encoder.config)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # the JSON reader, the tokenizer and the encoders raise errors of many types
        raise InputError(f"{folder}: cannot be loaded ({_first_line(error)}); the run folder is damaged") from None


def _check_files(folder: Path) -> None:
    """Raise `InputError` for links, devices and oversized files: reading one could leave the folder or never end."""
    for file in folder.iterdir() if folder.is_dir() else []:
        if file.is_symlink() or not file.is_file() or file.stat().st_size > LARGEST_ENCODER_FILE:
            raise InputError(
                f"{file}: is not a regular file of at most {LARGEST_ENCODER_FILE} bytes; restore the file that the run "
                "wrote"
            )


def _check_size(encoder_config: PreTrainedConfig, weights_bytes: int) -> None:
    """Raise `ValueError` when a configuration describes a larger encoder than its file of weights holds."""
    for key, value in encoder_config.to_dict().items():
        if isinstance(value, int) and value > MOST_LAYERS and re.search("layer|block|expert", key):
            raise ValueError(f"config.json: {key}={value} is more than any known encoder has")
    with torch.device("meta"):  # shapes without memory
        encoder = _without_weights(encoder_config)
    size = sum(parameter.numel() * parameter.element_size() for parameter in encoder.parameters())
    if size > weights_bytes:
        raise ValueError(f"config.json describes {size} bytes of weights, model.safetensors has {weights_bytes}")


def zero_shot_config(config: ModelConfig) -> ModelConfig:
    """Return the configuration without heads, and with normalised embeddings: Euclidean order equals cosine order."""
    return replace(config, retrieval_dim=None, normalize=True, shared_encoder=True, query_head="none")


def _assemble(encoder: PreTrainedModel, config: ModelConfig, heads: bool) -> BiEncoder:
    towers = [Tower(encoder, config)]
    if not config.shared_encoder:
        towers.append(Tower(copy.deepcopy(encoder), config))
        if config.retrieval_dim is not None:  # both heads start equal
            towers[1].head.load_state_dict(towers[0].head.state_dict())
    classifier = PairClassifier(towers[0].retrieval_size, towers[0].hidden_size, config) if heads else None
    query_head = QueryHead(towers[0].retrieval_size, config.normalize) if config.query_head == "residual" else None
    return BiEncoder(towers, classifier, query_head)


def _tiny_config(config: ModelConfig, vocabulary: int) -> BertConfig:
    dropout = config.dropout or 0.0
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.attention_heads,
        intermediate_size=4 * config.hidden_size,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout if config.attention_dropout is None else config.attention_dropout,
        max_position_embeddings=config.max_length,
    )


def _without_weights(encoder_config: PreTrainedConfig) -> PreTrainedModel:
    """Return an encoder of this configuration with random weights."""
    encoder: PreTrainedModel = AutoModel.from_config(encoder_config, trust_remote_code=False)
    return encoder


def _load_pretrained(config: ModelConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load tokenizer and encoder from a folder, else from the hub's cache, else from the hub."""
    name = str(config.pretrained)
    folder = Path(name).expanduser()
    try:
        if folder.is_dir():
            return _from_pretrained(str(folder), config, local=True)
        if folder.is_absolute() or name.startswith((".", "~")):
            raise OSError("no such folder")
        try:
            return _from_pretrained(name, config, local=True)
        except (OSError, ValueError):
            # One request with a time limit: without a network, loading would retry and wait many times.
            HfApi().model_info(name, revision=config.revision, timeout=10)
            return _from_pretrained(name, config, local=False)
    except InputError:
        raise
    except Exception as error:  # the hub client, the JSON reader and the tokenizer raise errors of many types
        raise InputError(
            f"model.pretrained={config.pretrained}: cannot be loaded ({_first_line(error)}); give a local folder with "
            f"config.json, tokenizer.json and model.safetensors, or a hub id; to fetch a model on a machine "
            f"with a network: hf download ORGANISATION/NAME"
        ) from None


def _from_pretrained(name: str, config: ModelConfig, local: bool) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    common = {"revision": config.revision or "main", "trust_remote_code": False, "local_files_only": local}
    tokenizer = AutoTokenizer.from_pretrained(name, **common)
    encoder_config = AutoConfig.from_pretrained(name, **common)
    prepare_config(encoder_config, config)
    # safetensors only: the older format is a pickle, and loading a pickle can run code
    encoder = AutoModel.from_pretrained(
        name,
        config=encoder_config,
        use_safetensors=True,
        dtype=torch.float32,
        **common,
    )
    return tokenizer, encoder


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
