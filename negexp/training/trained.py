"""A run that is used again: its configuration, the commits of its best epochs, and the models that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from negexp.config import ModelConfig, TrainConfig, load_run_config
from negexp.errors import InputError
from negexp.evaluation import Combination
from negexp.model import BuiltModel, build_cross_encoder, restore_model
from negexp.pair_tokens import PairReader
from negexp.runtime import Runtime
from negexp.tracking import RunFolder
from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.reranking import reranker_commit


@dataclass(frozen=True)
class TrainedRun:
    """A run with commits: its folder, its configuration and the commits of the best epochs.

    reranker: that of the cross-encoder, None with a pair classifier.
    """

    folder: RunFolder
    config: TrainConfig
    commit: Commit
    reranker: Commit | None

    @classmethod
    def read(cls, path: Path) -> TrainedRun:
        """Read a run, or raise `InputError`."""
        folder, config = RunFolder(path), load_run_config(RunFolder(path).config)
        commit = CheckpointStore(path, keep=1).commit("best")
        cross = config.model.reranker == "cross"
        return cls(folder, config, commit, reranker_commit(folder, commit) if cross else None)

    def combination(self, weight: float | None) -> Combination:
        """Return how re-ranking combines its scores: the best epoch's scale and, unless one is given, weight."""
        own = Combination.of_row((self.reranker or self.commit).value("history")[-1])
        if own is None and weight not in (0, 1):
            raise InputError(
                f"evaluation.rerank_weight={'null' if weight is None else weight}: {self.folder.path} has no "
                "rerank_scale, as runs of version 0.1; give 0 or 1"
            )
        own = own or Combination()
        return own if weight is None else own._replace(weight=weight)

    def model(self, fused: str) -> BuiltModel:
        """Return the model with the best epoch's weights."""
        return trained_model(self.folder, self.config.model, self.commit, fused=fused)

    def reader(self, built: BuiltModel, texts: Sequence[str], runtime: Runtime, progress: str) -> PairReader | None:
        """Return the cross-encoder of its best epoch, which reads these texts; None with a pair classifier."""
        if self.reranker is None:
            return None
        model = build_cross_encoder(built.model, self.config.model, self.config.seed)
        load_weights(self.reranker.weights, model)
        return PairReader(model, texts, built.tokenizer, self.config.reranker.max_length, runtime, progress)


def trained_model(run: RunFolder, config: ModelConfig, commit: Commit, *, fused: str) -> BuiltModel:
    """Return the model of a run with a commit's weights; `fused` as in `build_model`.

    Raises
    ------
    InputError
        When the folder `encoder/` is damaged, or the weights do not fit the configuration.
    """
    built = restore_model(config, run.encoder, commit.weights.stat().st_size, fused=fused)
    load_weights(commit.weights, built.model)
    return built
