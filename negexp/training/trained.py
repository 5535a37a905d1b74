"""The model of a run, with the weights of one of its commits."""

from __future__ import annotations

from negexp.config import ModelConfig
from negexp.model import BuiltModel, restore_model
from negexp.tracking import RunFolder
from negexp.training.checkpoint import Commit, load_weights


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
