"""Other libraries, each used as its documentation says. The extra `bench` installs them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from negexp.bench.setting import Setting

NOT_INSTALLED = "is not installed: pip install '.[bench]'"


@contextmanager
def sentence_transformer(setting: Setting) -> Iterator[Any]:
    """Yield a SentenceTransformer with the setting's present encoder and tokenizer.

    Raises
    ------
    ImportError
        When sentence-transformers is not installed.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    with tempfile.TemporaryDirectory(prefix="negexp-bench-") as folder:
        encoder = setting.built.model.get_submodule("towers.0.encoder")
        encoder.save_pretrained(folder)  # type: ignore[operator]
        setting.built.tokenizer.save_pretrained(folder)
        transformer = Transformer(folder, max_seq_length=setting.config.model.max_length)
        pooling = Pooling(encoder.config.hidden_size, "mean")  # type: ignore[union-attr]
        yield SentenceTransformer(modules=[transformer, pooling], device=str(setting.runtime.device))


def faiss_flat(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, threads: int) -> Callable[[], Any]:
    """Return a function that builds faiss's IndexFlatL2 over the vectors and searches the queries."""
    import faiss

    faiss.omp_set_num_threads(threads)

    def search() -> Any:
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        return index.search(queries, k)

    return search


def mine_with_sentence_transformers(
    model: Any, points: list[str], counters: list[str], k: int, cache: str | None = None
) -> Callable[[], Any]:
    """Return a function that mines hard negatives with sentence-transformers; `cache` is its folder of embeddings.

    The function returns a dataset with the columns anchor, positive and negative.
    """
    from datasets import Dataset, disable_progress_bars
    from sentence_transformers.util import mine_hard_negatives

    disable_progress_bars()
    pairs = Dataset.from_dict({"anchor": points, "positive": counters})

    def mine() -> Any:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return mine_hard_negatives(pairs, model, num_negatives=k, cache_folder=cache, verbose=False)

    return mine
