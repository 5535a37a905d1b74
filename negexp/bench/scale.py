"""How mining and evaluation grow with the number of arguments, and what that says of sizes that were not run."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from negexp.bench.machine import peak_memory
from negexp.bench.mine import clustered_vectors
from negexp.bench.setting import Setting
from negexp.corpus import Split
from negexp.evaluation.ranking import rank_queries, squared_distance_scorer
from negexp.index import build_index
from negexp.model import PairScores
from negexp.model.bi_encoder import PairClassifier
from negexp.randomness import generator
from negexp.sampling import Forbidden, SamplingRound, build_sampler

log = logging.getLogger("negexp")

DIM = 128
SMALLEST = 1000  # arguments
FITTED = 3  # of the largest sizes: what is constant, or linear, has faded there
PREDICTED = (10**6, 10**7)


@dataclass(frozen=True)
class Growth:
    """What was measured of one phase: arguments, seconds and peak bytes, by size; and the power law of the largest."""

    phase: str
    arguments: list[int]
    seconds: list[float]
    peak_bytes: list[int | None]

    def exponent(self, values: list[float]) -> tuple[float, float]:
        """Return exponent and factor of the power law through the largest sizes, by least squares of logarithms."""
        slope, offset = np.polyfit(np.log(self.arguments[-FITTED:]), np.log(values[-FITTED:]), 1)
        return float(slope), float(np.exp(offset))

    def predict(self, arguments: int) -> tuple[float, float | None]:
        """Return seconds and bytes at a size: by the power law, and by the straight line through the last two sizes."""
        slope, factor = self.exponent(self.seconds)
        (n0, n1), (before, last) = self.arguments[-2:], self.peak_bytes[-2:]
        if before is None or last is None:
            return factor * arguments**slope, None
        return factor * arguments**slope, last + max(0.0, (last - before) / (n1 - n0)) * (arguments - n1)


def measure_growth(setting: Setting) -> list[Growth]:
    """Double the number of arguments until the next size would not fit into the time given."""
    mining, evaluation = Growth("mining", [], [], []), Growth("evaluation", [], [], [])
    budget = 60 * setting.config.scale_minutes
    for phase, work in ((mining, mine), (evaluation, evaluate)):
        arguments, spent = SMALLEST, 0.0
        work(setting, *made_up_pairs(arguments // 2, setting.config.seed))  # what is loaded once
        while arguments <= setting.config.scale_largest:
            pairs, vectors = made_up_pairs(arguments // 2, setting.config.seed)
            start = time.perf_counter()
            peak = peak_memory(lambda: work(setting, pairs, vectors))  # noqa: B023  # called at once
            taken = time.perf_counter() - start
            phase.arguments.append(arguments)
            phase.seconds.append(taken)
            phase.peak_bytes.append(peak)
            log.info(f"{phase.phase}: {arguments} arguments in {taken:.2f} s")
            spent += taken
            if len(phase.arguments) >= FITTED and spent + 4.5 * taken > budget / 2:  # the next takes four times as long
                break
            arguments *= 2
    return [mining, evaluation]


def made_up_pairs(pairs: int, seed: int) -> tuple[Split, NDArray[np.float32]]:
    """Return pairs in debates of eight and in fifteen themes, some counters copies, and a unit vector for each text."""
    rows = np.arange(pairs)
    counter = pairs + rows
    copied = generator(seed, 0, "bench copies").random(pairs) < 1 / 8
    counter[copied] = pairs + (rows[copied] + 1) % pairs
    split = Split(
        ids=tuple(map(str, range(pairs))),
        point=rows,
        counter=counter,
        theme=rows * 15 // pairs,
        debate=rows // 8,
        stance=rows % 2,
    )
    return split, clustered_vectors(2 * pairs, DIM, seed)


def mine(setting: Setting, pairs: Split, vectors: NDArray[np.float32]) -> None:
    """Build both indexes and choose a hard negative for every pair."""
    sampler, index = replace(setting.config.sampler, name="hard"), replace(setting.config.index, name="exact")
    forbidden = Forbidden(pairs.point, pairs.counter, sampler.exclude)
    tables = {"point": vectors[pairs.point], "counter": vectors[pairs.counter]}
    runtime = setting.runtime
    indexes = {name: build_index(table, index, runtime.device, runtime.threads) for name, table in tables.items()}
    rng = generator(setting.config.seed, 0, "negatives")
    round_ = SamplingRound(0, sampler.num_negatives, "both", forbidden, rng, indexes, tables["point"])
    build_sampler(sampler).sample(round_)


def evaluate(setting: Setting, pairs: Split, vectors: NDArray[np.float32]) -> None:
    """Rank all pairs in all tasks, protocols and stages."""
    config = setting.config
    torch.manual_seed(config.seed)
    table = torch.from_numpy(vectors), torch.from_numpy(vectors)
    scores = PairScores(PairClassifier(DIM, DIM, config.model).eval(), table, table)

    @torch.inference_mode()
    def classify(points: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = scores(torch.from_numpy(points), torch.from_numpy(candidates)).double().numpy()
        return found

    score = squared_distance_scorer(vectors, vectors)
    rank_queries(pairs, score, classify, config.evaluation.rerank_k, config.evaluation.block_bytes)


def plot_growth(growths: list[Growth], path: Path) -> None:
    """Draw seconds and peak memory over arguments, with the fitted power laws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for growth in growths:
        slope, factor = growth.exponent(growth.seconds)
        (line,) = time_axes.plot(growth.arguments, growth.seconds, "o", label=f"{growth.phase}: n^{slope:.2f}")
        ends = np.array([growth.arguments[0], max(PREDICTED)], dtype=float)
        time_axes.plot(ends, factor * ends**slope, "--", color=line.get_color(), linewidth=1)
        if None not in growth.peak_bytes:
            memory_axes.plot(growth.arguments, [(b or 0) / 2**20 for b in growth.peak_bytes], "o-", label=growth.phase)
    for axes, name in ((time_axes, "seconds"), (memory_axes, "peak memory, MiB")):
        axes.set(xlabel="arguments", ylabel=name, xscale="log", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
