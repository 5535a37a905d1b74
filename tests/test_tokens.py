"""Tokens in and out of the ragged table, batches, the vocabulary, and embeddings against a plain forward pass."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import compose_train
from hypothesis import given, settings
from hypothesis import strategies as st

from negexp.corpus import load_corpus
from negexp.embedding import TextEncoder
from negexp.model import Role, build_model
from negexp.runtime import choose_runtime
from negexp.tokens import TokenTable, tokenize, tokenize_corpus, train_vocabulary

SEQUENCES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=20)


@given(SEQUENCES, st.integers(1, 30))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_batches_cover_every_row_once_and_pad_back_to_the_sequences(sequences: list[list[int]], budget: int) -> None:
    table = TokenTable(sequences, pad_id=0)
    rows = table.row
    seen = []
    for positions in table.batches(rows, budget):
        ids, mask = table.pad(rows[positions])
        assert ids.numel() <= max(budget, ids.shape[1])
        for position, line, kept in zip(positions, ids, mask, strict=True):
            assert line[kept.bool()].tolist() == sequences[position]
            assert (line[~kept.bool()] == 0).all()
        seen += positions.tolist()
    assert sorted(seen) == list(range(len(sequences)))


@given(SEQUENCES)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_equal_sequences_share_a_row(sequences: list[list[int]]) -> None:
    table = TokenTable(sequences, pad_id=0)
    for i, first in enumerate(sequences):
        for j, second in enumerate(sequences):
            assert (table.row[i] == table.row[j]) == (first == second)


@pytest.mark.processes
def test_the_vocabulary_is_the_same_in_another_process() -> None:
    code = (
        "from negexp.tokens import train_vocabulary;"
        "t = train_vocabulary(['the house and the mouse', 'a mouse, a cat; the house!'] * 3, 60, 16);"
        "print(sorted(t.get_vocab().items(), key=lambda item: item[1]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "('[PAD]', 0)" in outputs.pop()


def test_the_vocabulary_does_not_treat_single_characters_as_special() -> None:
    tokenizer = train_vocabulary(["banana bandana"] * 4, 60, 16)
    assert set(tokenizer.all_special_tokens) == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert tokenizer.decode(tokenizer("Banana")["input_ids"], skip_special_tokens=True) == "banana"


def test_embeddings_equal_a_plain_forward_pass_text_by_text() -> None:
    config = compose_train("experiment=smoke").model
    texts = ["one text of the house", "a much longer text about the house, the train, the house and the rest", "short"]
    built = build_model(config, 0, texts * 4)
    tokens = tokenize(texts, built.tokenizer, config.max_length)
    runtime = choose_runtime("cpu", "float32", tokens_per_batch=8)
    embeddings = TextEncoder(built.model, tokens, runtime).embed(np.array([2, 0, 1]), "texts")
    for text in range(3):
        encoded = built.tokenizer([texts[text]], return_tensors="pt")
        with torch.no_grad():
            expected = built.model.eval()(encoded["input_ids"], encoded["attention_mask"], "query")[0][0]
        np.testing.assert_allclose(embeddings.retrieval("query", np.array([text]))[0], expected, atol=1e-5)


def test_of_two_encoders_only_queries_are_embedded_by_the_first() -> None:
    config = compose_train("experiment=smoke", "model.shared_encoder=false").model
    texts = ["one text of the house", "the train", "a text about the train and the rest", "short"]
    built = build_model(config, 0, texts * 4)
    with torch.no_grad():
        for parameter in built.model.tower("candidate").parameters():
            parameter.mul_(1.5)
    tokens = tokenize(texts, built.tokenizer, config.max_length)
    encoder = TextEncoder(built.model, tokens, choose_runtime("cpu", "float32", tokens_per_batch=8))
    every, some = encoder.embed(np.arange(4), "texts"), encoder.embed(np.arange(4), "texts", np.array([3, 1]))
    assert len(some.query.retrieval) == 2
    assert some.rows("query").tolist().count(-1) == 2
    wanted: dict[Role, list[int]] = {"query": [1, 3], "candidate": [0, 1, 2, 3]}
    for role, asked in wanted.items():
        one, other = (embeddings.retrieval(role, np.array(asked)) for embeddings in (every, some))
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(every.retrieval("query", np.arange(4)) - every.retrieval("candidate", np.arange(4))).max() > 0.01


def test_texts_that_are_equal_after_truncation_have_one_embedding_to_the_bit() -> None:
    config = compose_train("experiment=smoke").model
    texts = ["house " * 60 + "one", "house " * 60 + "two"]
    built = build_model(config, 0, texts)
    tokens = tokenize(texts, built.tokenizer, config.max_length)
    embeddings = TextEncoder(built.model, tokens, choose_runtime("cpu", "float32", None)).embed(np.arange(2), "texts")
    first, second = embeddings.retrieval("query", np.arange(2))
    assert (first == second).all()


@given(SEQUENCES, st.data())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_texts_with_equal_tokens_that_are_no_copies_are_those_of_a_plain_loop(
    sequences: list[list[int]], data: st.DataObject
) -> None:
    size = len(sequences)
    identity = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    texts = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    expected = [
        text
        for text in texts
        if any(sequences[text] == sequences[other] and identity[text] != identity[other] for other in texts)
    ]
    assert TokenTable(sequences, pad_id=0).indistinguishable(texts, identity[texts]).tolist() == expected


@pytest.mark.parametrize(("max_length", "warned"), [(64, False), (16, True)])
def test_texts_that_are_equal_after_truncation_are_counted_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, max_length: int, warned: bool
) -> None:
    long = "the house that the state builds for the people " * 3
    pairs = [(long + "one", "a"), (long + "two", "b"), (long.upper() + "TWO", "c"), ("d", "e"), ("f", "g")]
    splits = ["train", "test", "test", "validation", "test"]  # the second and the third point are copies
    rows = [{"point": p, "counter": c, "split": split} for (p, c), split in zip(pairs, splits, strict=True)]
    pd.DataFrame(rows).to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    config = compose_train("experiment=smoke", "data=pairs", f"data.path={tmp_path}/a.jsonl")
    corpus = load_corpus(config.data)
    tokenizer = build_model(config.model, 0, corpus.texts * 2).tokenizer
    with caplog.at_level(logging.WARNING, logger="negexp"):
        tokenize_corpus(corpus, tokenizer, max_length, ["test"])
        assert caplog.messages == []  # within test there are copies only
        tokenize_corpus(corpus, tokenizer, max_length)
    said = "3 texts have the same tokens as another text that is not a copy (data.match=normalized)"
    why = f"neither merged nor dropped: 3 are cut to model.max_length={max_length}; raise it"
    assert [message.startswith(said) and message.endswith(why) for message in caplog.messages] == [True] * warned
