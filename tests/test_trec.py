"""TREC files: other tools can read them, and compute the same metrics as negexp."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import ir_measures
import numpy as np
import pytest
from conftest import Train
from hydra import compose, initialize_config_dir
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ir_measures import RR, Success, nDCG
from test_evaluation import LARGE, Case, cases, config, one_debate, rank_case, scorers_of

from negexp.commands import evaluate
from negexp.config import CONF_DIR, EvaluateConfig, parse_config
from negexp.corpus.arguments import Record, Split, with_unique_ids
from negexp.evaluation import summarise
from negexp.evaluation.pools import protocol_queries
from negexp.evaluation.trec import TrecExport, query_ids

pytestmark = pytest.mark.runs

MEASURES = {
    "accuracy@1": Success @ 1,
    "accuracy@5": Success @ 5,
    "accuracy@10": Success @ 10,
    "mrr": RR,
    "ndcg@10": nDCG @ 10,
}

Metrics = dict[str, dict[str, dict[str, dict[str, float]]]]


def files_of(case: Case, k: int = 3, block_bytes: int = LARGE, depth: int | None = None) -> dict[str, str]:
    export = TrecExport(case.split, scorers_of(case), config(k, block_bytes), depth)
    return {name: content.decode() for name, content in export.files("test")}


def check_metrics(files: dict[str, str], expected: Metrics, split: str = "test") -> None:
    """Compare the metrics of ir_measures with the expected ones, and the file names with the evaluated tasks."""
    names = set()
    for protocol, stages in expected.items():
        for stage, tasks in stages.items():
            for task, values in tasks.items():
                run, qrels = f"{split}-{protocol}-{stage}-{task}.run", f"{split}-{protocol}-{task}.qrels"
                names |= {run, qrels}
                relevant = list(ir_measures.read_trec_qrels(files[qrels]))
                assert len(relevant) == values["queries"]
                found = ir_measures.calc_aggregate(
                    list(MEASURES.values()), relevant, ir_measures.read_trec_run(files[run])
                )
                for name, measure in MEASURES.items():
                    assert found[measure] == pytest.approx(values[name], abs=1e-9), (run, name)
    assert set(files) == names


@st.composite
def strict_cases(draw: st.DrawFn, spacing: float) -> Case:
    """Draw cases without ties: scores between 1 and 2, their differences multiples of `spacing`."""
    case = draw(cases())

    def matrix() -> np.ndarray:
        values = draw(st.permutations(range(case.scores.size)))
        return 1 + spacing * np.array(values, dtype=np.float64).reshape(case.scores.shape)

    return replace(case, scores=matrix(), classifier_scores=matrix())


@settings(deadline=None, derandomize=True, max_examples=32)
@given(
    # 1e-8 makes ties in single precision, but not in double precision
    case=st.one_of(strict_cases(0.01), strict_cases(1e-8), cases(), cases(respelled=True)),
    k=st.integers(1, 6),
    block_bytes=st.sampled_from([1, 100, LARGE]),
)
def test_another_tool_computes_the_same_metrics_from_the_files(case: Case, k: int, block_bytes: int) -> None:
    assume(len(protocol_queries(case.split, "clean")))
    ids = tuple(f"a theme/50 %\u00a0of it/pro {row}" for row in range(len(case.split)))
    case = replace(case, split=replace(case.split, ids=ids))
    check_metrics(files_of(case, k, block_bytes), summarise(rank_case(case, k)[0]))


@pytest.fixture
def case() -> Case:
    """Two queries in `clean`, three in `published`: the first and the second pair are copies."""
    split = one_debate(point=[0, 0, 3], counter=[1, 1, 2])
    scores, classifier_scores = np.zeros((4, 4)), np.zeros((4, 4))
    scores[0] = [-9, -1, -0.5, -2.25]
    scores[3] = [-1, -1, -1, -9]
    classifier_scores[0] = [0, 3, 2, 1]
    classifier_scores[3] = [1, 2, 0, 0]
    return Case(split, scores, classifier_scores)


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_a_run_lists_candidates_by_score_and_the_gold_once_with_the_querys_own_id(case: Case) -> None:
    files = files_of(case)
    assert lines(files["test-published-sda.qrels"]) == [f"q{row} 0 q{row}/counter 1" for row in range(3)]
    assert lines(files["test-clean-sda.qrels"]) == ["q0 0 q0/counter 1", "q2 0 q2/counter 1"]
    published = files["test-published-retrieval-sda.run"].splitlines()
    assert published[:8] == [
        "q0 Q0 q2/counter 1 -0.5 negexp-retrieval",
        "q0 Q0 q0/counter 2 -1.000000002 negexp-retrieval",  # lowered by the tie width
        "q0 Q0 q2/point 3 -2.25 negexp-retrieval",
        "q0 Q0 q1/point 4 -9.0 negexp-retrieval",
        "q1 Q0 q2/counter 1 -0.5 negexp-retrieval",
        "q1 Q0 q1/counter 2 -1.000000002 negexp-retrieval",
        "q1 Q0 q2/point 3 -2.25 negexp-retrieval",
        "q1 Q0 q0/point 4 -9.0 negexp-retrieval",
    ]
    assert lines(files["test-clean-retrieval-sda.run"])[:3] == published[:3]


def test_the_gold_stands_below_equal_candidates_and_scores_decrease_in_single_precision(case: Case) -> None:
    found = [line.split() for line in lines(files_of(case)["test-published-retrieval-sda.run"])[8:]]
    assert [document for _, _, document, *_ in found] == [
        "q0/counter",
        "q1/counter",
        "q0/point",
        "q1/point",
        "q2/counter",
    ]
    assert float(found[0][4]) == -1
    scores = np.array([float(score) for *_, score, _ in found], dtype=np.float32)
    assert (np.diff(scores) < 0).all()
    assert scores[-1] == pytest.approx(-1, abs=1e-6)


def test_in_reranked_the_k_nearest_come_first_and_scores_count_down(case: Case) -> None:
    assert lines(files_of(case, k=2)["test-clean-reranked-sda.run"]) == [
        "q0 Q0 q0/counter 1 3 negexp-reranked",
        "q0 Q0 q2/counter 2 2 negexp-reranked",
        "q0 Q0 q2/point 3 1 negexp-reranked",
        "q2 Q0 q0/counter 1 3 negexp-reranked",
        "q2 Q0 q0/point 2 2 negexp-reranked",
        "q2 Q0 q2/counter 3 1 negexp-reranked",
    ]


def test_a_candidate_with_the_golds_classifier_score_stands_above_the_gold(case: Case) -> None:
    case.classifier_scores[:] = 0
    found = [line.split()[2] for line in lines(files_of(case)["test-clean-reranked-sda.run"])]
    assert found == ["q2/counter", "q2/point", "q0/counter", "q0/counter", "q0/point", "q2/counter"]


@settings(deadline=None, derandomize=True, max_examples=10)
@given(case=cases(), k=st.integers(1, 6), depth=st.integers(1, 9))
def test_depth_keeps_the_first_candidates_of_each_query(case: Case, k: int, depth: int) -> None:
    cut = files_of(case, k, depth=depth)
    for name, text in files_of(case, k).items():
        kept = [line for line in lines(text) if name.endswith("qrels") or int(line.split()[3]) <= depth]
        assert lines(cut[name]) == kept


def test_without_a_classifier_there_is_no_second_stage(case: Case) -> None:
    export = TrecExport(case.split, scorers_of(case)._replace(classify=None), config(), None)
    names = [name for name, _ in export.files("validation")]
    assert "validation-clean-retrieval-epa.run" in names
    assert not [name for name in names if "reranked" in name]


def with_ids(*ids: str) -> Split:
    return replace(one_debate([0] * len(ids), [1] * len(ids)), ids=ids)


def test_ids_have_no_white_space_and_stay_readable_and_distinct() -> None:
    assert query_ids(with_ids("Zölle & Märkte/con01", "a\u2003b/c\nd\x00")) == [
        "Zölle%20&%20Märkte/con01",
        "a%E2%80%83b/c%0Ad%00",
    ]
    assert query_ids(with_ids("a b", "a%20b")) == ["a%20b", "a%2520b"]


# few characters, so that ids clash: % and encoded characters, and suffixes that look like added numbers
NAMES = st.text(alphabet="p1~/% \u00a0", min_size=1, max_size=5).filter(str.strip)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(ids=st.lists(st.one_of(NAMES, st.sampled_from(["p", "p~2", "p~3"])), max_size=12))
def test_ids_of_any_corpus_are_unique_before_and_after_encoding(ids: list[str]) -> None:
    records = [Record("p", "c", "test", None, None, None, id_) for id_ in ids]
    found = [record.id for record in with_unique_ids(records)]
    assert len(set(found)) == len(ids)
    for place, id_ in enumerate(ids):
        assert (found[place] == id_) == (id_ not in ids[:place])  # the first pair with an id keeps the id
    encoded = query_ids(with_ids(*found))
    assert [unquote(id_) for id_ in encoded] == found
    assert len(set(encoded)) == len(ids)
    assert not any(re.search(r"\s", id_) for id_ in encoded)


def test_evaluate_writes_the_files_of_a_run(
    finished_run: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, output = finished_run("experiment=smoke"), tmp_path / "again"
    overrides = [f"run={folder}", f"output={output}", "trec=true", "trec_depth=null", "device=cpu", "progress=never"]
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        parsed = parse_config(compose("evaluate", overrides), EvaluateConfig)
    with caplog.at_level(logging.INFO, logger="negexp"):
        evaluate.run(parsed, tmp_path / "unused", overrides)
    assert caplog.messages[-1].endswith(f"files in {output / 'evaluation'} and {output / 'trec'}")
    files = {path.name: path.read_text(encoding="utf-8") for path in (output / "trec").iterdir()}
    expected = json.loads((output / "evaluation" / "test.json").read_text())["metrics"]
    assert {stage for stages in expected.values() for stage in stages} == {"retrieval", "reranked"}
    check_metrics(files, expected)
    assert expected == json.loads((folder / "evaluation" / "test.json").read_text())["metrics"]
