"""Benchmarks: turns, ratios, fits and files. The plain epoch computes what negexp computes. Speed is not tested."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from batches import builder_of, drawn
from conftest import Train
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from negexp.bench import mine as bench_mine
from negexp.bench import scale, timing
from negexp.bench.embed import sample_with_copies
from negexp.bench.machine import Machine
from negexp.bench.plain import PlainEpoch, plain_forward, rerank_pair_by_pair
from negexp.bench.scale import Growth
from negexp.bench.setting import Setting
from negexp.bench.synthetic import synthetic_pairs
from negexp.bench.timing import PhaseResult, Rival, in_turns
from negexp.bench.write import as_json, as_markdown
from negexp.cli import main
from negexp.components import build
from negexp.config import CONF_DIR, BenchConfig, parse_config
from negexp.model import Loss
from negexp.model.bi_encoder import PairClassifier
from negexp.runtime import choose_runtime
from negexp.training.profile import StepProfile, phase_table

MACHINE = Machine(
    processor="one",
    instructions=[],
    cores=2,
    memory_bytes=2**30,
    system="Linux",
    device="cpu",
    runtime="cpu, float32, 1 threads",
    threads=1,
    precision="float32",
    python="3",
    versions={"torch": "2", "faiss-cpu": None},
    peak={"float32_flops": 1e9, "bfloat16_flops": 2e9, "copy_bytes": 1e9},
)
SMALL = ["model.max_length=32", "model.layers=1", "model.hidden_size=16", "model.attention_heads=2", "repeats=1"]
QUICK = ["trainer.precision=float32", "trainer.device=cpu", *SMALL]


def bench_config(*overrides: str) -> BenchConfig:
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        return parse_config(compose("bench", [*QUICK, *overrides]), BenchConfig)


@pytest.fixture
def setting() -> Setting:
    return Setting.load(bench_config("model.dropout=0", "data.max_pairs=16"), choose_runtime("cpu", "float32", None))


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=30), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1)
)
@settings(deadline=None, max_examples=50, derandomize=True)
def test_a_sample_of_texts_keeps_their_copies(counts: list[int], share: float, seed: int) -> None:
    arguments = np.repeat(10 + np.arange(len(counts)), counts)
    size = max(1, round(share * len(arguments)))
    drawn = sample_with_copies(arguments, size, np.random.default_rng(seed))
    assert size <= len(drawn) < size + max(counts)
    for text in np.unique(drawn):
        assert (drawn == text).sum() == counts[text - 10]


def test_contenders_take_turns_and_the_warm_up_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", lambda: 0)
    monkeypatch.setattr(timing, "SHORTEST", 0)
    calls: list[str] = []

    def call(name: str) -> int:
        calls.append(name)
        return len(calls)

    seconds, results = in_turns({"a": lambda: call("a"), "b": lambda: call("b")}, 3, "phase", "never")
    assert calls == ["a", "b"] * 4
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}
    assert results == {"a": 1, "b": 2}  # the benchmark compares the results of the warm-up, without extra calls


def test_a_short_contender_is_called_again_and_its_mean_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], {"short": 0, "long": 0}
    monkeypatch.setattr(timing, "SHORTEST", 0.2)
    monkeypatch.setattr("negexp.bench.timing.time.perf_counter", lambda: clock[0])

    def call(name: str, seconds: list[float]) -> None:
        clock[0] += seconds[calls[name] % len(seconds)]
        calls[name] += 1

    contenders = {"short": lambda: call("short", [0.0625, 0.03125]), "long": lambda: call("long", [0.5])}
    seconds = in_turns(contenders, 2, "phase", "never").seconds
    # after the warm-up: 0.03125, 0.0625, 0.03125, 0.0625, 0.03125 are 0.21875; the same from the other one on: 0.25
    assert seconds == {"short": [0.21875 / 5, 0.25 / 5], "long": [0.5, 0.5]}
    assert calls == {"short": 1 + 5 + 5, "long": 3}


def test_turns_show_a_progress_bar_and_restore_the_garbage_collector(capsys: pytest.CaptureFixture[str]) -> None:
    frozen = gc.get_freeze_count()
    with pytest.raises(ZeroDivisionError):
        in_turns({"a": list, "b": lambda: 1 / 0}, 3, "mine", "always")
    assert gc.get_freeze_count() == frozen
    err = capsys.readouterr().err
    assert "mine: a:   0%" in err
    assert "mine: b:  12%" in err  # one of eight calls is done
    in_turns({"a": list}, 1, "mine", "never")
    assert capsys.readouterr().err == ""


def phase_result() -> PhaseResult:
    rivals = [Rival("slow", [8.0, 3.0, 20.0], 3.5), Rival("slower", [20.0, 20.0, 20.0], 3.0)]
    return PhaseResult("phase", "sizes", "negexp", [2.0, 1.0, 4.0], rivals, 0.5, "a floor", ["checked"], ["left out"])


def test_ratios_are_computed_by_round_and_a_missed_target_is_reported() -> None:
    text = as_markdown(MACHINE, [phase_result()], [])
    assert "| phase | slow | 2 | 8 | **4.00x** (3.00 to 5.00) | 3.5x, reached |" in text
    assert "| phase | slower | 2 | 20 | **10.00x** (5.00 to 20.00) | 3x, reached |" in text
    assert "Lower bound: 0.5 s (a floor); negexp takes 4.0 times as long." in text
    missed = replace(phase_result(), rivals=[Rival("slow", [8.0, 3.0, 20.0], 4.5)])
    assert "| 4.5x, missed |" in as_markdown(MACHINE, [missed], [])
    values = as_json(MACHINE, [phase_result()], [])["phases"][0]
    assert values["ratios"]["slow"] == [4.0, 3.0, 5.0]
    assert values["median_seconds"] == 2.0


def test_growth_finds_the_exponent_and_predicts_with_linear_and_quadratic_parts() -> None:
    sizes = [1000, 2000, 4000, 8000]
    assert Growth("mining", sizes, [3e-8 * n**1.7 for n in sizes], [0] * 4).exponent() == pytest.approx(1.7)
    seconds = [0.2 + 1e-4 * n + 3e-9 * n**2 for n in sizes]
    growth = Growth("mining", sizes, seconds, [100 + 5 * n for n in sizes])
    predicted, size = growth.predict(10**6)
    assert predicted == pytest.approx(0.2 + 100 + 3000, rel=1e-6)
    assert size == pytest.approx(100 + 5 * 10**6)
    text = as_markdown(MACHINE, [], [growth])
    assert f"mining grows with n^{growth.exponent():.2f}" in text
    assert "| mining, predicted | 1000000 |" in text


def test_unknown_memory_is_not_predicted() -> None:
    growth = Growth("mining", [1, 2, 4], [1.0, 2.0, 4.0], [None, None, None])
    assert growth.predict(8)[1] is None


def test_synthetic_pairs_have_debates_and_copies() -> None:
    split, vectors = synthetic_pairs(800, 128, 0)
    assert len(split) == 800
    assert split.debate is not None
    assert np.bincount(split.debate).tolist() == [8] * 100
    assert split.theme is not None
    assert len(np.unique(split.theme)) == 15
    assert 0 < 800 - len(np.unique(split.counter)) < 200
    assert not set(split.point) & set(split.counter)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_the_plain_forward_pass_equals_the_models(setting: Setting) -> None:
    model, plain_model = setting.built.model.eval(), setting.plain_model().eval()
    ids, mask = setting.tokens.pad(np.arange(5))
    for plain, own in zip(plain_forward(plain_model, ids, mask), model(ids, mask, "query"), strict=True):
        torch.testing.assert_close(plain, own, atol=1e-5, rtol=1e-4)


def test_the_plain_step_has_the_gradients_of_negexps_step(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain_model, train = setting.built.model.train(), setting.plain_model().train(), setting.corpus["train"]
    epoch = PlainEpoch(setting, plain_model, train, random_rate=0.5, margin=1.0)
    monkeypatch.setattr(epoch.optimizer, "step", lambda: None)
    batch, negatives = np.array([3, 0, 7]), np.roll(np.arange(len(train)), 1)
    epoch.step(batch, [epoch.counters[row] for row in negatives])
    plain = [parameter.grad for parameter in plain_model.parameters() if parameter.grad is not None]
    builder = builder_of(model, setting.tokens, train, setting.runtime)
    loss: Loss = build("loss", setting.config.loss)
    assert model.classifier is not None
    loss(builder.build(batch, drawn((len(train) + negatives)[:, None])), model.classifier)["total"].backward()
    own = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(plain) == len(own)
    for one, other in zip(plain, own, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_the_plain_sampler_never_mines_a_pairs_own_texts(setting: Setting) -> None:
    train = setting.corpus["train"]
    epoch = PlainEpoch(setting, setting.plain_model(), train, random_rate=0.0, margin=1.0)
    points, counters = epoch.embed(epoch.points), epoch.embed(epoch.counters)
    negatives = epoch.sample(points, counters)
    assert all(n not in (p, c) for n, p, c in zip(negatives, epoch.points, epoch.counters, strict=True))


def test_the_loop_over_pairs_scores_each_pair(setting: Setting) -> None:
    classifier = PairClassifier(2, 3, setting.config.model).eval()
    table = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.ones(4, 3)
    found = rerank_pair_by_pair(classifier, table, table, torch.tensor([[1, 2], [3, 0]]))
    logits = classifier(table[0][1], table[1][1], table[0][3], table[1][3])
    assert float(found[1, 0]) == pytest.approx(float((logits[1] - logits[0]).detach()), abs=1e-6)


def run_bench(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    arguments = [*QUICK, f"hydra.run.dir={tmp_path}/hydra", f"output={tmp_path}/out", *overrides]
    assert main(["bench", *arguments]) == 0
    values = json_of(tmp_path)
    assert (tmp_path / "out" / "bench.md").read_text(encoding="utf-8").startswith(values["machine"]["processor"])
    return values


def json_of(tmp_path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    return values


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the libraries of the extras `bench` and `trainer`."""
    for name in ("accelerate", "faiss", "sentence_transformers", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.processes
@pytest.mark.usefixtures("no_peers")
def test_without_the_extra_all_phases_run_and_name_the_missing_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_mine, "BACKEND_ROWS", (50, 100))
    monkeypatch.setattr(bench_mine, "BACKEND_DIMS", (2, 8))
    monkeypatch.setattr(scale, "SMALLEST", 200)
    monkeypatch.setattr(timing, "SHORTEST", 0)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # the slowest part of this test
    sizes = [
        "rerank_queries=20",
        "search_rows=300",
        "embed_texts=10",
        "epoch_pairs=8",
        "trainer_pairs=8",
        "data.max_pairs=20",
    ]
    values = run_bench(tmp_path, "bench=all", "progress=always", "scale_largest=4000", "scale_minutes=0", *sizes)
    err = capsys.readouterr().err
    bars = [
        "embed: ",
        "embedding train: ",
        "mine: ",
        "n = 50, d = 2: ",
        "mine, large: ",
        "mine from texts: ",
        "re-rank: ",
    ]
    bars += ["epoch: ", "trainer: ", "trainer, mining: ", "mining: ", "evaluation: "]
    assert [bar for bar in bars if bar not in err] == []
    phases = {phase["phase"]: phase for phase in values["phases"]}
    mining = ["mine", "mine, backends", "mine, large", "mine from texts"]
    assert list(phases) == ["embed", *mining, "re-rank", "epoch", "trainer", "trainer, mining"]
    for name in ("embed", "mine", "mine, large", "mine from texts"):
        assert any("is not installed: pip install '.[bench]'" in remark for remark in phases[name]["remarks"])
    for name in ("trainer", "trainer, mining"):
        assert phases[name]["remarks"] == ["accelerate is not installed: pip install '.[trainer]'"]
    assert "exact and balltree return the same rows: True" in phases["mine"]["checks"]
    assert "distances equal the original tree's: True" in phases["mine"]["checks"]
    assert all(len(rival["seconds"]) == 1 for phase in phases.values() for rival in phase["rivals"])
    assert [growth["phase"] for growth in values["scale"]] == ["mining", "evaluation"]
    assert (tmp_path / "out" / "scale.png").stat().st_size > 0


