"""`sampler.refresh.drift`: negatives stay until a sample of texts has moved, and what that saves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Train, compose_train
from hypothesis import given, settings
from hypothesis import strategies as st

from negexp import load_run
from negexp.embedding import Embeddings, TextEncoder
from negexp.errors import InputError
from negexp.training.drift import SAMPLED_PAIRS, Drift, drift_between

SMOKE = "experiment=smoke"
FAST = ["sampler=hard", "trainer.lr=0.01", "trainer.batch_size=4", "evaluation.train_queries=0"]


# --- the measure --------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 2**31), texts=st.integers(1, 9), dim=st.integers(1, 9), step=st.floats(0, 3))
def test_of_normalised_embeddings_it_is_the_mean_of_one_minus_cosine(
    seed: int, texts: int, dim: int, step: float
) -> None:
    rng = np.random.default_rng(seed)
    then = rng.normal(size=(texts, dim))
    now = then + step * rng.normal(size=(texts, dim))
    then, now = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (then, now))
    expected = np.mean([1 - float(np.dot(a, b)) for a, b in zip(then, now, strict=True)])
    assert drift_between(then.astype(np.float32), now.astype(np.float32)) == pytest.approx(expected, abs=1e-6)


def test_a_change_of_length_counts_and_the_scale_does_not() -> None:
    then = np.array([[3, 4], [0, 5]], dtype=np.float32)
    assert drift_between(then, 2 * then) == pytest.approx(0.5)  # |a|^2 / (2 |a|^2)
    assert drift_between(100 * then, 200 * then) == pytest.approx(0.5)
    assert drift_between(then, then) == 0
    assert drift_between(0 * then, 0 * then) == 0


# --- runs ---------------------------------------------------------------------------------------------------------


class Watch:
    """Counts the texts that are embedded for a purpose, and keeps the model's embeddings at each check."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.embedded: Counter[str] = Counter()
        self.moments: list[np.ndarray] = []  # (points and counters of the sample, dim)
        embed, check = TextEncoder.embed, Drift.check

        def watched_embed(encoder: TextEncoder, texts: np.ndarray, what: str, queries: np.ndarray) -> Embeddings:
            self.embedded[what] += 1
            return embed(encoder, texts, what, queries)

        def watched_check(drift: Drift, due: bool) -> dict[str, Any]:
            encoder = drift._encoder
            encoder.model.eval()
            with torch.no_grad():  # text by text
                vectors = [
                    encoder.encode(role, np.array([text])).retrieval[0].numpy()
                    for role, texts in drift._texts.items()
                    for text in texts
                ]
            self.moments.append(np.stack(vectors))
            return check(drift, due)

        monkeypatch.setattr(TextEncoder, "embed", watched_embed)
        monkeypatch.setattr(Drift, "check", watched_check)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def ledgers(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "negatives").glob("*.parquet"))


def test_negatives_are_refreshed_only_where_the_sample_has_moved(run_training: Train, watch: Watch) -> None:
    limit = 5e-3
    folder = run_training(SMOKE, *FAST, "trainer.epochs=3", "sampler.refresh.steps=1", f"sampler.refresh.drift={limit}")
    rows = pd.read_csv(folder / "refreshes.csv")
    then, expected = watch.moments[0], [(np.nan, 1)]
    for now in watch.moments[1:]:
        drift = float(((now - then) ** 2).sum() / (2 * (then**2).sum()))
        expected.append((drift, int(drift > limit)))
        then = now if drift > limit else then
    assert rows["refreshed"].tolist() == [refreshed for _, refreshed in expected]
    np.testing.assert_allclose(rows["drift"], [drift for drift, _ in expected], rtol=1e-3)
    assert set(rows["refreshed"]) == {0, 1}

    refreshed = rows[rows["refreshed"] == 1]
    assert watch.embedded["train"] == len(refreshed)  # nothing else asked for the training texts
    names = [
        f"epoch-{epoch:03d}" + (f"-step-{step:05d}" if step else "")
        for epoch, step in zip(refreshed["epoch"], refreshed["step"], strict=True)
    ]
    assert ledgers(folder) == names
    own = [name for name in rows if str(name).startswith("seconds_")]
    own += ["epoch", "step", "negatives_replaced", "drift", "refreshed"]
    for number in np.flatnonzero(rows["refreshed"] == 0):
        pd.testing.assert_series_equal(rows.iloc[number].drop(own), rows.iloc[number - 1].drop(own), check_names=False)
        assert rows["negatives_replaced"][number] == 0
        assert rows["seconds_index"][number] == 0
    metrics = pd.read_csv(folder / "metrics.csv")
    for column in ("drift", "refreshed"):
        np.testing.assert_allclose(metrics[column], rows.groupby("epoch")[column].mean())


