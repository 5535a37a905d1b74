"""A package that is not negexp's brings one component of every kind: one file and one YAML each, nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from packages import installed

from negexp.cli import main
from negexp.components import names

pytestmark = pytest.mark.runs

PACKAGE = "throwaway_negexp_parts"

FILES = {
    "alternate_sampler.py": """
from dataclasses import dataclass

import numpy as np

from negexp.components import option
from negexp.config import SamplerConfig
from negexp.sampling import Negatives, NegativeSampler, SamplingRound


@dataclass
class AlternateOptions(SamplerConfig):
    every: int = option("every so many pairs one is drawn at random", low=2)


class Alternate(NegativeSampler):
    Options = AlternateOptions
    options: AlternateOptions

    def choose(self, round_: SamplingRound) -> Negatives:
        pair = np.arange(round_.pairs)
        at_random = pair % self.options.every == 0
        drawn, mined = pair[at_random], pair[~at_random]
        return Negatives.join([(drawn, round_.draw(drawn)), (mined, self.mine(round_, mined))])

    def statistics(self) -> dict[str, float]:
        return {"every": float(self.options.every)}
""",
    "farther_mining.py": """
from dataclasses import dataclass

from negexp.components import option
from negexp.config import MiningConfig
from negexp.sampling import MiningPolicy, Negatives, Neighbours, SamplingRound
from negexp.sampling.policy import take_first


@dataclass
class FartherOptions(MiningConfig):
    skip: int = option("so many of the nearest are passed over", low=0)


class Farther(MiningPolicy):
    Options = FartherOptions
    options: FartherOptions

    def depth(self, round_: SamplingRound) -> int:
        return self.options.skip + round_.num_negatives

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        allowed = neighbours.allowed
        return take_first(neighbours, allowed & (allowed.cumsum(axis=1) > self.options.skip), round_.num_negatives)
""",
    "in_order.py": """
import numpy as np

from negexp.sampling import BatchPlan, BatchRound


class InOrder(BatchPlan):
    def compose(self, round_: BatchRound) -> list[np.ndarray]:
        return np.split(np.arange(round_.pairs), range(round_.size, round_.pairs, round_.size))
""",
    "cosine_loss.py": '''
from dataclasses import dataclass

from torch import Tensor

from negexp.components import option
from negexp.config import LossConfig
from negexp.model import Loss, TextBatch
from negexp.model.bi_encoder import PairClassifier


@dataclass
class CosineOptions(LossConfig):
    scale: float = option("of the similarities", low=0)


class Cosine(Loss):
    """Cross-entropy over all allowed candidates of the batch, points among them."""

    Options = CosineOptions
    options: CosineOptions
    points_are_candidates = True

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        scores = self.options.scale * batch.query.retrieval @ batch.candidate.retrieval.T
        gold = scores.gather(1, batch.positive[:, None])
        wrong = scores.masked_fill(~batch.allowed, float("-inf"))
        softmax = (wrong.logsumexp(1).logaddexp(gold[:, 0]) - gold[:, 0]).mean()
        return {"total": softmax, "softmax": softmax, "columns": batch.allowed.sum(1).double().mean()}
''',
    "lines.py": """
import json
from dataclasses import dataclass
from pathlib import Path

from negexp.components import option
from negexp.config import ListenerConfig
from negexp.tracking.listener import Epoch, Listener, Refresh, RunInfo


@dataclass
class LinesOptions(ListenerConfig):
    file: str = option("where the lines go, in the run's folder", choices=("lines.jsonl", "epochs.jsonl"))


class Lines(Listener):
    Options = LinesOptions

    def __init__(self, options: LinesOptions) -> None:
        self.options = options
        self.steps = self.refreshes = 0

    def started(self, run: RunInfo) -> None:
        self.path = run.folder / self.options.file
        self._write({"started": run.config["sampler.name"], "epochs": len(run.epochs)})

    def refreshed(self, refresh: Refresh) -> None:
        self.refreshes += 1
        assert len(refresh.ledger)

    def step(self, number: int, losses: dict) -> None:
        self.steps += 1

    def committed(self, epoch: Epoch) -> None:
        assert (self.path.parent / "checkpoints" / f"epoch-{epoch.number:03d}" / "manifest.json").exists()
        counts = {"steps": self.steps, "refreshes": self.refreshes}
        self._write({"epoch": epoch.number, "loss": epoch.row["loss"], **counts})

    def finished(self, result: dict) -> None:
        self._write({"best": result["best_epoch"]})

    def _write(self, values: dict) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\\n")
