"""The report, on run folders that the test writes with random ranks. All other files are those of a real run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from collections_of import Judged
from conftest import QUICK, compose_train

from negexp.cli import main
from negexp.config import DataConfig, to_yaml
from negexp.corpus import Corpus, load_corpus
from negexp.errors import InputError
from negexp.evaluation.metrics import metric_columns, summarise
from negexp.evaluation.pools import STAGES, TASKS
from negexp.report import write_report
from negexp.report.arms import group_into_comparisons
from negexp.report.examples import ExampleTexts
from negexp.report.runs import find_runs, read_runs

pytestmark = pytest.mark.runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@cache
def corpus_of(config: str) -> Corpus:
    return load_corpus(DataConfig(**json.loads(config)))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures, because drawing is the slowest part of a report."""
    monkeypatch.setattr("negexp.report.write.draw_figures", lambda comparison, numbers: {})


def write_run(
    folder: Path, *overrides: str, accuracy: float = 0.5, seen: Sequence[int] = (), fingerprint: str | None = None
) -> Path:
    """Write the folder of a finished run on the demo corpus. `accuracy` is the probability of a hit."""
    config = compose_train("trainer.monitor=clean/reranked/epa/accuracy@1", "model.default_lr=3e-5", *overrides)
    corpus = corpus_of(json.dumps(asdict(config.data)))
    split = corpus["test"]
    rng = np.random.default_rng([config.seed, int(1000 * accuracy)])
    parts = []
    for protocol, stage, task in product(("published", "clean"), STAGES, TASKS):
        hit = rng.random(len(split)) < accuracy
        other = np.roll(np.array(split.ids, dtype=object), 1)
        columns: dict[str, Any] = {"query": split.ids, "protocol": protocol, "stage": stage, "task": task.name}
        columns |= {"rank": np.where(hit, 1, rng.integers(2, 15, len(split))), "candidates": 20}
        columns |= {"first": np.where(hit, split.ids, other) + "/counter", "group": split.debate}
        parts.append(pd.DataFrame(columns | {"seen_in_training": np.isin(np.arange(len(split)), seen)}))
    ranks = pd.concat(parts, ignore_index=True)
    metrics = summarise(ranks)
    folder.mkdir(parents=True)
    (folder / "evaluation").mkdir()
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    ranks.to_parquet(folder / "evaluation" / "test-ranks.parquet", index=False)
    epochs = pd.DataFrame({"epoch": [0, 1], "random_rate": [0.8, 0.6], "negatives_replaced": [None, 0.4]})
    for column in ("negative_distance", "positive_distance", "nearer_share", "neighbour_rank", "gold_copy_share"):
        epochs[column] = [0.5, 0.4]
    for phase in ("embed", "index", "sample", "train", "evaluate", "checkpoint"):
        epochs[f"seconds_{phase}"] = [1.5, 0.5]
    epochs = epochs.assign(debate_share=0.2, theme_share=0.3)
    scores = pd.DataFrame([metric_columns(metrics, "validation")] * 2)
    pd.concat([epochs, scores], axis=1).to_csv(folder / "metrics.csv", index=False)
    result: dict[str, Any] = {"status": "finished"}
    result |= {"data_fingerprint": fingerprint or corpus.fingerprint(), "versions": {"torch": "2"}}
    result |= {"best_epoch": 1, "monitor": f"validation/{config.trainer.monitor}", "untrained": {"validation": metrics}}
    result |= {"test": metrics, "overrides": list(overrides), "seconds": 4.0, "corpus_summary": corpus.summary}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two strategies with two seeds each."""
    for sampler, seed in product(("hard", "random"), (0, 1)):
        accuracy = {"hard": 0.9, "random": 0.2}[sampler]
        write_run(tmp_path / "sweep" / f"{sampler},{seed}", f"sampler={sampler}", f"seed={seed}", accuracy=accuracy)
    return tmp_path / "sweep"


def hits(folder: Path, stage: str = "reranked", task: str = "epa") -> np.ndarray:
    ranks = pd.read_parquet(folder / "evaluation" / "test-ranks.parquet").query("protocol == 'clean'")
    hit: np.ndarray = ranks.query("stage == @stage and task == @task")["rank"].to_numpy() == 1
    return hit


# ---- written files ---------------------------------------------------------------------------------------------------


def test_golden_report(sweep: Path) -> None:
    written = write_report(str(sweep), None, texts=True, examples=3)
    assert written.folder == sweep / "report"
    files = {str(path.relative_to(written.folder)) for path in written.folder.rglob("*") if path.is_file()}
    figures = ("learning", "negatives", "tasks", "seconds", "accuracy-against-seconds")
    assert files == {
        *(f"figures/{figure}.{kind}" for figure in figures for kind in ("png", "svg")),
        *("tables/arms.csv", "tables/pairs.csv", "tables/epochs.csv"),
        *("report.html", "report.md", "examples.jsonl"),
    }
    means = {name: [hits(sweep / f"{name},{seed}").mean() for seed in (0, 1)] for name in ("hard", "random")}
    [headline] = written.headlines
    best = 100 * np.mean(means["hard"])
    assert headline.startswith(f"sampler=hard reaches {best:.1f} % in test epa accuracy@1 (clean, reranked), 95 % int")
    gap = 100 * (np.mean(means["hard"]) - np.mean(means["random"]))
    assert f"It is better than sampler=random by +{gap:.1f} ([" in headline
    text = (written.folder / "report.md").read_text(encoding="utf-8")
    assert headline in text
    sd = 100 * np.std(means["hard"], ddof=1)
    assert re.search(rf"\| sampler=hard \| 2 \| {best:.1f} ± {sd:.1f} \[", text)
    assert "negexp train -m sampler=hard seed=0,1" in text


@pytest.mark.usefixtures("no_figures")
def test_tables_have_every_cell_and_the_means_of_the_ranks(sweep: Path) -> None:
    write_report(str(sweep), None, texts=False, examples=3)
    arms = pd.read_csv(sweep / "report" / "tables" / "arms.csv")
    assert len(arms) == 2 * 2 * 2 * 8 * 5  # arms, protocols, stages, tasks, metrics
    for arm, stage, task in product(("hard", "random"), STAGES, ("sdoc", "epa")):
        row = (
            arms.query(
                "arm == @name and protocol == 'clean' and stage == @stage and task == @task",
                local_dict={"name": f"sampler={arm}", "stage": stage, "task": task},
            )
            .set_index("metric")
            .loc["accuracy@1"]
        )
        seeds = [hits(sweep / f"{arm},{seed}", stage, task).mean() for seed in (0, 1)]
        assert row["mean"] == pytest.approx(np.mean(seeds))
        assert row["sd"] == pytest.approx(np.std(seeds, ddof=1))
        assert row["low"] <= row["mean"] <= row["high"]
    pairs = pd.read_csv(sweep / "report" / "tables" / "pairs.csv")
    assert len(pairs) == 2 * 2 * 8  # protocols, stages, tasks: accuracy@1 is the monitored metric
    assert (pairs["p_adjusted"] >= pairs["p"]).all()
    assert len(pd.read_csv(sweep / "report" / "tables" / "epochs.csv")) == 2 * 2 * 2


def test_a_report_written_twice_is_the_same(sweep: Path, tmp_path: Path) -> None:
    folders = [write_report(str(sweep), str(tmp_path / name), texts=True, examples=2).folder for name in ("a", "b")]
    for path in folders[0].rglob("*.*"):
        assert path.read_bytes() == (folders[1] / path.relative_to(folders[0])).read_bytes(), path.name


def test_report_starts_without_torch(sweep: Path) -> None:
    script = (
        "import sys; from negexp.cli import main\n"
        f"code = main(['report', 'runs={sweep}', 'texts=false'])\n"
        "print(code, {'torch', 'transformers', 'sklearn'} & set(sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=sweep)
    assert result.stdout.splitlines()[-1] == "0 set()", result.stderr
    assert not (sweep / "outputs").exists()
    assert not (sweep / "report.log").exists()


def test_a_sweep_writes_its_report_even_when_a_job_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["negexp"])
    command = ["train", "-m", "experiment=smoke", *QUICK, "trainer.epochs=1", "sampler=random"]
    command += ["sampler.num_negatives=1,1000", "index=exact"]  # the corpus has no thousand candidates
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert re.match(r"negexp: 1 of 2 jobs failed: \S+: sampler\.num_negatives=1000: ", err.splitlines()[-1])
    [page] = tmp_path.glob("outputs/sweeps/*/report/report.html")
    assert f"report of 1 runs in {page.parent.relative_to(tmp_path)}/report.html" in out


# ---- arms and comparisons --------------------------------------------------------------------------------------------


def arm_names(root: Path) -> list[list[str]]:
    runs, skipped = read_runs(find_runs(str(root)))
    assert skipped == []
    return [[arm.name for arm in comparison.arms] for comparison in group_into_comparisons(runs)[0]]


def test_arms_are_named_by_the_settings_that_distinguish_them(tmp_path: Path) -> None:
    settings = [["sampler=hard"], ["sampler.step=0.02"], ["sampler.step=0.05"], ["sampler.step=0.02", "trainer.lr=1"]]
    for number, overrides in enumerate(settings):
        write_run(tmp_path / str(number), *overrides)
    assert arm_names(tmp_path) == [
        [
            "sampler=decay step=0.02 lr=1.0",
            "sampler=decay step=0.02 lr=3e-05",
            "sampler=decay step=0.05 lr=3e-05",
            "sampler=hard lr=3e-05",
        ]
    ]


def test_runs_of_an_arm_differ_only_in_the_seed_and_in_keys_that_do_not_change_results(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "seed=0")
    write_run(tmp_path / "b", "seed=1", "name=x", "tracker.ledger=false", "trainer.device=cpu")
    assert arm_names(tmp_path) == [["sampler=decay"]]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("data.train_overlap=keep", "data.train_overlap"),
        ("data.copies=keep", "data.copies"),
        ("data.match=exact", "data.match"),
        ("evaluation.rerank_k=5", "evaluation.rerank_k"),
        ("data.max_pairs=20", "corpus (fingerprint), test queries"),
    ],
)
def test_runs_that_cannot_be_compared_are_kept_apart_with_a_remark(tmp_path: Path, change: str, key: str) -> None:
    write_run(tmp_path / "a", "seed=0")
    write_run(tmp_path / "b", "seed=1")
    write_run(tmp_path / "c", change)
    comparisons, [remark] = group_into_comparisons(read_runs(find_runs(str(tmp_path)))[0])
    assert [len(comparison.runs) for comparison in comparisons] == [2, 1]
    assert remark == f"The runs form 2 separate comparisons, because they differ in {key}."
    assert len({comparison.title for comparison in comparisons}) == 2


def test_two_comparisons_make_two_sections(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "seed=0")
    write_run(tmp_path / "b", "data.copies=keep")
    written = write_report(str(tmp_path), None, texts=False, examples=0)
    assert len(written.headlines) == 2
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for copies in ("merge", "keep"):
        assert f"(data.copies={copies}): demo" in text
    assert written.remarks[0] in text
    assert (tmp_path / "report" / "tables" / "2-arms.csv").exists()


def test_arms_with_equal_short_names_get_full_names(tmp_path: Path) -> None:
    for number, name in enumerate(("a/model", "b/model")):
        write_run(tmp_path / str(number), f"model.pretrained={name}")
    assert arm_names(tmp_path) == [["pretrained=a/model", "pretrained=b/model"]]


def test_many_arms_and_runs_of_different_lengths_make_a_report(tmp_path: Path) -> None:
    for number in range(13):
        folder = write_run(tmp_path / str(number), f"trainer.lr=1e-{number}", accuracy=number / 13)
        if number % 2:
            epochs = pd.read_csv(folder / "metrics.csv")
            epochs.iloc[:1].assign(debate_share=np.nan, theme_share=np.nan).to_csv(folder / "metrics.csv", index=False)
    written = write_report(str(tmp_path), None, texts=False, examples=0)
    assert "The table lists the other 2 arms." in written.headlines[0]
    pairs = pd.read_csv(written.folder / "tables" / "pairs.csv")
    assert len(pairs) == 12  # the best arm against each other arm
    best, worst = "lr=1e-12", "lr=1.0"
    assert (pairs["first"].eq(best) | pairs["second"].eq(best)).all()
    with_worst = pairs[pairs["first"].eq(worst) | pairs["second"].eq(worst)]
    assert abs(with_worst["mean"].item()) > 0.7
    assert with_worst["p"].item() < 0.02  # eight debates: one of 2 ** 8 exchanges is as extreme
    said = re.findall(r"(lr=\S+)(?: by \S+)? \(\[[^]]*\] points, p = ([^)]+)\)", written.headlines[0])
    table = pairs.assign(other=pairs["first"].where(pairs["second"].eq(best), pairs["second"])).set_index("other")
    assert len(said) == 10
    assert all(f"{table.loc[other, 'p_adjusted']:.2g}" == p for other, p in said)


def write_arms_with_hits(root: Path, hits: Sequence[Sequence[int]]) -> None:
    """Write an arm lr=1, lr=2, ... for each row of `hits`, and a run for each number of hits among the 40 queries."""
    base = write_run(root / "base")
    ranks = pd.read_parquet(base / "evaluation" / "test-ranks.parquet")
    place = ranks.groupby(["protocol", "stage", "task"], sort=False).cumcount()
    config, result = ((base / name).read_text(encoding="utf-8") for name in ("config.yaml", "result.json"))
    for number, counts in enumerate(hits, 1):
        for seed, count in enumerate(counts):
            folder = Path(shutil.copytree(base, root / f"{number},{seed}"))
            own = re.sub(r"(?m)^seed: .*", f"seed: {seed}", re.sub(r"(?m)^( +lr): .*", rf"\1: {number}", config))
            (folder / "config.yaml").write_text(own, encoding="utf-8")
            hit = ranks.assign(rank=np.where(place < count, 1, 11))
            hit.to_parquet(folder / "evaluation" / "test-ranks.parquet", index=False)
            (folder / "result.json").write_text(json.dumps(json.loads(result) | {"test": summarise(hit)}))
    shutil.rmtree(base)


@pytest.mark.usefixtures("no_figures")
def test_many_arms_with_a_tie_of_the_best_two_make_a_report(tmp_path: Path) -> None:
    hits = [(14, 14, 14), *((number,) for number in range(1, 11)), (13, 14, 15)]
    write_arms_with_hits(tmp_path, hits)
    written = write_report(str(tmp_path), None, texts=True, examples=1)
    best, tied = "lr=1.0", "lr=12.0"  # equal means: the first by name is the best
    [headline] = written.headlines
    assert headline.startswith(f"{best} reaches 35.0 % in test epa accuracy@1")
    assert "the highest" not in headline
    pairs = pd.read_csv(written.folder / "tables" / "pairs.csv")
    assert len(pairs) == 11
    assert (pairs["first"].eq(best) | pairs["second"].eq(best)).all()
    lines = (written.folder / "report.md").read_text(encoding="utf-8").splitlines()
    order = [line.split(" | ")[0].removeprefix("| ") for line in lines if re.match(r"\| lr=\S+ \| [13] \|", line)]
    assert order == [best, tied, *(f"lr={number}.0" for number in range(11, 1, -1))]  # 14, 14, 10, 9, ... 1 hits


@pytest.mark.usefixtures("no_figures")
def test_queries_of_one_group_show_no_interval(tmp_path: Path) -> None:
    for sampler in ("hard", "random"):
        folder = write_run(tmp_path / sampler, f"sampler={sampler}", accuracy=len(sampler) / 10)
        path = folder / "evaluation" / "test-ranks.parquet"
        pd.read_parquet(path).assign(group=0).to_parquet(path, index=False)
    [headline] = write_report(str(tmp_path), None, texts=False, examples=0).headlines
    assert "so the uncertainty is unknown" in headline
    assert "interval" not in headline


def test_two_runs_with_one_seed_are_kept_with_a_remark(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, "seed=3", f"name={name}")
    comparisons, [remark] = group_into_comparisons(read_runs(find_runs(str(tmp_path)))[0])
    assert [arm.seeds for arm in comparisons[0].arms] == [[3, 3]]
    assert "more than one run with seed 3" in remark


@pytest.mark.usefixtures("no_figures")
def test_arms_with_the_same_hits_are_reported_as_such(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "sampler=hard")
    write_run(tmp_path / "b", "sampler=random")  # ranks come from seed and accuracy, which are equal
    [headline] = write_report(str(tmp_path), None, texts=False, examples=0).headlines
    assert "It has the same hits and misses as sampler=random" in headline
    assert "the highest" not in headline
    assert "Each arm has one seed" in headline


@pytest.mark.usefixtures("no_figures")
def test_an_undecided_difference_names_the_number_of_queries_it_needs(tmp_path: Path) -> None:
    for sampler, seed in product(("hard", "random"), (0, 1, 2)):
        accuracy = {"hard": 0.5, "random": 0.501}[sampler]  # other random hits with almost the same probability
        write_run(tmp_path / f"{sampler}{seed}", f"sampler={sampler}", f"seed={seed}", accuracy=accuracy)
    [headline] = write_report(str(tmp_path), None, texts=False, examples=0).headlines
    found = re.search(r"No significant difference from \S+ \(\[(\S+), (\S+)\] points, .* about (\d+) queries", headline)
    assert found is not None, headline
    assert float(found[1]) < 0 < float(found[2])
    assert int(found[3]) > 40


# ---- leakage ---------------------------------------------------------------------------------------------------------


def test_where_training_saw_queries_the_headline_uses_the_unseen_ones(tmp_path: Path) -> None:
    seen = range(15)
    for seed in (0, 1):
        write_run(tmp_path / str(seed), f"seed={seed}", "data.train_overlap=keep", seen=seen)
    written = write_report(str(tmp_path), None, texts=False, examples=0)
    unseen = np.mean([hits(tmp_path / str(seed))[15:].mean() for seed in (0, 1)])
    assert f"reaches {100 * unseen:.1f} %" in written.headlines[0]
    assert "on 25 queries unseen in training" in written.headlines[0]
    arms = pd.read_csv(written.folder / "tables" / "arms.csv").query("task == 'epa' and metric == 'accuracy@1'")
    cell = arms.query("protocol == 'clean' and stage == 'reranked'").set_index("queries")
    assert cell["query_count"].to_dict() == {"all": 40, "unseen": 25, "seen": 15}
    assert cell["mean"]["seen"] == pytest.approx(np.mean([hits(tmp_path / str(seed))[:15].mean() for seed in (0, 1)]))
    assert (written.folder / "figures" / "leakage.svg").exists()
    text = (written.folder / "report.md").read_text(encoding="utf-8")
    assert "clean, unseen (25)" in text
    for subset in ("all queries", "queries unseen in training", "queries seen in training"):
        assert f"Test epa accuracy@1 in %, mean ± sd over seeds [95 % interval], {subset}\n" in text
        assert f"Test accuracy@1 in %, clean, reranked, {subset}\n" in text


# ---- examples --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
def test_examples_are_the_changed_queries_with_their_texts(sweep: Path) -> None:
    write_report(str(sweep), None, texts=True, examples=4)
    rows = [json.loads(line) for line in (sweep / "report" / "examples.jsonl").read_text().splitlines()]
    split = load_corpus(compose_train().data)["test"]
    change = np.mean(
        [hits(sweep / f"hard,{seed}").astype(float) - hits(sweep / f"random,{seed}") for seed in (0, 1)], 0
    )
    by_id = dict(zip(split.ids, change, strict=True))
    assert 4 <= len(rows) <= 8
    for row in rows:
        assert row["change"] == pytest.approx(by_id[row["query"]])
        assert row["change"] != 0
        assert (row["first_ranked"] == row["gold"]) == row["first_is_gold"]
    assert max(change) == rows[0]["change"]
    page = (sweep / "report" / "report.html").read_text(encoding="utf-8")
    assert rows[0]["point"].split(".")[0].split("'")[0] in page


def test_every_gold_of_a_query_counts_in_an_example() -> None:
    case = Judged([0, 1], [2, 3, 4, 5], {(0, 0): 1, (0, 1): 2, (1, 2): 1}, {}, [0, 1, 2, 3, 4, 2])
    texts, split = case.split()
    split = replace(split, ids=("q0", "q0~2", "q1"))
    corpus = Corpus("made", texts, {"test": split}, {}, "exact", "")
    found = ExampleTexts(corpus, ["q0"]).example("a", "b", 0, 1.0, "d1", "d2")  # d1 is the second gold
    assert (found.first_is_gold, found.second_is_gold) == (True, False)
    assert [found.gold, found.first_ranked, found.second_ranked] == [case.text(3), case.text(3), case.text(4)]
    neither = ExampleTexts(corpus, ["q0"]).example("a", "b", 0, 1.0, "d2", "d2")
    assert (neither.gold, neither.first_is_gold) == (case.text(2), False)
    copy = ExampleTexts(corpus, ["q0"]).example("a", "b", 0, 1.0, "d2", "d3")  # d3 is a copy of the first gold
    assert (copy.gold, copy.second_is_gold) == (case.text(5), True)


@pytest.mark.usefixtures("no_figures")
def test_without_texts_no_text_is_written(sweep: Path) -> None:
    write_report(str(sweep), None, texts=False, examples=4)
    texts = load_corpus(compose_train().data).texts
    page = (sweep / "report" / "report.html").read_text(encoding="utf-8")
    assert not (sweep / "report" / "examples.jsonl").exists()
    assert not [text for text in texts if text[:40] in page]


@pytest.mark.usefixtures("no_figures")
def test_a_later_report_without_texts_removes_the_earlier_texts(sweep: Path) -> None:
    write_report(str(sweep), None, texts=True, examples=4)
    mine = [sweep / "report" / name for name in ("mine.txt", "tables/mine.csv", "figures/mine.png")]
    for path in mine:
        path.write_text("not the report's")
    write_report(str(sweep), None, texts=False, examples=4)
    assert not (sweep / "report" / "examples.jsonl").exists()
    assert all(path.exists() for path in mine)


def test_output_that_cannot_be_written_is_refused(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output=.*file: cannot be written"):
        write_report(str(sweep), str(tmp_path / "file"), texts=False, examples=0)


@pytest.mark.usefixtures("no_figures")
def test_examples_of_a_changed_corpus_are_skipped_with_the_reason(tmp_path: Path) -> None:
    for sampler in ("hard", "random"):
        write_run(tmp_path / sampler, f"sampler={sampler}", accuracy=len(sampler) / 10, fingerprint="another corpus")
    write_report(str(tmp_path), None, texts=True, examples=4)
    assert "is not the corpus that the runs used" in (tmp_path / "report" / "report.html").read_text()


# ---- unusable runs ---------------------------------------------------------------------------------------------------


def damage_ranks(folder: Path) -> None:
    path = folder / "evaluation" / "test-ranks.parquet"
    pd.read_parquet(path).assign(rank=1).to_parquet(path, index=False)


def drop_queries(folder: Path) -> None:
    path = folder / "evaluation" / "test-ranks.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path, index=False)


def drop_task(folder: Path) -> None:
    path = folder / "evaluation" / "test-ranks.parquet"
    pd.read_parquet(path).query("task != 'sta'").to_parquet(path, index=False)


def age(folder: Path) -> None:
    path = folder / "evaluation" / "test-ranks.parquet"
    pd.read_parquet(path).drop(columns="group").to_parquet(path, index=False)


def rename_key(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("pooling:", "poolings:"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "unfinished": (lambda folder: (folder / "result.json").unlink(), "unfinished: it has no result.json"),
    "half a result": (lambda folder: (folder / "result.json").write_text('{"status":'), "damaged: "),
    "a missing task": (drop_task, "damaged: evaluation/test-ranks.parquet does not give the test metrics"),
    "a result of another type": (
        lambda folder: (folder / "result.json").write_text("[]"),
        "damaged: ",
    ),
    "other ranks": (damage_ranks, "damaged: evaluation/test-ranks.parquet does not give the test metrics"),
    "a missing query": (drop_queries, "damaged: evaluation/test-ranks.parquet does not give the test metrics"),
    "older ranks": (age, "written by another version: it has no test-ranks.parquet's group"),
    "another config": (rename_key, "damaged, or written by another version: "),
    "no parquet": (lambda folder: (folder / "evaluation" / "test-ranks.parquet").write_text("no"), "damaged: "),
    "no ranks": (lambda folder: (folder / "evaluation" / "test-ranks.parquet").unlink(), "damaged: "),
    "empty metrics": (lambda folder: (folder / "metrics.csv").write_text(""), "damaged: "),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_an_unusable_run_is_skipped_with_the_reason(tmp_path: Path, case: str) -> None:
    write_run(tmp_path / "whole", "seed=0")
    damage, reason = DAMAGE[case]
    damage(write_run(tmp_path / "broken", "seed=1"))
    runs, [skipped] = read_runs(find_runs(str(tmp_path)))
    assert [run.folder.name for run in runs] == ["whole"]
    assert skipped.folder.name == "broken"
    assert skipped.reason.startswith(reason)
    assert "\n" not in skipped.reason


@pytest.mark.usefixtures("no_figures")
def test_the_report_names_the_skipped_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "whole", "seed=0")
    (write_run(tmp_path / "broken", "seed=1") / "result.json").unlink()
    written = write_report(str(tmp_path), None, texts=False, examples=0)
    assert [one.folder.name for one in written.skipped] == ["broken"]
    for name in ("report.md", "report.html"):
        assert "broken: unfinished" in (tmp_path / "report" / name).read_text(encoding="utf-8")


def test_without_any_usable_run_the_reasons_are_printed(tmp_path: Path) -> None:
    (write_run(tmp_path / "a") / "result.json").unlink()
    with pytest.raises(InputError, match=r"no run can be reported \(.*a: unfinished"):
        write_report(str(tmp_path), None, texts=False, examples=0)
    assert not (tmp_path / "report").exists()


def test_runs_are_found_below_folders_by_glob_and_with_commas_in_names(tmp_path: Path) -> None:
    names = ["s/x=1,y=2", "s/x=1,y=3", "t/deep/er", "u[0]"]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("")
    all_ = [(tmp_path / name).resolve() for name in names]
    assert find_runs(str(tmp_path)) == sorted(all_)
    assert find_runs(f"{tmp_path}/s") == all_[:2]
    assert find_runs(f"{tmp_path}/s/x=1,y=2") == all_[:1]
    assert find_runs(f"{tmp_path}/s/x=1,y=2,{tmp_path}/t") == [all_[0], all_[2]]
    assert find_runs(f"{tmp_path}/s/*,{tmp_path}/u[0]") == [all_[0], all_[1], all_[3]]
    with pytest.raises(InputError, match=r"runs=.*nowhere: no such folder"):
        find_runs(f"{tmp_path}/s,{tmp_path}/nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has an empty part"):
        find_runs(f"{tmp_path}/s,")
    with pytest.raises(InputError, match="contains no run"):
        find_runs(f"{tmp_path}/empty")


# ---- the page --------------------------------------------------------------------------------------------------------


def test_values_of_runs_cannot_become_markup(tmp_path: Path) -> None:
    for name in ("<script>alert(1)</script>", "b"):
        write_run(tmp_path / str(len(name)), f"model.pretrained='{name}'", accuracy=len(name) / 100)
    write_report(str(tmp_path), None, texts=True, examples=2)
    assert "<script" not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def browse(page: Path, screenshot: Path, width: int, *flags: str) -> list[str]:
    """Open a page in a headless browser without a network, write a screenshot, and return the console messages."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", f"--window-size={width},1200"]
    command += [f"--user-data-dir={screenshot.parent / 'profile'}", f"--screenshot={screenshot}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.processes
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_in_a_browser_without_a_network_or_an_error(sweep: Path, tmp_path: Path, width: int) -> None:
    page = write_report(str(sweep), None, texts=True, examples=2).folder / "report.html"
    pictures = []
    for name, flags in (("light", ()), ("dark", ("--blink-settings=preferredColorScheme=0",))):
        assert browse(page, tmp_path / f"{name}.png", width, *flags) == []
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] != pictures[1]
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page.read_text(encoding="utf-8"))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_the_browser_reports_an_error(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<!doctype html><script>undefinedFunction()</script>", encoding="utf-8")
    assert browse(page, tmp_path / "bad.png", 400) != []
