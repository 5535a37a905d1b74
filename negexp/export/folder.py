"""Write a bi-encoder as a folder that `SentenceTransformer(FOLDER)` loads.

The format is public: `modules.json` lists the modules, each has a folder with JSON and safetensors. So writing needs no
sentence-transformers, and nothing that is written is a pickle or names code of ours. Modules have their earlier names
(`sentence_transformers.models.Pooling`), which all versions read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from negexp.model import BuiltModel, Role
from negexp.model.bi_encoder import QueryHead, Tower
from negexp.tokens import padding_id

PLACE = "sentence_transformers.models"
LEFT_OUT = ("auto_map", "name_or_path", "is_local", "local_files_only")  # of a tokenizer: code, and this machine
EMBEDDING = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
# The names of torch's classes, which sentence-transformers imports for a Dense module.
LINEAR, GELU = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.GELU"


class Module(NamedTuple):
    """A module of sentence-transformers: the name of its class, and a function that writes its files into a folder."""

    kind: str
    write: Callable[[Path], None]


def write_folder(built: BuiltModel, max_length: int, folder: Path) -> None:
    """Write the encoders, pooling, heads and tokenizer of a model, which must not have the CPU's fast paths.

    With one encoder, the folder holds it and its heads; a query head is a Router behind them. With two encoders, the
    folder is a Router of both. Without a task, as in `encode`, a Router takes the route `document`.

    The similarity is the cosine where embeddings are normalised, else minus the Euclidean distance. Both order
    candidates as negexp does.
    """
    model = built.model
    tokenizer = _portable(built.tokenizer, max_length)
    query, document = (_tower_modules(_tower(model.tower(role)), tokenizer, max_length) for role in _roles())
    head = [] if model.query_head is None else _query_head_modules(model.query_head)
    shared = [*query, _router(head, [])] if head else query
    modules = shared if model.shared else [_router(query + head, document)]
    listed = []
    for number, module in enumerate(modules):
        path = f"{number}_{module.kind}" if number else ""
        (folder / path).mkdir(exist_ok=True)
        module.write(folder / path)
        listed.append({"idx": number, "name": str(number), "path": path, "type": f"{PLACE}.{module.kind}"})
    _write(folder / "modules.json", listed)
    _write(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "__version__": {"transformers": transformers.__version__, "pytorch": torch.__version__},
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if model.tower("query").normalize else "euclidean",
        },
    )


def _roles() -> tuple[Role, Role]:
    return "query", "candidate"


def _tower(tower: Tower) -> Tower:
    """Return a tower whose encoder names no code of a repository in its configuration."""
    for name in ("auto_map", "custom_pipelines"):
        if hasattr(tower.encoder.config, name):
            delattr(tower.encoder.config, name)
    return tower


def _portable(tokenizer: PreTrainedTokenizerBase, max_length: int) -> PreTrainedTokenizerBase:
    """Return the tokenizer, set to give an encoder what negexp gives it: ids and mask, padded on the right."""
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = max_length
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # no token types: the encoder's default, as here
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding_id(tokenizer))
    kept = {key: value for key, value in tokenizer.init_kwargs.items() if key not in LEFT_OUT}
    written = ("padding_side", "model_input_names")  # a tokenizer saves only what its `init_kwargs` name
    tokenizer.init_kwargs = kept | {key: getattr(tokenizer, key) for key in written}
    return tokenizer


def _tower_modules(tower: Tower, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Module]:
    modules = [_transformer(tower.encoder, tokenizer, max_length, tower.pooling)]
    if tower.pooling != "pooler":
        modules.append(_pooling(tower.pooling, tower.hidden_size))
    if isinstance(tower.head, nn.Linear):
        modules.append(_dense(tower.head.weight, tower.head.bias, LINEAR))
    return [*modules, *_normalize(tower.normalize)]


def _query_head_modules(head: QueryHead) -> list[Module]:
    """Return z + U gelu(V z + b) as two layers: gelu(x) - gelu(-x) = x, so the second layer gets z back from two units.

    The layers are [V; I; -I] with the bias [b; 0; 0], and [U, I, -I] without one.
    """
    size = head.inner.out_features
    one, zeros = torch.eye(size), torch.zeros(2 * size)
    inner = torch.cat([head.inner.weight, one, -one])
    outer = torch.cat([head.outer.weight, one, -one], dim=1)
    bias = torch.cat([head.inner.bias, zeros])
    return [_dense(inner, bias, GELU), _dense(outer, None, LINEAR), *_normalize(head.normalize)]


def _transformer(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, pooling: str) -> Module:
    def write(folder: Path) -> None:
        encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        keys: dict[str, Any] = {"max_seq_length": max_length, "do_lower_case": False}
        if pooling == "pooler":  # the encoder's own pooled output becomes the embedding, and no module pools
            keys["modality_config"] = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
            keys["module_output_name"] = "sentence_embedding"
        _write(folder / "sentence_bert_config.json", keys)

    return Module("Transformer", write)


def _pooling(pooling: str, size: int) -> Module:
    keys = {"word_embedding_dimension": size, "pooling_mode_cls_token": pooling == "cls"}
    keys |= {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_max_tokens": False, "include_prompt": True}
    return Module("Pooling", lambda folder: _write(folder / "config.json", keys))


def _dense(weight: Tensor, bias: Tensor | None, activation: str) -> Module:
    def write(folder: Path) -> None:
        keys = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
        _write(folder / "config.json", {**keys, "activation_function": activation})
        tensors = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors"
        )

    return Module("Dense", write)


def _normalize(wanted: bool) -> list[Module]:
    return [Module("Normalize", lambda folder: _write(folder / "config.json", EMBEDDING))] if wanted else []


def _router(query: Sequence[Module], document: Sequence[Module]) -> Module:
    """Return a Router: `encode_query` takes the first modules, `encode_document` and `encode` the second ones."""

    def write(folder: Path) -> None:
        types: dict[str, str] = {}
        structure: dict[str, list[str]] = {}
        for route, modules in {"query": query, "document": document}.items():
            structure[route] = [f"{route}_{number}_{module.kind}" for number, module in enumerate(modules)]
            for name, module in zip(structure[route], modules, strict=True):
                types[name] = f"{PLACE}.{module.kind}"
                (folder / name).mkdir()
                module.write(folder / name)
        parameters = {"default_route": "document", "allow_empty_key": True}
        _write(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})

    return Module("Router", write)


def _write(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
