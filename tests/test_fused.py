"""`trainer.fused`: what `off` takes away, and that a run without dropout comes to the same either way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Train, compose_train
from hydra import compose, initialize_config_dir
from torch import nn

from negexp.commands import evaluate, train
from negexp.config import CONF_DIR, EvaluateConfig, parse_config
from negexp.errors import InputError
from negexp.model import BuiltModel, build_model, restore_model
from negexp.model.fused import attention, dropout, groups, self_attention, varlen

SMOKE = "experiment=smoke"
TEXTS = ["a short text about rent and houses", "another text, about trains"] * 9
LOSSES = ["loss", "loss_triplet", "loss_positive", "loss_negative"]


def evaluated(output: Path, *overrides: str) -> dict[str, object]:
    """Return the metrics that `negexp evaluate OVERRIDES` writes."""
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        config = parse_config(compose("evaluate", ["progress=never", "device=cpu", *overrides]), EvaluateConfig)
    evaluate.run(config, output, list(overrides))
    metrics: dict[str, object] = json.loads((output / "evaluation" / "test.json").read_text())["metrics"]
    return metrics


def refuse(*arguments: object, **keys: object) -> None:
    raise AssertionError("a fast path was used")


@pytest.fixture
def without_fast_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every function of `negexp.model.fused` that computes something fail."""
    for module, name in (
        (attention, "drop_signs"),
        (dropout, "drop_signs"),
        (groups, "attend"),
        (groups, "text_groups"),
        (varlen, "flash_attention"),
    ):
        monkeypatch.setattr(module, name, refuse)


def assert_plain(built: BuiltModel) -> None:
    encoder = built.model.get_submodule("towers.0.encoder")
    assert built.encoder_config._attn_implementation == "sdpa"
    layers = [module for module in encoder.modules() if isinstance(module, nn.Dropout)]
    assert layers
    assert {type(layer) for layer in layers} == {nn.Dropout}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.modules())
    assert not [kind for module in encoder.modules() if (kind := type(module).__module__).startswith("negexp")]


def test_off_leaves_an_encoder_as_transformers_builds_it(tmp_path: Path) -> None:
    config = compose_train(SMOKE, "model.dropout=0.3").model
    plain, fused = build_model(config, 0, TEXTS, fused="off"), build_model(config, 0, TEXTS)
    assert_plain(plain)
    for name, weight in fused.model.state_dict().items():
        assert torch.equal(weight, plain.model.state_dict()[name])
    fused.save(tmp_path / "fused")
    plain.save(tmp_path / "plain")
    for file in (tmp_path / "plain").iterdir():  # a run folder does not tell, so it can be restored either way
        assert file.read_bytes() == (tmp_path / "fused" / file.name).read_bytes()
    assert_plain(restore_model(config, tmp_path / "fused", 10**9, fused="off"))
    restored = restore_model(config, tmp_path / "plain", 10**9)
    assert any(isinstance(part, self_attention.PackedSelfAttention) for part in restored.model.modules())


@pytest.mark.runs
def test_without_dropout_fast_paths_give_the_same_results(run_training: Train) -> None:
    options = [SMOKE, "sampler=decay", "sampler.start_rate=0.5", "model.dropout=0", "trainer.epochs=3"]
    fused = run_training(*options, folder="fused")
    plain = run_training(*options, "trainer.fused=off", folder="plain")
    one, other = (pd.read_csv(folder / "metrics.csv") for folder in (fused, plain))
    np.testing.assert_allclose(one[LOSSES], other[LOSSES], rtol=0, atol=1e-5)
    assert not one[LOSSES].equals(other[LOSSES])  # other products were computed
    for epoch in range(3):
        chosen = [pd.read_parquet(f / "negatives" / f"epoch-{epoch:03d}.parquet") for f in (fused, plain)]
        same = ["pair", "source", "row", "mined", "neighbour_rank"]
        pd.testing.assert_frame_equal(chosen[0][same], chosen[1][same])


@pytest.mark.usefixtures("without_fast_paths")
@pytest.mark.runs
def test_with_off_training_and_evaluation_use_no_fast_path(run_training: Train, tmp_path: Path) -> None:
    folder = run_training(SMOKE, "trainer.fused=off", "model.dropout=0.1")
    again = evaluated(tmp_path / "again", f"run={folder}")  # with the run's own value
    assert again == json.loads((folder / "evaluation" / "test.json").read_text())["metrics"]
    evaluated(tmp_path / "zero-shot", "fused=off")
    for overrides in ([f"run={folder}", "fused=auto"], []):
        with pytest.raises((AssertionError, InputError), match="a fast path was used"):
            evaluated(tmp_path / "fused", *overrides)


@pytest.mark.runs
def test_a_run_cannot_continue_with_another_value_of_fused(finished_run: Train) -> None:
    folder = finished_run(SMOKE, "trainer.epochs=1")
    text = (folder / "config.yaml").read_text().replace("  fused: auto\n", "")
    (folder / "config.yaml").write_text(text)  # as version 0.1 left it
    with pytest.raises(InputError, match=r"trainer\.fused was auto, now off"):
        train.run(compose_train(SMOKE, "trainer.epochs=2", "trainer.fused=off"), folder, [])
    assert train.run(compose_train(SMOKE, "trainer.epochs=2"), folder, []) == "continued"
