"""Inputs that cannot hurt: each is refused in one line or read as it should be; nothing runs, nothing leaks out."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import pickle
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Train, compose_train
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from negexp.cli import main
from negexp.components import KINDS as COMPONENT_KINDS
from negexp.config import load_run_config, to_yaml
from negexp.corpus.limits import LONGEST_TEXT, Limits
from negexp.corpus.readers.arguana import read_arguana
from negexp.corpus.tables import read_pairs
from negexp.errors import InputError
from negexp.tracking.files import sha256

pytestmark = pytest.mark.runs

SMOKE = "experiment=smoke"
LIMITS = Limits(max_bytes=2**24, max_files=200)
ARGUMENT = "c/02-extracted-arguments/{split}/law/masks/pro/pro01{kind}.txt"
KINDS = ("a-point", "b-counter")


class Payload:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("sys.argv", ["negexp"])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.startswith("negexp: ")
    assert err.count("\n") == 1
    return err


# --- archives -----------------------------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def archive(path: Path, *hostile: tuple[tarfile.TarInfo, bytes]) -> Path:
    """Write a corpus of one pair a split, and behind it what is hostile."""
    with tarfile.open(path, "w") as tar:
        for split in ("training", "validation", "test"):
            for kind in KINDS:
                text = f"{split} {kind}".encode()
                tar.addfile(member(ARGUMENT.format(split=split, kind=kind), size=len(text)), io.BytesIO(text))
        for info, data in hostile:
            tar.addfile(info, io.BytesIO(data))
    return path


def text_of(data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member(ARGUMENT.format(split="test", kind="a-point"), size=len(data)), data


def sparse(path: Path) -> Path:
    """Write an archive whose one member has ten gigabytes and stores none of them (the format of GNU tar 1.0)."""
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(10 * 2**30)}
    headers["GNU.sparse.name"] = ARGUMENT.format(split="training", kind="a-point")
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = member("GNUSparseFile.0/x", size=512)
        info.pax_headers = headers
        tar.addfile(info, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    return path


def endless_header(path: Path) -> Path:
    """Write an archive whose extended header claims four gigabytes, which the reader would hold in memory."""
    info = member("x", tarfile.XHDTYPE, size=4 * 2**30)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(40):
            file.write(bytes(2**20))
    return path


def bomb(path: Path, opener: Callable[..., io.BufferedIOBase]) -> Path:
    """Write forty megabytes of zeros that take up next to nothing."""
    with opener(path, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(member("notes.txt", size=40 * 2**20), io.BytesIO(bytes(40 * 2**20)))
    return path


ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "parent": (
        lambda path: archive(path, (member("../../" + ARGUMENT.format(split="test", kind="a-point")), b"")),
        "a path outside the archive",
    ),
    "absolute": (lambda path: archive(path, (member("/etc/passwd"), b"")), "a path outside the archive"),
    "sparse": (sparse, "is sparse, larger than what is stored"),
    "header without end": (endless_header, "data.max_bytes=16777216: "),
    "gzip bomb": (lambda path: bomb(path, gzip.open), "data.max_bytes=16777216: "),
    "bzip2 bomb": (lambda path: bomb(path, bz2.open), "data.max_bytes=16777216: "),
    "many members": (
        lambda path: archive(path, *[(member(f"{i}.txt"), b"") for i in range(300)]),
        "data.max_files=200: ",
    ),
    "long text": (
        lambda path: archive(
            path,
            (member(ARGUMENT.format(split="test", kind="a-point"), size=LONGEST_TEXT + 1), bytes(LONGEST_TEXT + 1)),
        ),
        f"holds a text of {LONGEST_TEXT + 1} bytes",
    ),
    "NUL": (
        lambda path: archive(path, text_of(b"a\0b")),
        "byte 1 is NUL",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_hostile_archive_is_refused(case: str, tmp_path: Path) -> None:
    make, message = ARCHIVES[case]
    path = make(tmp_path / "corpus.tar")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        read_arguana(path, LIMITS)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_and_devices_in_an_archive_are_no_texts(tmp_path: Path, kind: bytes) -> None:
    name = ARGUMENT.format(split="test", kind="a-point").replace("pro01", "pro02")
    path = archive(tmp_path / "corpus.tar", (member(name, kind, link="/etc/passwd"), b""))
    assert len(read_arguana(path, LIMITS)[0]) == 3


def test_a_link_out_of_a_corpus_folder_is_refused(tmp_path: Path) -> None:
    with tarfile.open(archive(tmp_path / "corpus.tar")) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "secret.txt").write_text("a secret")
    file = tmp_path / ARGUMENT.format(split="test", kind="a-point")
    file.unlink()
    file.symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InputError, match="is a link to a file outside the corpus"):
        read_arguana(tmp_path / "c", LIMITS)


@pytest.mark.parametrize("path", ["/dev/zero", "pipe"])
def test_what_never_ends_is_no_corpus(tmp_path: Path, path: str) -> None:
    os.mkfifo("pipe")
    with pytest.raises(InputError, match="is neither a folder nor a file"):
        read_arguana(Path(path), LIMITS)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mangled_archive_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(archive(tmp_path / "corpus.tar").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, 6 * 1024))] = data.draw(st.integers(0, 255))
    read_or_refuse(lambda path: read_arguana(path, LIMITS), tmp_path / "mangled.tar", bytes(content))


def read_or_refuse(read: Callable[[Path], object], path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refusal = ""
    try:
        read(path)
    except InputError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert not refusal or str(path) in refusal


# --- pair tables --------------------------------------------------------------------------------------------------


def parquet_bomb(path: Path, dictionary: bool) -> None:
    """Write a small file whose table takes gigabytes: one long text again and again, or one that is too long."""
    text = "x" * (LONGEST_TEXT if dictionary else LONGEST_TEXT + 1)
    column = pa.array([text]).dictionary_encode()
    many = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000 if dictionary else 1, np.int32)), column.dictionary)
    pq.write_table(pa.table({"point": many, "counter": many}), path, compression="zstd")


TABLES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a long cell": ("a.csv", lambda p: p.write_text("point,counter\n" + "x" * 100_000_000 + ",c\n"), "data.max_bytes="),
    "a cell too long": (
        "a.csv",
        lambda p: p.write_text(f"point,counter\n{'x' * (LONGEST_TEXT + 1)},c\n"),
        "larger than field limit",
    ),
    "a long line": (
        "a.jsonl",
        lambda p: p.write_text(json.dumps({"point": "x" * (LONGEST_TEXT + 1), "counter": "c"})),
        f":1: point: holds a text of {LONGEST_TEXT + 1} bytes",
    ),
    "a text too long": ("a.parquet", lambda p: parquet_bomb(p, False), f"holds a text of {LONGEST_TEXT + 1} bytes"),
    "a text again and again": ("a.parquet", lambda p: parquet_bomb(p, True), "data.max_bytes="),
    "a NUL": ("a.csv", lambda p: p.write_bytes(b"point,counter\na\0b,c\n"), "byte 15 is NUL"),
    "an escaped NUL": (
        "a.jsonl",
        lambda p: p.write_bytes(b'{"point": "a\\u0000b", "counter": "c"}'),
        ":1: point holds a NUL character",
    ),
    "UTF-16": ("a.csv", lambda p: p.write_text("point,counter\na,b\n", encoding="utf-16-le"), "byte 1 is NUL"),
    "UTF-16 with a mark": ("a.csv", lambda p: p.write_text("point,counter\na,b\n", encoding="utf-16"), "not UTF-8"),
    "mixed encodings": (
        "a.csv",
        lambda p: p.write_bytes("point,counter\nnaïve,c\n".encode() + "naïve,d\n".encode("latin-1")),
        "byte 25 is not UTF-8",
    ),
    "a header twice": ("a.csv", lambda p: p.write_bytes(b"point,counter,point\na,b,c\n"), "occurs twice in the header"),
    "a key twice": (
        "a.jsonl",
        lambda p: p.write_bytes(b'{"point": "a", "point": "b", "counter": "c"}'),
        "occurs twice",
    ),
    "numbers": ("a.parquet", lambda p: pq.write_table(pa.table({"point": [1], "counter": ["c"]}), p), "holds int64"),
    "a column twice": (
        "a.parquet",
        lambda p: pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["point", "point", "counter"]), p),
        "occurs twice",
    ),
    "a pickle": ("a.parquet", lambda p: p.write_bytes(pickle.dumps(Payload())), "cannot be read as Parquet"),
    "a folder": ("a.csv", Path.mkdir, "is not a file"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_hostile_table_is_refused(case: str, tmp_path: Path) -> None:
    name, write, message = TABLES[case]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as refusal:
        read_pairs(tmp_path / name, LIMITS)
    assert "\n" not in str(refusal.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_marks_of_other_systems_are_read(tmp_path: Path, ending: str, mark: str) -> None:
    lines = ["point,counter", "naïve,one", "zwei,two", ""]
    (tmp_path / "a.csv").write_bytes((mark + ending.join(lines)).encode())
    assert [record.point for record in read_pairs(tmp_path / "a.csv", LIMITS)] == ["naïve", "zwei"]
    rows = [json.dumps({"point": word, "counter": "c"}, ensure_ascii=False) for word in ("naïve", "zwei")]
    (tmp_path / "a.jsonl").write_bytes((mark + ending.join([*rows, ""])).encode())
    assert [record.point for record in read_pairs(tmp_path / "a.jsonl", LIMITS)] == ["naïve", "zwei"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300) | st.text(alphabet='pointcer,"{}[]:\n\r\\u0\t ', max_size=200).map(str.encode))
@example(content=b"PAR1" + bytes(8) + b"PAR1")
@example(content=b'{"point": 1e999, "counter": "c"}')
def test_any_bytes_are_read_or_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    header = {".csv": b"point,counter\n", ".jsonl": b'{"point": "a", "counter": "b"}\n', ".parquet": b"PAR1"}[suffix]
    for bytes_ in (content, header + content):
        read_or_refuse(lambda path: read_pairs(path, LIMITS), tmp_path / f"a{suffix}", bytes_)


# --- configurations -----------------------------------------------------------------------------------------------

CONFIGS = {
    "a target": ("model:\n  _target_: os.system\n", "model._target_|_target_"),
    "the environment": ("name: ${oc.env:HOME}\n", "has an interpolation"),
    "an interpolation": ("name: ${seed}\n", "has an interpolation"),
    "a bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "has YAML anchors",
    ),
    "an object": ("name: !!python/object/apply:os.system ['touch ran']\n", "cannot be read as YAML"),
    "a deep nest": ("a: " + "[" * 20_000, "more than 20 levels"),
    "a key twice": ("seed: 1\nseed: 2\n", "cannot be read as YAML"),
    "too much": ("#" * 2**21, "is no regular file of at most"),
    "NUL": ("name: a\0b\n", "cannot be read as YAML"),
    "a list": ("- 1\n", "holds no mapping"),
    "nothing": ("", "name: "),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_hostile_configuration_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, message = CONFIGS[case]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as refusal:
        load_run_config(tmp_path / "run" / "config.yaml")
    assert "\n" not in str(refusal.value)
    assert main(["evaluate", f"run={tmp_path}/run"]) == 2
    assert os.environ["HOME"] not in one_line(capsys)
    assert list(Path.cwd().iterdir()) == []


def test_a_target_in_a_strategys_keys_is_refused(tmp_path: Path) -> None:
    text = to_yaml(compose_train()).replace("name: decay", "name: decay\n  _target_: os.system")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"sampler\._target_: no such key of sampler=decay"):
        load_run_config(tmp_path / "config.yaml", COMPONENT_KINDS)


OVERLAYS = {
    "Hydra's tests": "hydra:\n  callbacks:\n    x:\n      _target_: hydra.test_utils.test_utils.run_process\n",
    "created callback": "hydra:\n  callbacks:\n    x: \"${oc.create:'{_target_: joblib.load}'}\"\n",
    "referenced callbacks": "hydra:\n  callbacks: ${sampler.refresh}\n",
    "reference in a log": "hydra:\n  job_logging:\n    handlers:\n      x: ${sampler.refresh}\n",
    "callback": "hydra:\n  callbacks:\n    x:\n      _target_: os.system\n",
    "launcher": "hydra:\n  launcher:\n    _target_: os.system\n",
    "log handler": "hydra:\n  job_logging:\n    handlers:\n      x:\n        (): os.system\n",
    "log class": "hydra:\n  job_logging:\n    handlers:\n      x:\n        class: subprocess.Popen\n",
}


@pytest.mark.parametrize("arguments", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
@pytest.mark.parametrize("case", OVERLAYS)
def test_an_overlay_cannot_name_code(case: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(f"# @package _global_\n{OVERLAYS[case]}")
    assert main(["train", "--config-dir", "conf", "experiment=mine", *arguments]) == 2
    assert re.search("names code to run, which no configuration|could come to name code", one_line(capsys))
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["conf"]


def test_an_overlay_that_is_no_yaml_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# @package _global_\nname: a: b\n")
    assert main(["train", "--config-dir", "conf", "experiment=mine"]) == 2
    assert "mine.yaml" in one_line(capsys)


def test_a_swept_overlay_cannot_name_code(capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(f"# @package _global_\n{OVERLAYS['log handler']}")
    assert main(["train", "--config-dir", "conf", "-m", "experiment=smoke,mine"]) == 2
    assert "names code to run, which no configuration" in one_line(capsys)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["conf"]


def test_the_environment_is_not_copied_into_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", SMOKE, "name=${oc.env:HOME}"]) == 2
    assert "name: ${oc.env:HOME} would be saved with the run; let the shell look it up: $HOME" in one_line(capsys)
    Path("conf/experiment").mkdir(parents=True)
    hidden = "sampler:\n  options: {a: env}\nname: ${oc.${sampler.options.a}:HOME}\n"
    Path("conf/experiment/mine.yaml").write_text(f"# @package _global_\n{hidden}")
    assert main(["train", "--config-dir", "conf", "experiment=mine"]) == 2
    assert os.environ["HOME"] + "\n" not in one_line(capsys)
    shutil.rmtree("conf")
    assert main(["train", SMOKE, "name=x${oc.decode:${oc.env:HOME}}"]) == 2
    assert os.environ["HOME"] not in one_line(capsys)
    assert list(Path.cwd().iterdir()) == []


# --- a run folder from a stranger ---------------------------------------------------------------------------------


def reseal(run: Path) -> None:
    """Make the manifest say what the files are now, as somebody who means harm would."""
    folder = run / "checkpoints" / json.loads((run / "checkpoints" / "index.json").read_text())["best"]
    digests = {path.name: sha256(path) for path in folder.iterdir() if path.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps({"sha256": digests}))


def best(run: Path) -> Path:
    return run / "checkpoints" / str(json.loads((run / "checkpoints" / "index.json").read_text())["best"])


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def link_out(run: Path, path: Path) -> None:
    moved = run.parent / f"outside-{path.name}"
    shutil.move(path, moved)
    path.symlink_to(moved)


def pickled_weights(run: Path) -> None:
    (best(run) / "model.safetensors").write_bytes(pickle.dumps((Payload(), bytes(2**20))))


def torch_weights(run: Path) -> None:
    torch.save((Payload(), torch.zeros(2**18)), best(run) / "model.safetensors")


def other_tensors(run: Path) -> None:
    save_file({"x": torch.zeros(10**6)}, best(run) / "model.safetensors")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


STRANGERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickled weights": (pickled_weights, "does not fit config.yaml"),
    "weights of torch.save": (torch_weights, "does not fit config.yaml"),
    "other tensors": (other_tensors, "does not fit config.yaml"),
    "linked weights": (lambda run: link_out(run, best(run) / "model.safetensors"), "is a link out of the run's folder"),
    "linked checkpoints": (lambda run: link_out(run, run / "checkpoints"), "is a link out of the run's folder"),
    "linked tokenizer": (lambda run: link_out(run, run / "encoder" / "tokenizer.json"), "is not a regular file"),
    "linked configuration": (lambda run: link_out(run, run / "config.yaml"), "is no regular file"),
    "a pipe for a tokenizer": (
        lambda run: pipe(run / "encoder" / "tokenizer.json"),
        "is not a regular file",
    ),
    "code for the encoder": (
        lambda run: edit_json(
            run / "encoder" / "config.json", auto_map={"AutoConfig": "evil.Config"}, model_type="evil"
        ),
        "cannot be loaded",
    ),
    "an endless encoder": (
        lambda run: edit_json(run / "encoder" / "config.json", num_hidden_layers=10**9),
        "num_hidden_layers=1000000000 is more than any known encoder has",
    ),
    "a huge encoder": (
        lambda run: edit_json(run / "encoder" / "config.json", hidden_size=2**20, intermediate_size=2**20),
        "describes .* bytes of weights",
    ),
    "a nested encoder": (
        lambda run: (run / "encoder" / "config.json").write_text("[" * 100_000),
        "cannot be loaded|cannot be read",
    ),
    "best that leads out": (lambda run: edit_json(run / "checkpoints" / "index.json", best="../../.."), "not found"),
    "a nested index": (lambda run: (run / "checkpoints" / "index.json").write_text("[" * 100_000), "cannot be read"),
    "a manifest of other files": (
        lambda run: (best(run) / "manifest.json").write_text('{"sha256": {"../../../config.yaml": "0"}}'),
        "does not name the files of a commit",
    ),
}


@pytest.fixture
def run(finished_run: Train) -> Path:
    """Return a finished run that the test may harm, in a folder of its own."""
    return finished_run(SMOKE, "trainer.epochs=1", folder="strangers/run")


@pytest.mark.parametrize("case", STRANGERS)
def test_a_strangers_run_is_refused_and_nothing_runs(
    case: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm, message = STRANGERS[case]
    harm(run)
    if "weights" in case or "tensors" in case:
        reseal(run)
    assert main(["evaluate", f"run={run}", "device=cpu", f"output={tmp_path}/out"]) == 2
    assert re.search(message, one_line(capsys))
    assert not list(tmp_path.rglob("ran"))
    assert not (tmp_path / "out").exists()


def test_a_strangers_run_is_evaluated_and_reported_when_it_is_sound(run: Path, tmp_path: Path) -> None:
    assert main(["evaluate", f"run={run}", f"output={tmp_path}/out"]) == 0
    assert main(["report", f"runs={run}", f"output={tmp_path}/report"]) == 0
    assert (tmp_path / "report" / "report.html").exists()


def swap(column: str, values: Any) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        path = run / "evaluation" / "test-ranks.parquet"
        pd.read_parquet(path).assign(**{column: values}).to_parquet(path)

    return change


REPORTED: dict[str, Callable[[Path], object]] = {
    "versions": lambda run: edit_json(run / "result.json", versions=["torch"]),
    "overrides": lambda run: edit_json(run / "result.json", overrides={"a": 1}),
    "untrained": lambda run: edit_json(run / "result.json", untrained={}),
    "test": lambda run: edit_json(run / "result.json", test=[]),
    "re-ranker": lambda run: edit_json(run / "result.json", reranker=5),
    "pairs read": lambda run: edit_json(run / "result.json", reranker={"seconds": 1.0, "pairs_read": 3}),
    "a nested result": lambda run: (run / "result.json").write_text("[" * 100_000),
    "a linked result": lambda run: link_out(run, run / "result.json"),
    "a linked table": lambda run: link_out(run, run / "metrics.csv"),
    "a pipe": lambda run: pipe(run / "metrics.csv"),
    "texts for numbers": swap("rank", "one"),
    "fractions for ranks": swap("rank", 0.5),
    "numbers for texts": swap("task", 7),
    "words in metrics": lambda run: (run / "metrics.csv").write_text("epoch\nsoon\n"),
    "a pickle for ranks": lambda run: (run / "evaluation" / "test-ranks.parquet").write_bytes(pickle.dumps(Payload())),
    "an empty result": lambda run: (run / "result.json").write_text("{}"),
}


@pytest.mark.parametrize("case", REPORTED)
def test_a_strangers_run_is_left_out_of_a_report(
    case: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    REPORTED[case](run)
    assert main(["report", f"runs={run}", f"output={tmp_path}/report"]) == 2
    assert "no run can be reported" in one_line(capsys)
    assert not list(tmp_path.rglob("ran"))
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("link", ["report", "report/tables", "report/figures"])
def test_a_report_is_not_written_through_a_strangers_link(
    link: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "arms.csv").write_text("mine")
    (run / link).parent.mkdir(exist_ok=True)
    (run / link).symlink_to(mine)
    assert main(["report", f"runs={run}"]) == 2
    assert "is a link, and reports do not follow links" in one_line(capsys)
    assert [path.name for path in mine.iterdir()] == ["arms.csv"]


@pytest.mark.parametrize("part", ["checkpoints", "negatives", "evaluation", "encoder"])
def test_a_run_is_not_written_through_a_link(
    part: str, finished_run: Train, run_training: Train, tmp_path: Path
) -> None:
    run, mine = tmp_path / "run", tmp_path / "mine"
    run.mkdir()
    mine.mkdir()
    (run / part).symlink_to(mine)
    with pytest.raises(InputError, match="is a link; nothing is written outside of a run's folder"):
        run_training(SMOKE)
    assert list(mine.iterdir()) == []
    shutil.rmtree(run)
    finished_run(SMOKE, "trainer.epochs=1")
    shutil.move(run / part, mine / part)
    (run / part).symlink_to(mine / part)
    before = sorted(mine.rglob("*"))
    with pytest.raises(InputError, match="is a link"):  # nor when it goes on
        run_training(SMOKE, "trainer.epochs=2")
    assert sorted(mine.rglob("*")) == before


def test_a_planted_temporary_name_is_not_written_through(run_training: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    for name in (".config.yaml.tmp", ".metrics.csv.tmp", ".result.json.tmp"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "mine")
    run_training(SMOKE, "trainer.epochs=1")
    assert (tmp_path / "mine").read_text() == "mine"


# --- overrides ----------------------------------------------------------------------------------------------------

NAMES = "seed name resume data data.path data.max_pairs model model.layers sampler sampler.name sampler.step trainer.lr"
NAMES += " trainer.monitor trainer.device checkpoint.keep hydra.run.dir experiment index.nonsense"
KEYS = st.sampled_from(NAMES.split())
ODD = ["null", "[1,2]", "{a: 1}", "'x", "${seed}", "${", "${oc.env:HOME}", "a=b", "hard,random", "~", "\\"]
VALUES = st.one_of(st.text(max_size=12), st.integers().map(str), st.floats().map(str), st.sampled_from(ODD))
OVERRIDES = st.builds(
    lambda prefix, key, value: f"{prefix}{key}={value}", st.sampled_from(["", "+", "~", "++"]), KEYS, VALUES
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(overrides=st.lists(OVERRIDES | st.text(max_size=20), min_size=1, max_size=3), sweep=st.booleans())
@example(overrides=["data=[0]"], sweep=False)
def test_any_overrides_run_or_are_refused(
    overrides: list[str], sweep: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from negexp.commands.train import COMMAND

    stub = replace(COMMAND, run=lambda *_: "done", after_sweep=None)
    monkeypatch.setattr("negexp.commands.train.COMMAND", stub)
    try:
        code = main(["train", *(["-m"] if sweep else []), *overrides])
    except SystemExit as stop:
        code = int(str(stop.code))
    err = capsys.readouterr().err
    assert code in (0, 2), (overrides, err)
    assert "Traceback" not in err
    if code == 2:
        assert err.startswith("negexp: ")
        assert err.count("\n") == 1
