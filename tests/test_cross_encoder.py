"""The cross-encoder: its scores against one plain call for each pair, its lists, and runs that train it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from attempts import Attempts, differences
from conftest import Train, compose_train
from test_evaluation import LARGE, one_debate, reference_ranks
from transformers import AutoModel, BertConfig, PreTrainedTokenizerBase

from negexp.cli import main
from negexp.corpus import Split
from negexp.embedding import Embeddings
from negexp.evaluation import Combination, MatrixScorer, StageScorers, rank_queries
from negexp.model import CrossEncoder, build_cross_encoder, build_model
from negexp.pair_tokens import Joiner, PairCache, PairReader
from negexp.runtime import choose_runtime
from negexp.sampling import Arguments, Negatives
from negexp.signals import Stopped
from negexp.training import reranking
from negexp.training.lists import TrainingLists
from negexp.training.reranking import Reranking

CROSS = ["experiment=smoke", "loss=triplet", "model.reranker=cross", "trainer.monitor=clean/retrieval/epa/mrr"]
CROSS += ["trainer.epochs=1", "reranker.epochs=1", "reranker.batch_size=4", "reranker.max_length=24"]
TYPES = "encoder.embeddings.token_type_embeddings.weight"
WORDS = ["city", "lane", "cars", "bread", "space", "park", "tax", "school", "train", "court", "farm", "port"]


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(count)]


def reader_of(texts: Sequence[str], max_length: int = 24, tokens: int = 100, fused: str = "auto") -> PairReader:
    config = compose_train(*CROSS).model
    built = build_model(config, 0, texts, fused=fused)
    model = build_cross_encoder(built.model, config, seed=0)
    return PairReader(model, texts, built.tokenizer, max_length, choose_runtime("cpu", "float32", tokens))


def test_a_cross_encoder_starts_as_the_mean_of_two_towers() -> None:
    config = compose_train(*CROSS, "model.shared_encoder=false").model
    trained = build_model(config, 0, sentences(12)).model
    with torch.no_grad():
        for number, parameter in enumerate(trained.tower("candidate").encoder.parameters()):
            parameter.add_(number + 1)
    query, candidate = (dict(trained.tower(role).encoder.named_parameters()) for role in ("query", "candidate"))
    started = build_cross_encoder(trained, config, seed=0)
    for name, parameter in started.encoder.named_parameters():
        torch.testing.assert_close(parameter, (query[name] + candidate[name]) / 2)
        assert not torch.equal(query[name], candidate[name])


def test_a_cross_encoder_starts_with_the_bits_of_a_shared_encoder() -> None:
    config = compose_train(*CROSS).model
    trained = build_model(config, 0, sentences(12)).model
    started = build_cross_encoder(trained, config, seed=0).encoder.state_dict()
    for name, value in trained.tower("query").encoder.state_dict().items():
        assert torch.equal(started[name], value)


def plain_encoder(model: CrossEncoder) -> torch.nn.Module:
    """Return transformers' own encoder with the cross-encoder's weights: padded, unfused."""
    config = BertConfig(**{**model.encoder.config.to_dict(), "attn_implementation": "eager"})
    plain = AutoModel.from_config(config, attn_implementation="eager")
    plain.load_state_dict(model.encoder.state_dict())
    encoder: torch.nn.Module = plain.eval()
    return encoder


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [5, 8, 9, 24, 25, 60])
def test_two_texts_are_joined_as_the_tokenizer_joins_them(max_length: int, side: str) -> None:
    texts = sentences(12)
    tokenizer = reader_of(texts).tokenizer
    tokenizer.truncation_side = side
    joiner = Joiner(tokenizer, max_length)
    joiner.read(texts, np.arange(12))
    for point, candidate in np.ndindex(12, 12):
        expected = own_tokens(tokenizer, texts[point], texts[candidate], max_length)
        assert joiner.join(point, candidate) == expected


def own_tokens(tokenizer: PreTrainedTokenizerBase, point: str, candidate: str, limit: int) -> tuple[Any, Any]:
    more = {"truncation": "longest_first", "max_length": limit, "return_token_type_ids": True}
    encoded = tokenizer(point, candidate, **more)
    return encoded["input_ids"], encoded["token_type_ids"]


@pytest.mark.parametrize("max_length", [9, 48])
def test_scores_equal_one_plain_call_for_each_pair(max_length: int) -> None:
    texts = sentences(9)
    reader = reader_of(texts, max_length)
    assert isinstance(reader.model, CrossEncoder)
    plain = plain_encoder(reader.model)
    points, candidates = (side.ravel() for side in np.indices((9, 9)))
    found, expected = reader.scores(points, candidates), []
    for point, candidate in zip(points.tolist(), candidates.tolist(), strict=True):
        ids, types = own_tokens(reader.tokenizer, texts[point], texts[candidate], max_length)
        with torch.no_grad():
            states = plain(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])).last_hidden_state[0]
            expected.append(float(reader.model.linear(states.mean(0))))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.ptp(expected) > 1e-2


def test_training_and_evaluation_give_the_same_logits_and_gradients_of_the_plain_encoder() -> None:
    texts = sentences(6)
    reader, unfused = reader_of(texts), reader_of(texts, fused="off")
    points, candidates = np.array([0, 1, 2, 3]), np.array([5, 4, 3, 2])
    np.testing.assert_allclose(reader.scores(points, candidates), unfused.scores(points, candidates), atol=2e-5)
    gradients = []
    for one in (reader, unfused):
        one.model.eval()  # no dropout
        one.logits(points, candidates).square().sum().backward()
        named = dict(one.model.named_parameters())
        gradients.append([named[name].grad for name in (TYPES, "linear.weight")])
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-3)
    types = gradients[0][0]
    assert types is not None
    assert types.abs().sum(1).min() > 0  # both types were used


def test_the_ranking_equals_a_call_for_each_pair_and_each_pair_is_scored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, rng = sentences(16, seed=1), np.random.default_rng(1)
    split = one_debate(point=list(range(8)), counter=list(range(8, 16)))
    distances = -rng.random((16, 16))
    reader, single = reader_of(texts), reader_of(texts)
    scored: list[tuple[int, int]] = []
    compute = PairReader.scores

    def counted(self: PairReader, points: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        scored.extend(zip(points.tolist(), candidates.tolist(), strict=True))
        return compute(self, points, candidates)

    monkeypatch.setattr(PairReader, "scores", counted)
    combination, cache = Combination(0.5, 2.0), PairCache(reader)
    scorers = StageScorers(MatrixScorer(lambda q, c: distances[np.ix_(q, c)]), cache, combination)
    ranks = rank_queries(split, scorers, 4, LARGE)
    assert len(scored) == len(set(scored))

    def combined(query: int, candidate: int) -> float:
        logit = compute(single, np.array([query]), np.array([candidate]))[0]
        return float(0.5 * logit + distances[query, candidate])

    expected = reference_ranks(split, lambda q, c: float(distances[q, c]), combined, 4)
    keys = ranks[["query", "protocol", "stage", "task"]].itertuples(index=False, name=None)
    found = dict(zip(keys, ranks["rank"].tolist(), strict=True))
    assert found == {key: rank for key, (rank, _) in expected.items()}
    retrieval, reranked = (ranks[ranks["stage"] == stage]["rank"].to_numpy() for stage in ("retrieval", "reranked"))
    assert (retrieval != reranked).any()
    assert (retrieval == reranked)[retrieval > 4].all()
    assert (reranked[retrieval <= 4] <= 4).all()


def test_a_prepared_cache_asks_for_nothing_more() -> None:
    texts = sentences(8)
    cache = PairCache(reader_of(texts))
    points, candidates = np.array([0, 1]), np.array([[2, 3], [3, 4]])
    cache.prepare(lambda ask: ask(points, candidates))
    known = len(cache.key)
    scores = cache(points, candidates)
    assert len(cache.key) == known == 4
    np.testing.assert_array_equal(scores[1], cache(np.array([1]), np.array([[3, 4]]))[0])


# --- lists ------------------------------------------------------------------------------------------------------------


def lists_of(split: Split, argument: np.ndarray, allowed: np.ndarray, negatives: int) -> TrainingLists:
    rank = np.broadcast_to(np.arange(1, argument.shape[1] + 1), argument.shape)
    near = Negatives(argument, rank, allowed.astype(np.float32), rank * 0.5)
    return TrainingLists(reader_of(sentences(12)), Arguments(split), near, negatives, seed=3)


def test_negatives_are_distinct_allowed_neighbours_and_differ_between_epochs() -> None:
    split = one_debate(point=list(range(6)), counter=list(range(6, 12)))
    rng = np.random.default_rng(0)
    argument = np.stack([rng.permutation(12)[:7] for _ in range(6)])
    allowed = rng.random(argument.shape) < 0.7
    allowed[0] = False
    lists = lists_of(split, argument, allowed, 3)
    seen: list[set[int]] = [set() for _ in range(6)]
    for epoch in range(60):
        negatives = lists.draw(epoch)
        np.testing.assert_array_equal(negatives.argument, lists.draw(epoch).argument)
        for pair in range(6):
            found = negatives.argument[pair][negatives.found[pair]].tolist()
            assert len(found) == len(set(found)) == min(3, int(allowed[pair].sum()))
            assert set(found) <= set(argument[pair][allowed[pair]].tolist())
            seen[pair] |= set(found)
    assert [len(one) for one in seen] == allowed.sum(axis=1).tolist()  # each allowed neighbour is drawn in some epoch


def test_the_loss_is_the_softmax_over_each_list() -> None:
    split = one_debate(point=list(range(6)), counter=list(range(6, 12)))
    argument = np.array([[(pair + 1) % 6, 6 + (pair + 2) % 6] for pair in range(6)])  # a point and a counter
    allowed = np.ones((6, 2), dtype=bool)
    allowed[2] = [True, False]
    allowed[4] = False
    lists = lists_of(split, argument, allowed, 3)  # more than there are neighbours
    assert lists.draw(0).argument.shape == (6, 2)  # no column that no pair can fill
    lists.reader.model.eval()
    pair = np.array([4, 2, 0])
    found = float(lists.loss(pair, lists.draw(0)).detach())
    losses = []
    for row in pair.tolist():
        texts = [6 + row, *argument[row][allowed[row]].tolist()]
        logits = lists.reader.scores(np.full(len(texts), row), np.array(texts))
        losses.append(np.log(np.exp(logits).sum()) - logits[0])
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert found == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.runs
def test_lists_are_the_nearest_of_all_arguments_whatever_the_strategy_chose_from(
    run_training: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Static draws counters only; the lists have a text once, and a pair's own and its copies never."""
    made = []
    draw = Reranking.lists

    def seen(self: Reranking, embeddings: Embeddings) -> TrainingLists:
        made.append((draw(self, embeddings), embeddings))
        return made[-1][0]

    monkeypatch.setattr(Reranking, "lists", seen)
    run_training(*CROSS, "sampler=static", "reranker.depth=6")
    lists, embeddings = made[0]
    nearest, numbers = lists.nearest, lists.arguments
    assert nearest.found.all()
    assert set(numbers.source(nearest.argument)[0].ravel()) == {"point", "counter"}
    queries, candidates = embeddings.query.retrieval.double(), embeddings.candidate.retrieval.double()
    for pair in range(numbers.pairs):
        own = [int(numbers.text[numbers.number(table, np.array([pair]))[0]]) for table in ("point", "counter")]
        rows = {int(text): int(embeddings.row[text]) for text in numbers.text}
        query = queries[embeddings.rows("query")[own[0]]]
        near = sorted((float((query - candidates[row]).norm()), text) for text, row in rows.items() if text not in own)
        assert numbers.text[nearest.argument[pair]].tolist() == [text for _, text in near[:6]]


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.runs
def test_a_run_trains_it_afterwards_and_an_evaluation_uses_it(
    run_training: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_training(*CROSS)
    metrics, table = pd.read_csv(folder / "metrics.csv"), pd.read_csv(folder / "reranker.csv")
    assert not [column for column in metrics if "rerank" in str(column)]
    result = json.loads((folder / "result.json").read_text())
    assert result["reranker"]["best_epoch"] == table["validation/clean/reranked/epa/mrr"].idxmax()
    assert result["reranker"]["seconds"] == pytest.approx(table.filter(like="seconds_").to_numpy().sum())
    asked = result["rerank_weight"] < 1  # with all weight on retrieval, it has no say and reads nothing
    assert (result["reranker"]["pairs_read"] > 0) == (result["reranker"]["seconds_read"] > 0) == asked
    best = table.iloc[result["reranker"]["best_epoch"]]
    assert (best["rerank_weight"], best["rerank_scale"]) == (result["rerank_weight"], result["rerank_scale"])
    for stage in ("retrieval", "reranked"):
        found = best[f"validation/clean/{stage}/epa/mrr"]
        assert found == pytest.approx(result["validation"]["clean"][stage]["epa"]["mrr"])
    assert best["validation/clean/reranked/epa/mrr"] >= best["validation/clean/retrieval/epa/mrr"]
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", f"run={folder}", "output=out", "device=cpu", "progress=never"]) == 0
    assert (tmp_path / "out/evaluation/test.json").read_bytes() == (folder / "evaluation/test.json").read_bytes()
    assert main(["report", f"runs={folder}", "output=report"]) == 0
    assert "seconds, re-ranker" in (tmp_path / "report/report.md").read_text()


@pytest.mark.runs
def test_a_run_that_is_stopped_in_the_second_stage_continues_to_the_same_bits(
    run_training: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, calls = [*CROSS, "reranker.epochs=2"], 0
    whole = run_training(*overrides, folder="whole")

    def stop_at(number: int) -> None:
        nonlocal calls

        def check(*, everywhere: bool) -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                raise Stopped(15)

        calls = 0
        monkeypatch.setattr(reranking, "check_stop", check)

    # an epoch has four batches and a check at its end: stopped in the first epoch, then in the second one
    for number, commits in ((2, set()), (7, {"epoch-000", "index.json"})):
        stop_at(number)
        with pytest.raises(Stopped):
            run_training(*overrides, folder="stopped")
        found = tmp_path / "stopped" / "reranker"
        assert ({path.name for path in found.iterdir()} if found.exists() else set()) == commits
    stop_at(1000)
    stopped = run_training(*overrides, folder="stopped")
    assert calls == 5  # one epoch was left
    assert differences(stopped, whole) == []


@pytest.mark.runs
def test_a_longer_run_trains_it_again_after_another_best_epoch(run_training: Train, tmp_path: Path) -> None:
    overrides = [CROSS[0], *(one for one in CROSS[1:] if one != "trainer.epochs=1"), "trainer.lr=1e-3"]
    folder = run_training(*overrides, "trainer.epochs=1")
    first = json.loads((folder / "reranker/epoch-000/state.json").read_text())["bi_encoder"]
    run_training(*overrides, "trainer.epochs=5")
    result = json.loads((folder / "result.json").read_text())
    second = json.loads((folder / "reranker/epoch-000/state.json").read_text())["bi_encoder"]
    assert result["best_epoch"] > 0
    assert first != second
    assert differences(folder, run_training(*overrides, "trainer.epochs=5", folder="whole")) == []


@pytest.mark.kills
def test_a_run_that_is_killed_in_the_second_stage_continues_to_the_same_bits(tmp_path: Path) -> None:
    overrides = [*CROSS, "reranker.epochs=2"]
    with Attempts() as attempt:
        assert attempt(tmp_path / "whole", *overrides, direct=True).code == 0
        for phase, times in (("mine", 1), ("train", 3), ("checkpoint", 2)):
            faults = {"phase": phase, "times": times, "signals": [9]}
            assert attempt(tmp_path / "killed", *overrides, direct=True, **faults).code in (-9, 0)
        assert attempt(tmp_path / "killed", *overrides, direct=True).code == 0
    assert differences(tmp_path / "killed/run", tmp_path / "whole/run") == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "reranker.depth=2",
            "reranker.depth=2: is below reranker.negatives=3, which are drawn among the depth nearest",
        ),
        (
            "loss=triplet_ce",
            "model.reranker=cross: does not use the pair classifier, which loss.name=triplet_ce trains; use ",
        ),
        (
            "trainer.monitor=clean/reranked/epa/mrr",
            "trainer.monitor=clean/reranked/epa/mrr: model.reranker=cross re-ranks only after the last epoch, so this "
            "cannot pick one; use trainer.monitor=clean/retrieval/epa/mrr",
        ),
        (
            "evaluation.rerank_weight=1",
            "evaluation.rerank_weight=1: keeps the order of retrieval, so the cross-encoder of model.reranker=cross",
        ),
        ("reranker.max_length=49", "reranker.max_length=49: bert takes 48 tokens; use at most 48"),
        ("model.reranker=crss", "model.reranker=crss: must be one of pair, cross"),
    ],
)
def test_contradicting_keys_are_refused(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*CROSS, override, f"hydra.run.dir={tmp_path / 'run'}", "trainer.device=cpu"]
    assert main(["train", *overrides]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "config.yaml").exists()
