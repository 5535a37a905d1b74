"""`negexp search`: from a run and its queries to the nearest candidates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from negexp.config import DataConfig, SearchConfig, data_of_run
from negexp.corpus import SPLITS, load_corpus
from negexp.corpus.limits import Limits
from negexp.embedding import Embeddings
from negexp.evaluation import Classifier, Combination
from negexp.evaluation.evaluator import pair_classifier
from negexp.index.backends.exact import ExactIndex
from negexp.kept.store import TextVectors
from negexp.model import Vectors, quiet_transformers
from negexp.pair_tokens import PairCache
from negexp.runtime import choose_runtime, explain_out_of_memory, reproducible
from negexp.search.candidates import Candidates, corpus_places, document_places, own_documents
from negexp.search.embed import TextEmbedder
from negexp.search.output import Answer
from negexp.search.ranking import Ints, nearest, reranked
from negexp.search.texts import Texts, read_texts
from negexp.training import TrainedRun

log = logging.getLogger("negexp")


def search(config: SearchConfig, overrides: Sequence[str]) -> Answer:
    """Return the nearest candidates of the queries, and log what was searched and how it was ordered.

    Raises
    ------
    InputError
        When the run has no committed epoch or is damaged, or a file cannot be read.
    """
    quiet_transformers()
    run = TrainedRun.read(Path(config.run).expanduser())
    data = data_of_run(config.data, run.config, overrides)
    runtime = choose_runtime(config.device, run.config.trainer.precision, config.tokens_per_batch, key="")
    queries = _queries(config, data)
    candidates, what = _candidates(config, data, queries.texts)
    combination = run.combination(run.config.evaluation.rerank_weight)
    with reproducible(runtime, deterministic=True), explain_out_of_memory("tokens_per_batch or k"):
        built = run.model(run.config.trainer.fused)
        built.model.to(runtime.device)
        classifier = built.model.classifier if run.reranker is None and combination.decides else None
        pooled = classifier is not None and classifier.use_hidden
        embedder = TextEmbedder(run, built, runtime, pooled, config.progress)
        asked = embedder.embed("query", queries.texts, "queries")
        vectors, new = embedder.candidates(candidates.texts, config.keep)
        log.info(f"{len(candidates)} {what}: {new} embedded now, {len(candidates) - new} read from {run.folder.search}")
        index = ExactIndex(vectors.part("retrieval").numpy(), run.config.evaluation.block_bytes, runtime.device)
        depth = run.config.evaluation.rerank_k if config.rerank and combination.decides else 0
        ranking = nearest(index, asked.retrieval.cpu().numpy(), candidates, max(config.k, depth))
        if depth:
            found = np.unique(ranking.candidate[:, :depth].clip(0))
            second = _second_stage(embedder, queries.texts, candidates, asked, vectors, found)
            ranking = reranked(ranking, depth, second, combination)
    log.info(_order(config, run, combination))
    return Answer(queries.ids, queries.texts, candidates, ranking.first(config.k), run.config.model.normalize)


def _queries(config: SearchConfig, data: DataConfig) -> Texts:
    if config.queries is None:
        return Texts(["query"], [(config.query or "").strip()], {})
    return read_texts(Path(config.queries).expanduser(), "queries", Limits(data.max_bytes, data.max_files))


def _candidates(config: SearchConfig, data: DataConfig, queries: Sequence[str]) -> tuple[Candidates, str]:
    """Return what is searched, and a name for it."""
    if config.documents is not None:
        documents = read_texts(Path(config.documents).expanduser(), "documents", Limits(data.max_bytes, data.max_files))
        places = document_places(documents)
        return Candidates.of(documents.texts, places, queries, data.match), f"distinct texts of {config.documents}"
    splits, points = SPLITS if config.split == "all" else (config.split,), config.candidates == "all"
    corpus = load_corpus(data, needed=() if config.split == "all" else splits)
    texts, places = corpus_places(corpus, splits, points)
    if corpus[splits[0]].collection is None:
        what = f"counters{' and points' if points else ''} of data={data.name}, split={config.split}"
    else:
        what = f"documents{f' and points of split={config.split}' if points else ''} of data={data.name}"
    return Candidates.of(texts, places, queries, data.match, own_documents(corpus)), f"distinct {what}"


def _second_stage(
    embedder: TextEmbedder,
    queries: list[str],
    candidates: Candidates,
    asked: Vectors,
    vectors: TextVectors,
    found: Ints,
) -> Classifier:
    """Return the re-ranker, which takes numbers of queries and of those candidates that are in `found`."""
    text = np.zeros(len(candidates), dtype=np.int64)  # the number of a candidate among the texts: queries, then `found`
    text[found] = len(queries) + np.arange(len(found))
    texts = [*queries, *(candidates.texts[candidate] for candidate in found)]
    reader = embedder.run.reader(embedder.built, texts, embedder.runtime, embedder.progress)
    if reader is not None:
        score: Classifier = PairCache(reader)
    else:
        device, classifier = embedder.runtime.device, embedder.built.model.classifier
        assert classifier is not None, "a run has one"
        retrieval = vectors.part("retrieval", found).to(device)
        own = Vectors(retrieval, vectors.part("pooled", found).to(device) if embedder.pooled else retrieval)
        row = np.concatenate([np.arange(len(queries)), np.arange(len(found))])
        score = pair_classifier(classifier, Embeddings(asked, own, row))
    return lambda query, candidate: score(query, text[candidate])


def _order(config: SearchConfig, run: TrainedRun, combination: Combination) -> str:
    """Return what the scores are and what decides the order, in words."""
    score = "cosine" if run.config.model.normalize else "minus the Euclidean distance"
    if not config.rerank or not combination.decides:
        why = "rerank=false" if not config.rerank else "re-ranking did not help on validation, or was not trained"
        return f"score: {score}; nearest first ({why})"
    second = "pair classifier" if run.reranker is None else "cross-encoder"
    return (
        f"score: {score}; the {run.config.evaluation.rerank_k} nearest are ordered by combined = "
        f"{100 - 100 * combination.weight:.3g} % {second} + {100 * combination.weight:.3g} % distance; "
        "the others follow, nearest first"
    )
