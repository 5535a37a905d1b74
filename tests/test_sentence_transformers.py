"""sentence-transformers loads an exported folder: the same vectors, and the same numbers from its evaluators."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Train, compose_train
from exported import exported_run
from test_architectures import LONGEST, USED, VOCABULARY, random_encoder, tiny_config
from transformers import AutoModel

from negexp.errors import InputError
from negexp.export.folder import write_folder
from negexp.export.run import refuse_processor
from negexp.model import BuiltModel, build_model
from negexp.tokens import tokenize, train_vocabulary

sentence_transformers = pytest.importorskip("sentence_transformers")
evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

TEXTS = ["Taxes are too high!", "schools", " parks and\ntrains, courts: ports " * 30, "", "Ünïcode? 数字"]
# every value of every key with every value of every other key, in as few models as that takes
MODELS = [
    ("cls", "8", True, "residual", True),
    ("cls", "null", False, "none", False),
    ("mean", "8", False, "none", True),
    ("mean", "null", True, "residual", False),
    ("mean", "null", True, "none", True),
    ("pooler", "8", True, "none", False),
    ("pooler", "null", False, "residual", True),
]


PROCESSORS = {"markuplm", "neomme"}  # architectures that sentence-transformers loads with a processor


def built(*overrides: str) -> BuiltModel:
    """Return a small model whose weights all differ from their start, a query head's too."""
    model = build_model(compose_train("experiment=smoke", *overrides).model, 0, TEXTS * 3, fused="off")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.model.eval()
    return model


def max_length(model: BuiltModel) -> int:
    return min(48, model.tokenizer.model_max_length)


def embeddings(model: BuiltModel) -> tuple[np.ndarray, np.ndarray]:
    """Return negexp's embeddings of TEXTS as queries and as candidates, from a padded batch."""
    tokens = tokenize(TEXTS, model.tokenizer, max_length(model))
    ids, mask = tokens.pad(tokens.row)
    with torch.inference_mode():
        query, _ = model.model(ids, mask, "query")
        candidate, _ = model.model(ids, mask, "candidate")
        query = query if model.model.query_head is None else model.model.query_head(query)
    return query.numpy(), candidate.numpy()


def load(model: BuiltModel, folder: Path) -> Any:
    write_folder(model, max_length(model), folder)
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def test_the_models_cover_all_pairs_of_values() -> None:
    for one, other in itertools.combinations(range(5), 2):
        values = itertools.product({model[one] for model in MODELS}, {model[other] for model in MODELS})
        assert {(model[one], model[other]) for model in MODELS} == set(values)


@pytest.mark.parametrize(("pooling", "dim", "normalize", "head", "shared"), MODELS)
def test_vectors_are_the_same(pooling: str, dim: str, normalize: bool, head: str, shared: bool, tmp_path: Path) -> None:
    model = built(
        *(f"model.pooling={pooling}", f"model.retrieval_dim={dim}", f"model.normalize={normalize}"),
        *(f"model.query_head={head}", f"model.shared_encoder={shared}"),
    )
    query, candidate = embeddings(model)
    loaded = load(model, tmp_path)
    assert np.abs(loaded.encode_query(TEXTS) - query).max() < 1e-5
    assert np.abs(loaded.encode_document(TEXTS) - candidate).max() < 1e-5
    assert np.abs(loaded.encode(TEXTS) - candidate).max() < 1e-5
    assert (np.abs(query - candidate).max() > 1e-3) == (head == "residual" or not shared)
    assert loaded.max_seq_length == 48
    assert loaded.get_embedding_dimension() == candidate.shape[1]
    # the similarity orders candidates as the Euclidean distance does
    similarity = loaded.similarity(query, candidate).numpy()
    distance = np.linalg.norm(query[:, None].astype(np.float64) - candidate[None], axis=2)
    assert loaded.similarity_fn_name == ("cosine" if normalize else "euclidean")
    expected = 1 - distance**2 / 2 if normalize else -distance
    assert np.abs(similarity - expected).max() < 1e-4


def test_a_tokenizer_that_pads_on_the_left_or_not_at_all_gives_the_same_vectors(tmp_path: Path) -> None:
    model = built("model.pooling=cls")
    model.tokenizer.padding_side = "left"
    model.tokenizer.pad_token = None
    query, _ = embeddings(model)
    assert np.abs(load(model, tmp_path).encode(TEXTS) - query).max() < 1e-5