def test_the_default_mining_benchmark_takes_seconds() -> None:
    """The matrix products of the large search take less than 40 s at 100 GFLOP/s, for two libraries and all rounds."""
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        config = parse_config(compose("bench"), BenchConfig)
    flops = 2.0 * config.search_rows**2 * bench_mine.LARGE_DIM * 2 * (config.repeats + 2)
    assert flops / 100e9 < 40
    assert config.progress == "auto"


@pytest.mark.processes
def test_a_profile_lists_phases_and_operators_and_changes_no_result(run_training: Train) -> None:
    options = ["experiment=smoke", "data.max_pairs=40", "trainer.epochs=1"]
    plain = run_training(*options, folder="plain")
    profiled = run_training(*options, "trainer.profile=true", folder="profiled")
    one, other = (json.loads((folder / "result.json").read_text()) for folder in (plain, profiled))
    assert one["test"] == other["test"]
    assert one["config_hash"] == other["config_hash"]
    phases = pd.read_csv(profiled / "profile" / "phases.csv").set_index("phase")
    assert {"embed", "index", "sample", "evaluate", "checkpoint", "train/forward", "train/backward"} <= set(
        phases.index
    )
    assert phases["share"].sum() == pytest.approx(1)
    assert (phases["seconds"] >= 0).all()
    row = pd.read_csv(profiled / "metrics.csv").iloc[0]
    spent = sum(row[f"seconds_{phase}"] for phase in ("embed", "index", "sample", "evaluate", "checkpoint", "train"))
    assert phases["seconds"].sum() <= spent + 1e-6
    operators = pd.read_csv(profiled / "profile" / "operators.csv")
    assert {"aten::addmm", "aten::mm"} <= set(operators["operator"])
    assert operators["self_seconds"].is_monotonic_decreasing
    assert not (plain / "profile").exists()


def test_the_parts_of_a_step_sum_to_the_train_phase() -> None:
    profiled = StepProfile(choose_runtime("cpu", "float32", None))
    profiled.steps, profiled.own_seconds = 10, 1.0
    assert profiled.profiled == 3
    profiled.parts = {"forward": 0.3, "backward": 0.6, "optimizer": 0.03}  # of three steps
    table = phase_table({"seconds_embed": 2.0, "seconds_train": 5.0}, profiled).set_index("phase")["seconds"]
    expected = {"embed": 2.0, "train/forward": 1.0, "train/backward": 2.0, "train/optimizer": 0.1, "train/other": 0.9}
    assert table.to_dict() == pytest.approx(expected)
    profiled.steps, profiled.parts = 4, {"forward": 0.4, "backward": 0.8, "optimizer": 0.0}  # of two steps
    assert profiled.profiled == 2
    table = phase_table({"seconds_embed": 2.0, "seconds_train": 5.0}, profiled).set_index("phase")["seconds"]
    assert table["train/backward"] == pytest.approx(1.6)
    profiled.steps, profiled.parts = 2, {}
    assert phase_table({"seconds_train": 5.0}, profiled)["phase"].tolist() == ["train"]
