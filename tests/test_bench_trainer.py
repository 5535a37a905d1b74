"""`bench=trainer`: negexp and sentence-transformers' trainer train the same thing in the same batches."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_bench import bench_config

from negexp.bench import timing
from negexp.bench.peers import sentence_transformer
from negexp.bench.phases import train_without_negatives
from negexp.bench.setting import Setting
from negexp.bench.trainer import Contest, compare_epochs, compare_epochs_with_mining
from negexp.runtime import choose_runtime

PEAK = {"float32_flops": 1e9, "bfloat16_flops": 2e9, "copy_bytes": 1e9}
# a learning rate at which the loss moves: a step that is not the same shows in the losses of the next ones
KEYS = ["trainer.batch_size=4", "trainer.lr=0.01", "trainer_pairs=16", "model.dropout=0", "data.max_pairs=20"]


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting.load(bench_config(*KEYS), choose_runtime("cpu", "float32", None))


@pytest.fixture(scope="module")
def contest(setting: Setting) -> Contest:
    return Contest.of(setting)


def own_loss(contest: Contest) -> float:
    """Return the mean loss of negexp's epoch, and forget the training."""
    state = {name: value.clone() for name, value in contest.setting.built.model.state_dict().items()}
    loss = train_without_negatives(contest.setting, contest.pairs, contest.batches)
    contest.setting.built.model.load_state_dict(state)
    return loss


@pytest.mark.runs
def test_both_train_the_same_model_by_the_same_loss(contest: Contest) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("sentence_transformers")
    first, again = (replace(contest, batches=contest.batches[:1] * steps) for steps in (1, 4))
    own = {steps: own_loss(one) for steps, one in ((1, first), (4, again))}
    assert own[1] - own[4] > 0.01  # the mean of four steps on one batch: equal means are equal steps
    with sentence_transformer(contest.setting) as model:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        assert first.train(model, False).loss == pytest.approx(own[1], abs=1e-5)
        assert again.train(model, False).loss == pytest.approx(own[4], abs=1e-4)
        assert 1e-6 < abs(again.train(model, True).loss - own[4]) < 0.02  # bfloat16
        assert again.train(model, False).loss == pytest.approx(own[4], abs=1e-4)  # of this call alone
        assert contest.train(model, False).loss == pytest.approx(own_loss(contest), abs=1e-4)
        assert len(contest.batches) == 4
        for name, value in model.state_dict().items():  # a copy was trained
            assert torch.equal(value, before[name])


@pytest.mark.runs
def test_both_mine_the_same_negatives(setting: Setting, contest: Contest) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("sentence_transformers")
    with sentence_transformer(contest.setting) as model:
        peer = contest.mine_and_train(model, False)
        vectors = model.encode([*contest.columns()["anchor"], *contest.columns()["positive"]])
    pairs, texts = len(contest.pairs), contest.columns()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit[:pairs] @ unit[pairs:].T
    for point, anchor in enumerate(texts["anchor"]):
        golds = {p for a, p in zip(texts["anchor"], texts["positive"], strict=True) if a == anchor}
        wrong = [column for column, text in enumerate(texts["positive"]) if text not in golds]
        nearest = texts["positive"][max(wrong, key=lambda column: cosine[point, column])]
        assert peer.negatives[(anchor, texts["positive"][point])] == nearest
    result = compare_epochs_with_mining(setting, PEAK)
    assert any(
        f"{pairs} pairs have a negative of mine_hard_negatives" in check and "100.0% have negexp's" in check
        for check in result.checks
    )


@pytest.fixture(autouse=True)
def single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call every contender once a turn."""
    monkeypatch.setattr(timing, "SHORTEST", 0)


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what the extra `trainer` installs."""
    for name in ("accelerate", "datasets", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("hidden")
def test_without_the_extra_one_line_says_how_to_install_it(setting: Setting) -> None:
    for result in (compare_epochs(setting, PEAK), compare_epochs_with_mining(setting, PEAK)):
        assert result.remarks == ["accelerate is not installed: pip install '.[trainer]'"]
        assert len(result.seconds) == 1
        assert result.rivals == []


@pytest.mark.usefixtures("hidden")
def test_the_lower_bound_counts_three_passes_over_all_tokens(setting: Setting, contest: Contest) -> None:
    texts = [text for column in contest.columns().values() for text in column]
    tokens = sum(len(setting.built.tokenizer(text, truncation=True, max_length=32)["input_ids"]) for text in texts)
    hidden = 16
    layer = 4 * hidden**2 + 2 * hidden * 4 * hidden  # attention, and the two products after it; one layer
    expected = 3 * 2 * layer * tokens / PEAK["float32_flops"]
    assert compare_epochs(setting, PEAK).floor_seconds == pytest.approx(expected)
