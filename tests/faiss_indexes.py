"""faiss indexes with the values of conf/index/faiss.yaml, or others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import yaml

from negexp.components import build
from negexp.components.parse import parse_component
from negexp.config import CONF_DIR
from negexp.index.backends.faiss import FaissIndex


def faiss_index(vectors: np.ndarray, threads: int = 1, **keys: Any) -> FaissIndex:
    values: dict[str, Any] = {}
    for name in ("balltree", "faiss"):  # faiss.yaml extends balltree.yaml
        values |= yaml.safe_load((CONF_DIR / "index" / f"{name}.yaml").read_text())
    del values["defaults"]
    options = parse_component("index", values | keys, "index")
    index: FaissIndex = build("index", options, vectors=vectors, device=torch.device("cpu"), threads=threads)
    return index
