"""All that the bits of pooled embeddings depend on. Two calls with the same key give the same bits."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedConfig

from negexp.embedding import TextEncoder
from negexp.model.bi_encoder import Tower
from negexp.processor import processor_name
from negexp.runtime import Runtime
from negexp.tracking.run_folder import versions

FORMAT = 1  # of the stored blocks; raise it when what they mean changes
NAMES_ONLY = ("_name_or_path", "transformers_version")  # keys of an encoder's configuration that compute nothing
ROUNDING = ("ATEN_", "CUBLAS_", "DNNL_", "MKL_", "NVIDIA_TF32_", "ONEDNN_")  # variables that choose kernels

Ints = NDArray[np.int64]


class Key(NamedTuple):
    """The key of the pooled embeddings of some texts.

    weights: SHA-256 of the encoder's weights. values: all else. digests: SHA-256 of the tokens of each text. size: of a
    pooled embedding.
    """

    weights: str
    values: dict[str, Any]
    digests: list[bytes]
    size: int

    def name(self) -> str:
        """Return a SHA-256 of the whole key."""
        return hashlib.sha256(json.dumps([self.weights, self.values], sort_keys=True).encode()).hexdigest()


def key_of(encoder: TextEncoder, tower: Tower, rows: Ints, fused: str) -> Key:
    """Return the key of the pooled embeddings of some texts (rows of the token table), embedded in one go.

    Rounding depends on the texts of a batch, on the number of threads and on the processor. So all texts are in the
    key, in their order, and so is the machine. Tokens stand for the texts, the tokenizer and `model.max_length`.
    """
    digests = encoder.tokens.digests(rows)
    values = {
        "format": FORMAT,
        "encoder": [type(tower.encoder).__qualname__, _computing(tower.encoder.config), fused],
        "pooling": tower.pooling,
        "texts": hashlib.sha256(b"".join(digests)).hexdigest(),
        "pad_id": encoder.tokens.pad_id,
        "machine": _machine(encoder.runtime),
        "versions": versions(),
    }
    return Key(weights_digest(tower.encoder), values, digests, tower.hidden_size)


def weights_digest(module: nn.Module) -> str:
    """Return a SHA-256 of names, types, shapes and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _computing(config: PreTrainedConfig) -> dict[str, Any]:
    """Return an encoder's configuration without the name of its folder, so that a copy of the folder has the same."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    kept = {key: value for key, value in values.items() if key not in NAMES_ONLY}
    return kept | {"attention": config._attn_implementation}


def _machine(runtime: Runtime) -> dict[str, Any]:
    libraries = [torch.version.cuda, torch.backends.cudnn.version()] if runtime.device.type == "cuda" else []
    return {
        "runtime": runtime.describe(),
        "tokens_per_batch": runtime.tokens_per_batch,
        "processor": [processor_name(), torch.backends.cpu.get_cpu_capability()],
        "libraries": libraries,
        "environment": {name: value for name, value in os.environ.items() if name.startswith(ROUNDING)},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_products": torch.get_float32_matmul_precision(),
    }
