"""A run that is used again: its configuration, the commits of its best epochs, and the models that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from negexp.config import EvaluateConfig, MineConfig, TrainConfig, load_run_config
from negexp.corpus import Corpus
from negexp.errors import InputError
from negexp.evaluation import Combination
from negexp.model import BuiltModel, build_cross_encoder, build_model, restore_model, zero_shot_config
from negexp.pair_tokens import PairReader
from negexp.runtime import Runtime
from negexp.tracking import RunFolder
from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.reranking import reranker_commit


@dataclass(frozen=True)
class TrainedRun:
    """A run with commits: its folder, its configuration and the commit of the best epoch."""

    folder: RunFolder
    config: TrainConfig
    commit: Commit

    @classmethod
    def read(cls, path: Path) -> TrainedRun:
        """Read a run, or raise `InputError`; `path` may begin with `~`."""
        folder = RunFolder(path.expanduser())
        return cls(folder, load_run_config(folder.config), CheckpointStore(folder.path, keep=1).commit("best"))

    @cached_property
    def reranker(self) -> Commit | None:
        """The commit of the cross-encoder's best epoch, None with a pair classifier; or raise `InputError`."""
        return reranker_commit(self.folder, self.commit) if self.config.model.reranker == "cross" else None

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
        """Return the model with the best epoch's weights; `fused` as in `build_model`.

        Raises
        ------
        InputError
            When the folder `encoder/` is damaged, or the weights do not fit the configuration.
        """
        size = self.commit.weights.stat().st_size
        built = restore_model(self.config.model, self.folder.encoder, size, fused=fused)
        load_weights(self.commit.weights, built.model)
        return built

    def reader(self, built: BuiltModel, texts: Sequence[str], runtime: Runtime, progress: str) -> PairReader | None:
        """Return the cross-encoder of its best epoch, which reads these texts; None with a pair classifier."""
        if self.reranker is None:
            return None
        model = build_cross_encoder(built.model, self.config.model, self.config.seed)
        load_weights(self.reranker.weights, model)
        return PairReader(model, texts, built.tokenizer, self.config.reranker.max_length, runtime, progress)


def model_of(config: EvaluateConfig | MineConfig, corpus: Corpus, run: TrainedRun | None) -> BuiltModel:
    """Return the model of a command: that of its run, or without a run the encoder of `model` as it comes."""
    fused = config.fused or "auto"
    if run is not None:
        return run.model(fused)
    vocabulary = [corpus.texts[row] for row in corpus["train"].texts()]
    return build_model(zero_shot_config(config.model), config.seed, vocabulary, heads=False, fused=fused)
