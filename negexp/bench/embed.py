"""Compare embedding with sentence-transformers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from negexp.bench.peers import NOT_INSTALLED, sentence_transformer
from negexp.bench.setting import Setting
from negexp.bench.timing import NEGEXP, PhaseResult, in_turns, rivals
from negexp.randomness import generator
from negexp.runtime import Runtime
from negexp.tokens import tokenize


def compare_embedding(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Tokenise and embed the training arguments: all, or a sample of about `embed_texts`."""
    train, config = setting.corpus["train"], setting.config
    arguments = np.concatenate([train.point, train.counter])
    if config.embed_texts is not None and config.embed_texts < len(arguments):
        arguments = sample_with_copies(arguments, config.embed_texts, generator(config.seed, 0, "bench texts"))
    texts = [setting.corpus.texts[text] for text in arguments]

    def embed() -> NDArray[np.float32]:
        tokens = tokenize(texts, setting.built.tokenizer, config.model.max_length)
        embeddings = replace(setting.encoder, tokens=tokens).embed(np.arange(len(texts)), "texts")
        pooled: NDArray[np.float32] = embeddings.query.pooled.cpu().numpy()[embeddings.rows("query")]
        return pooled

    contenders: dict[str, Any] = {NEGEXP: embed}
    default, same = "sentence-transformers, its defaults (float32)", "sentence-transformers, same precision"
    checks, remarks, targets = [], [], {}
    with ExitStack() as stack:
        try:
            model = stack.enter_context(sentence_transformer(setting))
        except ImportError:
            remarks.append(f"sentence-transformers {NOT_INSTALLED}")
        else:
            contenders[default] = lambda: encode(model, texts)
            contenders[same] = lambda: _with_autocast(setting.runtime, lambda: encode(model, texts))
            targets = {default: 4.0, same: 1.2}
        seconds, results = in_turns(contenders, config.repeats, "embed", config.progress)
    if default in results:
        cosine = _cosines(results[NEGEXP], results[default])
        checks.append(
            f"cosine between negexp's vectors and sentence-transformers' float32 vectors: at least {cosine.min():.6f}"
        )
    tokens = setting.tokens_of(arguments)
    flops = setting.forward_flops(tokens)
    return PhaseResult(
        "embed",
        f"{len(texts)} training arguments, {len(set(texts))} distinct, {tokens} tokens, "
        f"cut at {config.model.max_length}",
        f"{NEGEXP}, {setting.runtime.describe()}",
        seconds[NEGEXP],
        rivals(seconds, targets),
        flops / peak[setting.rate],
        f"{flops / 1e9:.0f} GFLOP of the layers (without attention) at {peak[setting.rate] / 1e9:.0f} GFLOP/s",
        checks,
        remarks,
    )


def sample_with_copies(arguments: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw distinct texts and return all their copies: `size` arguments or a few more."""
    text, count = np.unique(arguments, return_counts=True)
    order = rng.permutation(len(text))
    enough = int(np.searchsorted(np.cumsum(count[order]), size)) + 1
    drawn: NDArray[np.int64] = np.repeat(text[order[:enough]], count[order[:enough]])
    return rng.permutation(drawn)


def encode(model: Any, texts: list[str]) -> NDArray[np.float32]:
    """Return the embeddings of sentence-transformers."""
    vectors: NDArray[np.float32] = model.encode(texts, show_progress_bar=False)
    return vectors


def _with_autocast(runtime: Runtime, work: Any) -> Any:
    with runtime.autocast():
        return work()


def _cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    a, b = first.astype(np.float64), second.astype(np.float64)
    cosines: NDArray[np.float64] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return cosines
