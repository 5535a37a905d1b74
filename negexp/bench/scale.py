"""Measure how mining and evaluation grow with the number of arguments, and predict larger sizes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from negexp.bench.machine import measure
from negexp.bench.phases import sample_negatives, sampler_options
from negexp.bench.setting import Setting
from negexp.bench.synthetic import synthetic_pairs
from negexp.corpus import Split
from negexp.evaluation import DistanceScorer, StageScorers, rank_queries
from negexp.model import PairClassifier, PairScores
from negexp.progress import progress_bar

log = logging.getLogger("negexp")

DIM = 128
SMALLEST = 1000  # arguments
FITTED_SIZES = 3  # the largest sizes, where constant and linear costs matter least
PREDICTED_SIZES = (10**6, 10**7)
SECONDS_FACTOR = 4.5  # twice the arguments take at most this many times the seconds

Work = Callable[[Setting, Split, NDArray[np.float32]], None]


@dataclass(frozen=True)
class Growth:
    """The measurements of one phase: arguments, seconds and peak bytes, by size."""

    phase: str
    arguments: list[int]
    seconds: list[float]
    peak_bytes: list[int | None]

    def exponent(self) -> float:
        """Return the exponent of a power law, fitted to the logarithms of the largest sizes by least squares."""
        return float(np.polyfit(np.log(self.arguments[-FITTED_SIZES:]), np.log(self.seconds[-FITTED_SIZES:]), 1)[0])

    def predict(self, arguments: int) -> tuple[float, float | None]:
        """Return predicted seconds and bytes at a size.

        Time is the sum of a constant, a linear and a quadratic part, none negative, with the best relative fit to all
        sizes. A power law would carry linear costs on to all sizes. Memory follows the line through the last two sizes.
        """
        seconds = float(self.parts() @ _powers([arguments])[0])
        (n0, n1), (before, last) = self.arguments[-2:], self.peak_bytes[-2:]
        if before is None or last is None:
            return seconds, None
        return seconds, last + max(0.0, (last - before) / (n1 - n0)) * (arguments - n1)

    def parts(self) -> NDArray[np.float64]:
        """Return the factors of 1, n and n^2 in the seconds."""
        measured = np.array(self.seconds)
        factors: NDArray[np.float64] = nnls(_powers(self.arguments) / measured[:, None], np.ones(len(measured)))[0]
        return factors


def _powers(arguments: list[int]) -> NDArray[np.float64]:
    n = np.array(arguments, dtype=np.float64)
    return np.column_stack([np.ones_like(n), n, n**2])


def measure_growth(setting: Setting) -> list[Growth]:
    """Measure mining and evaluation. Each gets half of the time limit."""
    return [_measure_phase(setting, "mining", mine), _measure_phase(setting, "evaluation", evaluate)]


def _measure_phase(setting: Setting, phase: str, work: Work) -> Growth:
    """Double the number of arguments until the next size would exceed the time limit."""
    config, growth = setting.config, Growth(phase, [], [], [])
    budget = 60 * config.scale_minutes / 2
    arguments, spent, expected = SMALLEST, 0.0, 0.0
    work(setting, *synthetic_pairs(arguments // 2, DIM, config.seed))  # warm up
    sizes = int(math.log2(config.scale_largest / SMALLEST)) + 1  # at most
    with progress_bar(sizes, phase, "size", config.progress) as bar:
        while arguments <= config.scale_largest and (
            len(growth.arguments) < FITTED_SIZES or spent + expected <= budget
        ):
            bar.set_description(f"{phase}: {arguments} arguments")
            use = measure(partial(work, setting, *synthetic_pairs(arguments // 2, DIM, config.seed)))
            growth.arguments.append(arguments)
            growth.seconds.append(use.seconds)
            growth.peak_bytes.append(use.peak_bytes)
            log.info(f"{phase}: {arguments} arguments in {use.seconds:.2f} s")
            spent, expected = spent + use.seconds, SECONDS_FACTOR * use.seconds
            arguments *= 2
            bar.update()
    return growth


def mine(setting: Setting, pairs: Split, vectors: NDArray[np.float32]) -> None:
    """Build both exact indexes and choose a hard negative for every pair."""
    sampler = sampler_options(setting, "hard", candidates="both")
    tables = {"point": vectors[pairs.point], "counter": vectors[pairs.counter]}
    sample_negatives(setting, sampler, pairs, tables["point"], tables, "exact")


def evaluate(setting: Setting, pairs: Split, vectors: NDArray[np.float32]) -> None:
    """Rank all pairs in all tasks, protocols and stages."""
    config = setting.config
    torch.manual_seed(config.seed)
    table = torch.from_numpy(vectors)
    scores = PairScores(PairClassifier(DIM, DIM, config.model).eval(), (table, table), (table, table))

    @torch.inference_mode()
    def classify(points: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = scores(torch.from_numpy(points), torch.from_numpy(candidates)).double().numpy()
        return found

    scorers = StageScorers(DistanceScorer(table, table, np.arange(len(vectors))), classify)
    rank_queries(pairs, scorers, config.evaluation.rerank_k, config.evaluation.block_bytes)


def plot_growth(growths: list[Growth], path: Path) -> None:
    """Draw seconds and peak memory by arguments. The curve fitted to the seconds continues to the predicted sizes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for growth in growths:
        label = f"{growth.phase}: n^{growth.exponent():.2f} at the end"
        (line,) = time_axes.plot(growth.arguments, growth.seconds, "o", label=label)
        sizes = np.geomspace(growth.arguments[0], max(PREDICTED_SIZES), 50).astype(int).tolist()
        time_axes.plot(sizes, _powers(sizes) @ growth.parts(), "--", color=line.get_color(), linewidth=1)
        if None not in growth.peak_bytes:
            memory_axes.plot(growth.arguments, [(b or 0) / 2**20 for b in growth.peak_bytes], "o-", label=growth.phase)
    for axes, name in ((time_axes, "seconds"), (memory_axes, "peak memory, MiB")):
        axes.set(xlabel="arguments", ylabel=name, xscale="log", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