def test_a_limit_of_two_keeps_the_first_negatives_and_one_of_zero_changes_nothing(
    run_training: Train, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [SMOKE, *FAST, "trainer.epochs=3"]
    with caplog.at_level("INFO"):
        kept = run_training(*keys, "sampler.refresh.drift=2", folder="kept")
    assert ledgers(kept) == ["epoch-000"]
    assert watch.embedded["train"] == 1
    assert caplog.text.count("negatives kept") == 2
    assert pd.read_csv(kept / "metrics.csv")["sampled_epoch"].tolist() == [0, 0, 0]
    run = load_run(kept)
    pd.testing.assert_frame_equal(run.negatives(2), run.negatives(0))

    always = run_training(*keys, folder="always")
    every = run_training(*keys, "sampler.refresh.drift=0", folder="every")
    metrics = [pd.read_csv(folder / "metrics.csv") for folder in (always, every)]
    same = [name for name in metrics[0] if not str(name).startswith("seconds_")]
    pd.testing.assert_frame_equal(metrics[0][same], metrics[1][same])
    assert metrics[1]["refreshed"].tolist() == [1, 1, 1]
    with pytest.raises(InputError, match="has no negatives of epoch 7"):
        run.negatives(7)


def test_drift_is_checked_only_where_a_refresh_is_due(run_training: Train) -> None:
    keys = ["trainer.epochs=5", "sampler.refresh.epochs=2", "sampler.refresh.drift=1e-9"]
    rows = pd.read_csv(run_training(SMOKE, *FAST, *keys) / "refreshes.csv")
    assert rows["refreshed"].tolist() == [1, 0, 1, 0, 1]
    assert rows["drift"].isna().tolist() == [True, True, False, True, False]
    assert rows["sampled_epoch"].tolist() == [0, 0, 2, 2, 4]


def test_a_batch_plan_that_looks_at_embeddings_gets_those_of_each_epoch(run_training: Train, watch: Watch) -> None:
    run_training(SMOKE, *FAST, "trainer.epochs=3", "sampler.refresh.drift=2", "batch=neighbours")
    assert watch.embedded["train"] == 3


@pytest.mark.parametrize("average", ["none", "ema"])
def test_without_drift_the_training_texts_are_embedded_as_often_as_they_are_needed(
    average: str, run_training: Train, watch: Watch
) -> None:
    run_training(SMOKE, "sampler=hard", "trainer.epochs=2", f"trainer.average={average}")
    # none: before training and after each epoch. ema: for each refresh, and of the average for the training queries
    assert watch.embedded["train"] == {"none": 3, "ema": 2 + 3}[average]


def test_the_sample_is_fixed_and_small() -> None:
    class Pairs:
        point, counter = np.arange(1000), np.arange(1000, 2000)

        def __len__(self) -> int:
            return 1000

    pairs, encoder = Pairs(), None
    one, again = (Drift(0.1, pairs, encoder, seed=4)._texts for _ in range(2))  # type: ignore[arg-type]
    assert len(np.unique(one["query"])) == SAMPLED_PAIRS
    np.testing.assert_array_equal(one["candidate"], one["query"] + 1000)
    np.testing.assert_array_equal(one["query"], again["query"])


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("static", r"sampler\.refresh\.drift=0\.02: sampler=static keeps its negatives; leave out drift"),
        ("random", r"sampler\.refresh\.drift=0\.02: sampler=random draws without embeddings; leave out drift"),
        ("bm25", r"sampler\.refresh\.drift=0\.02: neighbours by sampler\.source=bm25 do not move; leave out drift"),
    ],
)
def test_drift_contradicts_negatives_that_no_embedding_decides(sampler: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compose_train(f"sampler={sampler}", "sampler.refresh.drift=0.02")
    with pytest.raises(InputError, match=r"sampler\.refresh\.drift=-1\.0: must be between 0 and 2"):
        compose_train("sampler.refresh.drift=-1")
