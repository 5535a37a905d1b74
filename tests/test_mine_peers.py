"""Mined files in other libraries: sentence-transformers mines the same, loads and trains on every format; what differs.

It needs sentence-transformers and datasets; the steps of its trainer need accelerate too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import compose_train
from hypothesis import given
from hypothesis import strategies as st
from test_mine import QUICK, TINY, write_cross_encoder
from test_mining import policy
from test_sampling import BACKENDS, config, some_examples

from negexp.cli import main
from negexp.corpus import Split
from negexp.corpus.match import identities
from negexp.export.folder import write_folder
from negexp.mine.formats import FORMATS, rows_of
from negexp.mine.negatives import Scores, mined_pairs
from negexp.model import build_model, load_sequence_classifier
from negexp.sampling import Arguments, EmbeddingSpace, Forbidden, SamplingRound
from negexp.sampling.samplers.hard import Hard

pytestmark = pytest.mark.runs

sentence_transformers = pytest.importorskip("sentence_transformers")
datasets = pytest.importorskip("datasets")

datasets.disable_progress_bars()


class Vectors:
    """A model as `mine_hard_negatives` uses one: it looks the vectors of texts up."""

    device = torch.device("cpu")
    similarity = staticmethod(sentence_transformers.util.cos_sim)
    similarity_pairwise = staticmethod(sentence_transformers.util.pairwise_cos_sim)

    def __init__(self, query: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> None:
        self.query, self.candidate = query, candidate

    def encode_query(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        return np.stack([self.query[text] for text in texts])

    def encode_document(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        return np.stack([self.candidate[text] for text in texts])


class Problem:
    """Pairs of texts with unit vectors. Copies, in `data.match=normalized`, have the same vector."""

    def __init__(self, points: Sequence[str], counters: Sequence[str], seed: int) -> None:
        self.points, self.counters = list(points), list(counters)
        self.texts = tuple(dict.fromkeys([*points, *counters]))
        self.identity = identities(self.texts, "normalized")
        identity = np.arange(len(self.texts)) if self.identity is None else self.identity
        rng = np.random.default_rng(seed)
        vectors = rng.normal(size=(2, len(self.texts), 4)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        self.query, self.candidate = ({t: one[identity[row]] for row, t in enumerate(self.texts)} for one in vectors)

    def negexp(
        self, k: int, mining: dict[str, Any], format_: str = "n-tuple-scores", **keys: Any
    ) -> list[dict[str, Any]]:
        """Return the rows of a format that negexp mines."""
        row = {text: number for number, text in enumerate(self.texts)}
        point, counter = (np.array([row[text] for text in texts]) for texts in (self.points, self.counters))
        split = Split(tuple(map(str, range(len(point)))), point, counter, None, None, None, self.identity)
        options = config(num_negatives=k, **{"candidates": "counters", **keys, "mining": {"name": "nearest"}})
        sampler = Hard(options)
        sampler.policy = policy(**mining)
        tables = {
            "point": np.stack([self.candidate[text] for text in self.points]),
            "counter": np.stack([self.candidate[text] for text in self.counters]),
        }
        arguments = Arguments(split)
        round_ = SamplingRound(
            arguments,
            Forbidden(arguments, options.exclude),
            EmbeddingSpace(np.stack([self.query[text] for text in self.points]), tables, BACKENDS["exact"]),
            np.random.default_rng(0),
            num_negatives=k,
            candidates=options.candidates,
        )
        negatives = sampler.sample(round_)
        return rows_of(format_, mined_pairs(self.texts, arguments, negatives, Scores.of(round_, negatives)), k)

    def peer(self, k: int, **keys: Any) -> list[dict[str, Any]]:
        """Return the rows of `n-tuple-scores` from sentence-transformers."""
        pairs = datasets.Dataset.from_dict({"anchor": self.points, "positive": self.counters})
        model = Vectors(self.query, self.candidate)
        found = sentence_transformers.util.mine_hard_negatives(
            pairs, model, num_negatives=k, output_format="n-tuple", output_scores=True, verbose=False, **keys
        )
        return list(found)


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix} {number}" for number in range(count)]


# --- the same negatives ----------------------------------------------------------------------------------------------

POLICIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nearest": ({"name": "nearest"}, {}),
    "range": ({"name": "window", "low": 3, "high": 5}, {"range_min": 3}),
    "max score": ({"name": "score", "low": None, "high": -0.4, "margin": None}, {"max_score": -0.4}),
    "min score": ({"name": "score", "low": 0.5, "high": None, "margin": None}, {"min_score": 0.5}),
    "absolute margin": ({"name": "score", "low": None, "high": None, "margin": 0.2}, {"absolute_margin": 0.2}),
    "relative margin": ({"name": "margin", "margin": None, "share": 0.9}, {"relative_margin": 0.1}),
    "scores and margin": (
        {"name": "score", "low": -0.5, "high": 0.6, "margin": 0.05},
        {"min_score": -0.5, "max_score": 0.6, "absolute_margin": 0.05},
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_sentence_transformers_mines_the_same_from_the_same_vectors(name: str) -> None:
    """On texts without copies; every candidate is looked at (range_max), so that none is missed for being far."""
    mining, keys = POLICIES[name]
    incomplete = 0
    for seed in range(5):
        problem = Problem(names("point", 14), names("counter", 14), seed)
        own, peer = problem.negexp(2, mining), problem.peer(2, range_max=14, **keys)
        incomplete += 14 - len(own)
        assert [{**row, "scores": None} for row in own] == [{**row, "scores": None} for row in peer]
        np.testing.assert_allclose([row["scores"] for row in own], [row["scores"] for row in peer], atol=1e-6)
    assert (incomplete > 0) == (name not in ("nearest", "range"))  # both leave out the same pairs


@some_examples
@given(seed=st.integers(0, 10**6), pairs=st.integers(4, 12), k=st.integers(1, 3))
def test_the_nearest_are_the_same(seed: int, pairs: int, k: int) -> None:
    problem = Problem(names("point", pairs), names("counter", pairs), seed)
    own, peer = problem.negexp(k, {"name": "nearest"}), problem.peer(k)
    assert [{**row, "scores": None} for row in own] == [{**row, "scores": None} for row in peer]


# --- what only one of them returns -----------------------------------------------------------------------------------

POINTS = ["Parks cost money", "PARKS COST  MONEY", "Schools are old", "Taxes are high", "Trains are late", "Ports rust"]
COUNTERS = ["Parks pay back", "Parks are cheap", "New ones cost more", "NEW ONES cost more", "Tickets are cheap", "No"]
# which negative of a point comes from a copy or from the point itself: (point, text), and whether both return it
CASES: dict[str, tuple[str, str, bool]] = {
    "the point itself": ("Trains are late", "Trains are late", False),
    "a copy of the point in another spelling": ("Parks cost money", "PARKS COST  MONEY", False),
    "a copy of the gold in another spelling": ("Schools are old", "NEW ONES cost more", False),
    "the counter of a copy of the point": ("Parks cost money", "Parks are cheap", False),
    "another text": ("Trains are late", "Schools are old", True),
}


def returned(rows: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    return {(row["anchor"], text) for row in rows for column, text in row.items() if column.startswith("negative")}


@pytest.mark.parametrize("name", CASES)
def test_copies_and_self_matches_are_returned_by_sentence_transformers_alone(name: str) -> None:
    """negexp is asked for more than there are, so what it does not return is excluded."""
    point, text, both = CASES[name]
    problem = Problem(POINTS, COUNTERS, 0)
    assert (point, text) in returned(problem.peer(9, corpus=POINTS))
    assert ((point, text) in returned(problem.negexp(12, {"name": "nearest"}, "triplet", candidates="both"))) == both


def test_a_text_that_two_pairs_share_is_returned_once_by_both() -> None:
    counters = [*names("counter", 5), "counter 0", "counter 0"]
    problem = Problem(names("point", 7), counters, 1)
    repeats = ["self", "duplicates", "repeats"]
    own, peer = problem.negexp(3, {"name": "nearest"}, exclude=repeats), problem.peer(3)
    assert [{**row, "scores": None} for row in own] == [{**row, "scores": None} for row in peer]
    shared = [row for row in problem.negexp(3, {"name": "nearest"}) if row["negative_1"] == row["negative_2"]]
    assert shared  # without `repeats`, as in training, a pair can have the same text twice


# --- the files in the trainer ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers") / "encoder"
    folder.mkdir()
    write_folder(build_model(compose_train("experiment=smoke").model, 0, ["parks cost money"] * 3), 48, folder)
    return folder


def columns(name: str, k: int) -> list[str]:
    negatives = [f"negative_{number}" for number in range(1, k + 1)]
    return {
        "triplet": ["anchor", "positive", "negative"],
        "n-tuple": ["anchor", "positive", *negatives],
        "n-tuple-scores": ["anchor", "positive", *negatives, "scores"],
        "labeled-pair": ["anchor", "document", "label"],
        "labeled-list": ["anchor", "documents", "labels"],
        "flagembedding": ["query", "pos", "neg", "pos_scores", "neg_scores"],
    }[name]


@pytest.mark.parametrize("name", FORMATS)
def test_datasets_loads_every_format_and_the_trainer_takes_two_steps(
    name: str, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["negexp"])
    for file in ("jsonl",) if name == "flagembedding" else ("jsonl", "parquet"):
        overrides = [*QUICK, *TINY, f"format={name}", f"file={file}", "sampler.num_negatives=2", f"output={file}"]
        assert main(["mine", *overrides]) == 0
    kinds = {"jsonl": "json", "parquet": "parquet"}
    loaded = {
        kind: datasets.load_dataset(
            kinds[kind], data_files=f"{kind}/negatives.{kind}", split="train", cache_dir=str(tmp_path / "cache")
        )
        for kind in kinds
        if Path(kind).exists()
    }
    found = loaded["jsonl"]
    assert found.column_names == columns(name, 2)
    for other in loaded.values():
        assert other.to_list() == found.to_list()
    if name == "flagembedding":  # FlagEmbedding's trainer reads these keys; its lists have one positive and k negatives
        assert {(len(row["pos"]), len(row["neg"])) for row in found} == {(1, 2)}
        return
    pytest.importorskip("accelerate")
    assert steps(name, found, encoder, tmp_path / "trained") == 2


def steps(name: str, rows: Any, encoder: Path, output: Path) -> int:
    """Train for two steps with a loss for the format; return the number of steps with a finite loss."""
    loss: Any
    trainer: Any
    arguments: Any
    if name == "labeled-list":  # lists are what the trainer of cross-encoders takes
        from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
        from sentence_transformers.cross_encoder.losses import LambdaLoss

        model = sentence_transformers.CrossEncoder(str(write_cross_encoder(output)), device="cpu")
        loss, trainer, arguments = LambdaLoss(model), CrossEncoderTrainer, CrossEncoderTrainingArguments
    else:
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from sentence_transformers.sentence_transformer import losses

        model = sentence_transformers.SentenceTransformer(str(encoder), device="cpu", local_files_only=True)
        kinds = {
            "triplet": losses.TripletLoss,
            "n-tuple": losses.MultipleNegativesRankingLoss,
            "n-tuple-scores": losses.MarginMSELoss,
            "labeled-pair": losses.ContrastiveLoss,
        }
        loss, trainer, arguments = kinds[name](model), SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    settings = arguments(
        str(output / "steps"),
        max_steps=2,
        logging_steps=1,
        per_device_train_batch_size=2,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    run = trainer(model=model, args=settings, train_dataset=rows, loss=loss)
    run.train()
    return sum(np.isfinite(one["loss"]) for one in run.state.log_history if "loss" in one)


# --- cross-encoders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [torch.nn.Sigmoid(), torch.nn.Identity()], ids=["sigmoid", "identity"])
def test_a_saved_cross_encoder_scores_as_sentence_transformers_scores(
    activation: torch.nn.Module, tmp_path: Path
) -> None:
    write_cross_encoder(tmp_path / "plain")
    model = sentence_transformers.CrossEncoder(str(tmp_path / "plain"), device="cpu", activation_fn=activation)
    model.save_pretrained(str(tmp_path / "saved"))
    loaded = load_sequence_classifier(tmp_path / "saved", "rescore=saved")
    texts = ["parks and schools", "good parks", "schools are good and " * 30]
    tokens = loaded.tokenizer(
        texts, texts[::-1], truncation=True, max_length=loaded.max_length, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        found = loaded.model(tokens["input_ids"], tokens["attention_mask"], torch.zeros_like(tokens["input_ids"]))
    np.testing.assert_allclose(found, model.predict(list(zip(texts, texts[::-1], strict=True))), atol=1e-5)
    assert loaded.max_length == model.max_seq_length


def test_an_activation_that_is_not_known_is_refused(tmp_path: Path) -> None:
    write_cross_encoder(tmp_path)
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"activation_fn": "os.system"}))
    with pytest.raises(Exception, match=r"rescore=x: cannot be loaded \(activation_fn os\.system is none of"):
        load_sequence_classifier(tmp_path, "rescore=x")