""",
    "words.py": """
from dataclasses import dataclass

from negexp.components import option
from negexp.config import DataConfig
from negexp.corpus.arguments import Record
from negexp.corpus.limits import Limits
from negexp.corpus.reader import CorpusReader, Reading


@dataclass
class WordsOptions(DataConfig):
    debates: int = option("so many debates a split", low=2)


class Words(CorpusReader):
    Options = WordsOptions
    options: WordsOptions

    def check(self) -> None:
        pass

    @property
    def path(self):
        return "generated"

    def read(self, limits: Limits) -> Reading:
        return Reading([
            Record(f"point {split} {debate} {stance} is right", f"counter {split} {debate} {stance} is wrong", split,
                   "theme", f"debate{debate}", stance, f"{split}/{debate}/{stance}")
            for split in ("train", "validation", "test") for debate in range(self.options.debates)
            for stance in ("pro", "con")
        ])
""",
    "stairs.py": """
from dataclasses import dataclass

from negexp.components import option
from negexp.config import ScheduleConfig
from negexp.sampling import Schedule


@dataclass
class StairsOptions(ScheduleConfig):
    high: float = option("the first epoch's value", low=0, high=1)


class Stairs(Schedule):
    Options = StairsOptions
    options: StairsOptions

    def value(self, progress, validation):
        return self.options.high if progress < 1 else 0.0
