"""faiss (Douze et al. 2024, arXiv 2401.08281; extra `faiss`): flat search, cells of k-means (IVF), or a graph (HNSW).

faiss chooses candidates by distances in float32, whose error is bounded. The base classes compute the distances of the
candidates in float64, and look for more where a tie could be cut. So flat search is exact. IVF and HNSW may miss
neighbours; a sample of their searches is compared with `index=exact`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from threadpoolctl import ThreadpoolController

from negexp.components import option
from negexp.config import IndexConfig
from negexp.errors import InputError
from negexp.index.base import Floats, Ints
from negexp.index.recall import QuerySample
from negexp.index.widening import WideningIndex
from negexp.modules import is_installed
from negexp.randomness import derive, generator

if TYPE_CHECKING:
    import torch

ROUNDING = 2.0**-24  # relative error of one operation in float32
GPU_ROUNDING = 2.0**-10  # of a product whose factors a GPU may round to TF32
GPU_WIDTH = 2048  # most neighbours that faiss finds on a GPU
VECTORS_A_CELL = 39  # faiss advises at least so many to train k-means


@dataclass
class FaissOptions(IndexConfig):
    """The keys of `index=faiss`."""

    kind: str = option(
        "flat: exact; ivf: in the nprobe nearest of nlist cells; hnsw: in a graph", choices=("flat", "ivf", "hnsw")
    )
    nlist: int | None = option("ivf: cells; null: 4 sqrt(vectors), or fewer, so that a cell has 39 vectors", low=1)
    nprobe: int = option("ivf: cells searched for a query", low=1)
    m: int = option("hnsw: links of a vector", low=2, high=1024)
    ef_construction: int = option(
        "hnsw: candidates while the graph is built. One thread builds it, so that it is the same every time", low=1
    )
    ef_search: int = option("hnsw: candidates while the graph is searched", low=1)
    seed: int = option(
        "k-means, the graph and the sample of queries; apart from `seed`, so that arms have one index", low=0
    )
    recall_queries: int = option(
        "ivf, hnsw: so many of the queries of a refresh are searched exactly too, which gives index_recall", low=1
    )
    gpu: bool = option("true: search on the GPU (flat, ivf), with a build of faiss that has it")

    def check(self) -> None:
        """Raise `InputError` unless faiss is installed, and for `gpu` has a GPU. It is imported for `gpu` only."""
        if not is_installed("faiss"):
            raise InputError("name=faiss: the package faiss is not installed; pip install 'negexp[faiss]'")
        if not self.gpu:
            return
        if self.kind == "hnsw":
            raise InputError("gpu=true: kind=hnsw runs on the CPU only; use kind=ivf or kind=flat, or gpu=false")
        import faiss

        if not hasattr(faiss, "StandardGpuResources"):
            raise InputError(
                "gpu=true: the installed faiss is built for CPUs; install faiss-gpu in its place, or use gpu=false"
            )
        if faiss.get_num_gpus() == 0:
            raise InputError("gpu=true: faiss sees no GPU; use gpu=false")


class FaissIndex(WideningIndex):
    """A faiss index over the distinct vectors. Norms of vectors and queries must be below 1e18."""

    Options = FaissOptions

    @classmethod
    def from_options(cls, options: IndexConfig, vectors: np.ndarray, device: torch.device, threads: int) -> Self:
        """Return an index that searches with the given threads, or on the device with `gpu`."""
        assert isinstance(options, FaissOptions)
        return cls(options, vectors, device, threads)

    def __init__(self, options: FaissOptions, vectors: np.ndarray, device: torch.device, threads: int) -> None:
        super().__init__(vectors, options.block_bytes)
        import faiss

        self.options, self.device, self.threads = options, device, threads
        self.faiss: Any = faiss  # its types lack half of the arguments
        self.pools = ThreadpoolController()  # faiss and its BLAS have thread pools of their own
        self.longest = float(_norms(self.vectors).max())
        self.index = self._build()
        self.searched = self._on_gpu(self.index) if options.gpu else self.index
        self.sample = QuerySample(options.recall_queries, generator(options.seed, 0, "index recall"))

    def search(self, queries: np.ndarray, k: int) -> tuple[Floats, Ints]:
        """Return distances and rows (queries, k) of the k nearest, nearest first; ties in the order of rows."""
        distances, rows = super().search(queries, k)
        if self.options.kind != "flat":
            self.sample.add(queries, rows)
        return distances, rows

    def statistics(self) -> dict[str, float]:
        """Return `index_recall`: the share of the rows of `index=exact` that ivf or hnsw found, in a sample."""
        if not self.sample:
            return {}
        from negexp.index.backends.exact import ExactIndex  # here, since it imports torch

        exact = ExactIndex(self.vectors, self.block_bytes, self.device)
        exact.copies = self.copies  # its vectors are distinct already, its rows are those of this index
        return {"index_recall": self.sample.recall(exact.search)}

    def _build(self) -> Any:
        """Return the faiss index on the CPU, with the vectors."""
        faiss, options, vectors = self.faiss, self.options, self.vectors.astype(np.float32, copy=False)
        rows, dim = vectors.shape
        seed = derive(options.seed, 0, "index") % 2**31
        threads = self.threads
        if options.kind == "ivf":
            nlist = options.nlist or max(1, min(int(4 * rows**0.5), rows // VECTORS_A_CELL))
            index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, min(nlist, rows))
            index.nprobe = min(options.nprobe, index.nlist)
            index.cp.seed, index.cp.min_points_per_centroid = seed, 1
        elif options.kind == "hnsw":
            index = faiss.IndexHNSWFlat(dim, options.m)
            index.hnsw.efConstruction, index.hnsw.efSearch = options.ef_construction, options.ef_search
            index.hnsw.rng = faiss.RandomGenerator(seed)
            threads = 1  # threads would link the vectors in an order that differs from build to build
        else:
            index = faiss.IndexFlatL2(dim)
        with self.pools.limit(limits=threads):
            index.train(vectors)
            index.add(vectors)
        return index

    def _on_gpu(self, index: Any) -> Any:
        self.resources = self.faiss.StandardGpuResources()  # the index on the GPU does not keep it alive
        return self.faiss.index_cpu_to_gpu(self.resources, self.device.index or 0, index)

    def _width(self, k: int) -> int:
        return 2 * k + 8  # more cost little; in float32 a tie with the k-th is excluded only at some distance

    def _nearest(self, queries: np.ndarray, k: int, width: int) -> tuple[Floats, Ints]:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        with self.pools.limit(limits=self.threads):
            if self.options.gpu and width > GPU_WIDTH:
                squared, vectors = self._search_all(queries, width)
            else:
                squared, vectors = self.searched.search(queries, width)
                few = vectors[:, k - 1] < 0  # in the cells of the query, or in its part of the graph
                if few.any():
                    squared[few], vectors[few] = self._search_all(queries[few], width)
        distances: Floats = np.where(vectors < 0, np.inf, squared.astype(np.float64))
        return distances, vectors

    def _search_all(self, queries: np.ndarray, width: int) -> tuple[np.ndarray, Ints]:
        """Search all vectors on the CPU: every cell, or no graph."""
        index, parameters = self.index, None
        if self.options.kind == "ivf":
            parameters = self.faiss.SearchParametersIVF(nprobe=index.nlist)
        elif self.options.kind == "hnsw":
            index = self.faiss.downcast_index(index.storage)
        squared, vectors = index.search(queries, width, params=parameters)
        return squared, vectors

    def _error(self, queries: np.ndarray) -> Floats:
        """Return a bound on the error of |q|^2 + |x|^2 - 2 q.x, its norms and product summed in any order."""
        dim = self.vectors.shape[1]
        relative = (dim + 8) * ROUNDING + (GPU_ROUNDING if self.options.gpu else 0)
        error: Floats = relative * (_norms(queries) + self.longest) ** 2 + dim * 2.0**-126
        return error


def _norms(vectors: np.ndarray) -> Floats:
    norms: Floats = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return norms