SOME = {"roberta", "xlnet"}  # positions that begin behind the padding id; relative positions, token types of its own
KINDS = [pytest.param(kind, marks=[] if kind in SOME else pytest.mark.long) for kind in sorted(USED - PROCESSORS)]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_every_architecture_are_the_same(kind: str, tmp_path: Path) -> None:
    source = AutoModel.from_config(tiny_config(kind))
    source.load_state_dict(random_encoder(tiny_config(kind)).state_dict())
    source.save_pretrained(tmp_path / "source")
    train_vocabulary(TEXTS, VOCABULARY, LONGEST).save_pretrained(tmp_path / "source")
    keys = ["dropout=null", f"pretrained={tmp_path}/source", f"max_length={LONGEST}", "retrieval_dim=null"]
    has_pooler = getattr(source(input_ids=torch.ones(1, 4, dtype=torch.long)), "pooler_output", None) is not None
    for pooling in ("cls", "mean", "pooler")[: 2 + has_pooler]:
        model = built(*(f"model.{key}" for key in keys), f"model.pooling={pooling}", "model.normalize=false")
        query, _ = embeddings(model)
        (tmp_path / pooling).mkdir()
        assert np.abs(load(model, tmp_path / pooling).encode(TEXTS) - query).max() < 1e-5 * max(1, np.abs(query).max())


def test_architectures_that_need_a_processor_are_refused() -> None:
    for kind in USED - PROCESSORS:
        refuse_processor(tiny_config(kind), Path("run"))
    for kind in PROCESSORS:
        with pytest.raises(InputError, match=f"run=run: sentence-transformers loads {kind} with a processor"):
            refuse_processor(tiny_config(kind), Path("run"))


@pytest.mark.runs
def test_the_evaluators_of_sentence_transformers_give_the_same_numbers(run_training: Train, tmp_path: Path) -> None:
    loaded, points, counters, own = exported_run(run_training, tmp_path / "out")
    assert len({*points, *counters}) == 2 * len(points)  # no copies: with copies, negexp's protocols say what counts
    names = [str(row) for row in range(len(points))]
    gold = dict(zip(names, counters, strict=True))
    for metric, value in information_retrieval(loaded, points, gold).items():
        assert value == pytest.approx(own["epc"][metric], abs=1e-9), metric
    # epa ranks the points too, but never the query itself. The evaluator does rank it, and first: one rank is lost
    everything = gold | {f"point {row}": text for row, text in enumerate(points)}
    found = information_retrieval(loaded, points, everything, before=1)
    for metric in ("accuracy@1", "accuracy@5", "accuracy@10"):
        assert found[metric] == pytest.approx(own["epa"][metric], abs=1e-9), metric
    negatives = counters[1:] + counters[:1]
    anchor, positive = loaded.encode_query(points).astype(np.float64), loaded.encode_document(counters)
    nearer = np.linalg.norm(anchor - positive, axis=1) < np.linalg.norm(anchor - np.roll(positive, -1, axis=0), axis=1)
    triplets = evaluation.TripletEvaluator(points, counters, negatives, write_csv=False)(loaded)
    assert triplets["cosine_accuracy"] == pytest.approx(nearer.mean(), abs=1e-6)


def information_retrieval(
    model: Any, points: list[str], candidates: dict[str, str], before: int = 0
) -> dict[str, float]:
    """Return the metrics of sentence-transformers' evaluator, by negexp's names; accuracy@k at k + `before`."""
    queries = {str(row): text for row, text in enumerate(points)}
    evaluator = evaluation.InformationRetrievalEvaluator(
        queries,
        candidates,
        {name: {name} for name in queries},
        mrr_at_k=[len(candidates)],
        ndcg_at_k=[10],
        accuracy_at_k=[k + before for k in (1, 5, 10)],
        write_csv=False,
    )
    values = evaluator(model)
    names = {f"cosine_accuracy@{k + before}": f"accuracy@{k}" for k in (1, 5, 10)}
    names |= {f"cosine_mrr@{len(candidates)}": "mrr", "cosine_ndcg@10": "ndcg@10"}
    return {own: float(values[name]) for name, own in names.items()}