""",
    "conf/sampler/alternate.yaml": "defaults:\n  - hard\nname: alternate\nevery: 2\n",
    "conf/mining/farther.yaml": "# @package sampler.mining\nname: farther\nskip: 1\n",
    "conf/batch/in_order.yaml": "defaults:\n  - shuffled\nname: in_order\n",
    "conf/loss/cosine.yaml": "name: cosine\nscale: 10.0\n",
    "conf/tracker/lines.yaml": "# @package tracker.listeners.lines\nname: lines\nfile: lines.jsonl\n",
    "conf/data/words.yaml": "defaults:\n  - demo\nname: words\ndebates: 4\n",
    "conf/schedule/stairs.yaml": "name: stairs\nhigh: 0.5\n",
}
ENTRY_POINTS = f"""
[negexp.samplers]
alternate = {PACKAGE}.alternate_sampler:Alternate
[negexp.mining]
farther = {PACKAGE}.farther_mining:Farther
[negexp.batches]
in_order = {PACKAGE}.in_order:InOrder
[negexp.losses]
cosine = {PACKAGE}.cosine_loss:Cosine
[negexp.trackers]
lines = {PACKAGE}.lines:Lines
[negexp.readers]
words = {PACKAGE}.words:Words
[negexp.schedules]
stairs = {PACKAGE}.stairs:Stairs
"""
QUICK = ["trainer.precision=float32", "trainer.device=cpu", "tracker.progress=never"]
ALL = ["sampler=alternate", "mining=farther", "batch=in_order", "loss=cosine", "data=words"]
ALL += ["tracker=[default,lines]"]


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """Install the package below tmp_path, and work in another folder."""
    with installed(PACKAGE, FILES, ENTRY_POINTS, tmp_path) as work:
        yield work


def test_a_run_with_a_component_of_every_kind(package: Path) -> None:
    smoke = ["experiment=smoke", "data.max_pairs=null", "sampler.refresh.steps=1", "trainer.batch_size=4"]
    assert main(["train", *smoke, *ALL, *QUICK, "hydra.run.dir=run"]) == 0
    lines = [json.loads(line) for line in Path("run/lines.jsonl").read_text().splitlines()]
    metrics, refreshes = pd.read_csv("run/metrics.csv"), pd.read_csv("run/refreshes.csv")
    assert lines[0] == {"started": "alternate", "epochs": 0}
    assert [line["loss"] for line in lines[1:3]] == metrics["loss"].tolist()
    assert [line["steps"] for line in lines[1:3]] == [2, 4]  # 8 pairs in batches of 4
    assert [line["refreshes"] for line in lines[1:3]] == [2, 4]
    assert lines[3] == {"best": json.loads(Path("run/result.json").read_text())["best_epoch"]}
    assert metrics["loss_softmax"].tolist() == metrics["loss"].tolist()
    # 4 counters, 4 points, 4 negatives; a pair's own two arguments are not allowed, in any of these places
    assert metrics["loss_columns"].between(8, 10).all()
    assert (refreshes["every"] == 2).all()
    ledger = pd.read_parquet("run/negatives/epoch-000.parquet")
    assert ledger["mined"].tolist() == [False, True] * 4
    assert (ledger.loc[ledger["mined"], "neighbour_rank"] >= 2).all()
    assert Path("run/negatives/epoch-001-step-00001.parquet").exists()
    # going on tells the tracker nothing twice
    assert main(["train", *smoke, *ALL, *QUICK, "hydra.run.dir=run", "trainer.epochs=3"]) == 0
    lines = [json.loads(line) for line in Path("run/lines.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == [0, 1, 2]
    assert lines[4] == {"started": "alternate", "epochs": 2}


def test_a_schedule_of_another_package(package: Path) -> None:
    scheduled = ["sampler=scheduled", "schedule@sampler.random_rate=stairs"]
    assert main(["train", "experiment=smoke", *scheduled, *QUICK, "hydra.run.dir=run"]) == 0
    assert pd.read_csv("run/metrics.csv")["random_rate"].tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampler.every=1", "sampler.every=1: must be at least 2"),
        ("sampler.mining.skip=-1", "sampler.mining.skip=-1: must be at least 0"),
        ("batch.separate_copies=2", "batch.separate_copies=2: must be true or false"),
        ("loss.scale=steep", "loss.scale=steep: must be a number"),
        (
            "tracker.listeners.lines.file=x",
            "tracker.listeners.lines.file=x: must be one of lines.jsonl, epochs.jsonl",
        ),
        ("data.debates=null", "data.debates=null: needs a value, a whole number"),
        ("+loss.scales=1", "loss.scales: no such key of loss=cosine; there are name, scale; did you mean loss.scale?"),
    ],
)
def test_a_wrong_option_of_another_package_is_refused_in_one_line(
    package: Path, override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "experiment=smoke", *ALL, override]) == 2
    assert capsys.readouterr().err == f"negexp: {message}\n"
    assert not list(package.iterdir())


def test_names_are_listed_without_importing_a_component(package: Path) -> None:
    assert "alternate" in names("sampler")
    assert names("mining")[-1] == "farther"
    assert not [module for module in sys.modules if module.startswith(f"{PACKAGE}.")]


def test_a_tracker_that_fails_costs_a_warning_and_not_the_run(
    package: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (path := package.parent / "site" / PACKAGE / "lines.py").write_text(
        path.read_text().replace("self.refreshes += 1", "raise ConnectionError('the service is down')")
    )
    smoke = ["experiment=smoke", "tracker=[default,lines]", *QUICK, "hydra.run.dir=run"]
    assert main(["train", *smoke]) == 0
    log = Path("run/train.log").read_text()
    assert log.count("tracker lines: ConnectionError in refreshed (the service is down); the run continues") == 1
    assert len(Path("run/lines.jsonl").read_text().splitlines()) == 1  # it was told of the start, and of nothing after
    assert Path("run/result.json").exists()


def test_a_tracker_that_there_is_not_gets_the_name_that_is_near(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "tracker=[default,linse]"]) == 2
    error = capsys.readouterr().err
    assert error == "negexp: In 'train': Could not load 'tracker/linse'; did you mean tracker=lines?\n"


def test_a_name_alone_does_not_choose_another_component(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sampler.name=hard"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("; sampler=hard as a whole brings its own keys, sampler.name alone keeps those of another\n")
