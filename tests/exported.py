"""A small run, its export as sentence-transformers loads it, and the texts that both are compared on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from conftest import Train, compose_train

from negexp.corpus import load_corpus
from negexp.export.run import export_run


class Exported(NamedTuple):
    """model: the loaded folder. points, counters: texts of the test pairs. own: negexp's metrics, clean, retrieval."""

    model: Any
    points: list[str]
    counters: list[str]
    own: dict[str, dict[str, float]]


def exported_run(run_training: Train, output: Path) -> Exported:
    """Train a small run with a query head, export it to `output`, and load that folder."""
    from sentence_transformers import SentenceTransformer

    overrides = ["experiment=smoke", "trainer.epochs=1", "model.query_head=residual", "data.max_pairs=null"]
    run = run_training(*overrides)
    export_run(run, output)
    model = SentenceTransformer(str(output), device="cpu", local_files_only=True)
    corpus = load_corpus(compose_train(*overrides).data)
    split = corpus["test"]
    points, counters = ([corpus.texts[row] for row in column] for column in (split.point, split.counter))
    own = json.loads((run / "evaluation" / "test.json").read_text())["metrics"]["clean"]["retrieval"]
    return Exported(model, points, counters, own)
