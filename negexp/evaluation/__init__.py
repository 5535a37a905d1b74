"""Evaluation: candidate pools of eight tasks, ranks under two protocols, and metrics of the ranks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from negexp.evaluation.metrics import METRICS, summarise
from negexp.evaluation.pools import PROTOCOLS, STAGES, TASKS
from negexp.evaluation.second_stage import Classifier, Combination

if TYPE_CHECKING:
    from negexp.evaluation.ranking import StageScorers, rank_queries
    from negexp.evaluation.scores import DistanceScorer, MatrixScorer, Scorer

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "STAGES",
    "TASKS",
    "Classifier",
    "Combination",
    "DistanceScorer",
    "MatrixScorer",
    "Scorer",
    "StageScorers",
    "rank_queries",
    "summarise",
]

WITH_TORCH = {"ranking": ("StageScorers", "rank_queries"), "scores": ("DistanceScorer", "MatrixScorer", "Scorer")}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for: reports read ranks without it."""
    for module, names in WITH_TORCH.items():
        if name in names:
            return getattr(import_module(f"negexp.evaluation.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
