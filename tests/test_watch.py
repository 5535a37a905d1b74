"""`negexp runs`, and a report that is watched: which runs it shows, when it is written again, who may read it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import compose_train
from matplotlib.figure import Figure
from test_report import CHROMIUM, write_run

from negexp.cli import main
from negexp.config import to_yaml
from negexp.errors import InputError
from negexp.report import serve, unfinished
from negexp.report.listing import Listed, list_runs, listing_text
from negexp.report.runs import Run, find_runs
from negexp.report.serve import LivePage
from negexp.report.watch import Watch
from negexp.report.write import Finished, Picture, write_finished
from negexp.tracking import RunFolder

pytestmark = pytest.mark.runs

COLUMN = "validation/clean/reranked/epa/accuracy@1"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["negexp"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return tmp_path


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("negexp.report.write.draw_figures", lambda comparison, numbers: {})


def write_unfinished(folder: Path, *overrides: str, values: tuple[float, ...] = ()) -> Path:
    """Write the folder of a run that has committed epochs with these values of `trainer.monitor`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = compose_train("trainer.monitor=clean/reranked/epa/accuracy@1", "model.default_lr=3e-5", *overrides)
    (folder / "config.yaml").write_text(to_yaml(config))
    if values:
        pd.DataFrame({"epoch": range(len(values)), COLUMN: values}).to_csv(folder / "metrics.csv", index=False)
    return folder


def cells(listed: list[Listed]) -> dict[str, list[str]]:
    return {one.folder.name: one.cells() for one in listed}


# --- negexp runs ---------------------------------------------------------------------------------------------------


def test_runs_are_listed_with_arm_epochs_best_value_and_state(here: Path) -> None:
    done = write_run(here / "done", "sampler=hard", "name=a", "trainer.epochs=2")
    write_unfinished(here / "killed", "sampler=random", "name=a", "seed=3", "trainer.epochs=9", values=(0.25, 0.5, 0.5))
    write_unfinished(here / "new", "name=b")
    locked = write_unfinished(here / "training", "sampler=random", "name=a", "trainer.epochs=9", values=(0.125,))
    with RunFolder(locked).locked():
        found = cells(list_runs(find_runs(".")))
    best = pd.read_csv(done / "metrics.csv")[COLUMN][0]
    assert found == {
        "done": ["a", "sampler=hard", "0", "2 of 2", f"{best:.4f} (epoch 0)", "finished"],
        "killed": ["a", "sampler=random", "3", "3 of 9", "0.5000 (epoch 1)", "stopped"],
        "new": ["b", "sampler=decay", "0", "0 of 6", "-", "stopped"],
        "training": ["a", "sampler=random", "0", "1 of 9", "0.1250 (epoch 0)", "running"],
    }


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "config": (lambda run: (run / "config.yaml").write_text("a: 1"), "a: no such key"),
    "result": (lambda run: (run / "result.json").write_text('{"status":'), "damaged: "),
    "ranks": (lambda run: (run / "evaluation/test-ranks.parquet").unlink(), "damaged: "),
    "metrics": (lambda run: (run / "metrics.csv").write_bytes(b"\xff\xfe\x00"), "metrics.csv: cannot be read"),
    "text for numbers": (
        lambda run: (run / "metrics.csv").write_text(f"epoch,{COLUMN}\n0,x\n"),
        "no numbers in the col",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_run_is_listed_with_the_reason(here: Path, case: str) -> None:
    harm, reason = DAMAGE[case]
    harm(write_run(here / "run"))
    [listed] = list_runs(find_runs("."))
    assert listed.cells()[-1] == "damaged"
    assert listed.damage is not None
    assert reason in listed.damage
    assert f"\ndamaged run: {listed.damage}\n1 run: 1 damaged" in listing_text(".")


def test_the_command_prints_a_table_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_unfinished(here / "outputs/one", values=(0.5,))
    write_unfinished(here / "outputs/two", "trainer.monitor=clean/retrieval/epa/mrr")
    before = sorted(here.rglob("*"))
    assert main(["runs"]) == 0
    header, *rows, total = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "arm", "seed", "epochs", "best", "state", "folder", "best:", "validation"]
    assert re.split("  +", rows[0])[-2:] == ["outputs/one", "clean/reranked/epa/accuracy@1"]
    assert total == "2 runs: 2 stopped"
    assert main(["runs", "runs=outputs/one"]) == 0
    assert capsys.readouterr().out.endswith("1 run: 1 stopped; best: validation clean/reranked/epa/accuracy@1\n")
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs"], "runs=outputs: no such folder"),
        (["runs", "runs=."], "runs=.: contains no run"),
        (["report", "runs=.", "port=8000"], "port=8000: a report is served with watch=true only"),
        (["report", "runs=.", "watch=true", "port=70000"], "port=70000: must be between 0 and 65535"),
        (["report", "runs=nowhere", "watch=true"], "runs=nowhere: no such folder"),
        (["report", "runs=a,b", "watch=true"], "runs=a,b: contains no run yet; give output=FOLDER"),
    ],
)
def test_a_mistake_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (here / "a").mkdir()
    (here / "b").mkdir()
    before = sorted(here.rglob("*"))
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"negexp: {message}")
    assert err.count("\n") == 1
    assert sorted(here.rglob("*")) == before


# --- what a watched report shows, and when ---------------------------------------------------------------------------


def page_of(watched: Watch) -> str:
    watched.write()
    assert watched.folder is not None
    return (watched.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_figures")
def test_the_report_follows_a_run_from_its_start_to_its_end(here: Path) -> None:
    watched = Watch("runs", None, texts=False, examples=0)
    (here / "runs").mkdir()
    assert watched.look()
    assert "No run is finished yet" in page_of(watched)
    assert not watched.look()
    write_unfinished(here / "runs/x", "sampler=hard")
    assert watched.look()
    page = page_of(watched)
    assert "Unfinished runs" in page
    assert "<img" not in page  # there is nothing to draw yet
    for values in ((0.25,), (0.25, 0.5)):
        write_unfinished(here / "runs/x", "sampler=hard", values=values)
        assert watched.look()
        assert re.search(
            rf"{len(values)} of \d+</td><td>{values[-1]:.4f} \(epoch {len(values) - 1}\)", page_of(watched)
        )
    assert (here / "runs/watch/figures/unfinished.svg").exists()
    with RunFolder(here / "runs/x").locked():
        assert watched.look()
        assert "<td>running</td>" in page_of(watched)
    assert watched.look()
    assert "<td>stopped</td>" in page_of(watched)
    shutil.rmtree(here / "runs/x")
    write_run(here / "runs/x", "sampler=hard")
    assert watched.look()
    page = page_of(watched)
    assert "Unfinished runs" not in page
    assert "sampler=hard reaches" in page
    assert not (here / "runs/watch/figures/unfinished.svg").exists()
    assert watched.write() == "report of 1 finished and 0 unfinished runs"
    assert not watched.look()


@pytest.mark.usefixtures("no_figures")
def test_finished_runs_are_compared_again_only_when_there_is_another_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def count(runs: Sequence[Run], *rest: Any) -> Finished:
        compared.append(len(runs))
        return write_finished(runs, *rest)

    monkeypatch.setattr("negexp.report.watch.write_finished", count)
    write_run(here / "a", "seed=0")
    (write_run(here / "broken", "seed=5") / "result.json").write_text("{}")
    watched = Watch(".", None, texts=False, examples=0)
    assert watched.look()
    for values in ((0.5,), (0.5, 0.25)):
        write_unfinished(here / "b", "seed=1", values=values)
        assert watched.look()
        page = page_of(watched)
        assert "sampler=decay reaches" in page
        assert re.search(r"broken: written by another version", page)
    assert compared == [1]
    assert watched.write() == "report of 1 finished and 1 unfinished runs, 1 damaged"
    shutil.rmtree(here / "b")
    write_run(here / "b", "seed=1")
    assert watched.look()
    assert compared == [1, 2]


def test_unfinished_curves_are_dashed_and_have_the_values_of_the_table(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Figure] = {}

    def keep(folder: Path, name: str, caption: str, figure: Figure) -> Picture:
        drawn[name] = figure
        return Picture(name, caption, "")

    monkeypatch.setattr(unfinished, "write_picture", keep)
    done = [write_run(here / f"{seed}", "sampler=hard", f"seed={seed}", accuracy=0.3 + seed / 5) for seed in (0, 1)]
    write_unfinished(here / "more", "sampler=hard", "seed=2", values=(0.25, 0.5, 0.125))
    write_unfinished(here / "other", "sampler=random", values=(0.75,))
    write_unfinished(here / "elsewhere", "data.max_pairs=20", values=(1.0,))  # another corpus: another figure
    assert unfinished.write_unfinished(list_runs(find_runs(".")), here) is not None
    assert list(drawn) == ["1-unfinished", "2-unfinished"]
    lines = {
        (str(line.get_label()), line.get_linestyle()): (
            np.asarray(line.get_xdata()).tolist(),
            np.asarray(line.get_ydata()).tolist(),
        )
        for figure in drawn.values()
        for line in figure.axes[0].lines
    }
    mean = sum(pd.read_csv(folder / "metrics.csv")[COLUMN] for folder in done) / 2
    arms = {label.split(",")[0]: label for label, _ in lines}
    assert len(arms) == len(lines) == 4
    solid = next(key for key in lines if key[0].endswith("(2 finished)"))
    assert solid[1] == "-"
    assert lines[solid][0] == [1, 2]
    assert lines[solid][1] == pytest.approx(100 * mean)
    more = next(key for key in lines if "seed 2 (stopped, 3 of 6)" in key[0])
    assert more[1] == "--"
    assert lines[more] == ([1, 2, 3], [25.0, 50.0, 12.5])
    assert [key[1] for key in lines].count("--") == 3


def test_only_own_files_are_removed(here: Path) -> None:
    for name in ("unfinished.svg", "2-unfinished.png", "my-unfinished.png", "unfinished.txt"):
        (here / name).write_text("")
    assert unfinished.write_unfinished([], here) is None
    assert sorted(path.name for path in here.iterdir()) == ["my-unfinished.png", "unfinished.txt"]


# --- who may read it -------------------------------------------------------------------------------------------------

PAGE = b"<!doctype html><html><body><p>%s</p></body></html>"


@pytest.fixture
def page() -> Iterator[LivePage]:
    with LivePage(0) as live:
        yield live


def ask(live: LivePage, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(live.address.split("/")[2], timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_the_page_and_its_version_are_served_and_nothing_else(page: LivePage) -> None:
    assert ask(page, "/")[0] == 503
    versions = []
    for text in (b"one", b"two", b"one"):
        page.show(PAGE % text)
        status, headers, content = ask(page, "/")
        assert status == 200
        assert b"<p>" + text + b"</p>" in content
        versions.append(ask(page, "/version")[2].decode())
        assert f'data-version="{versions[-1]}"'.encode() in content
        assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert versions[0] == versions[2] != versions[1]
    assert ask(page, "/", "HEAD")[0::2] == (200, b"")
    assert ask(page, "/", "POST")[0] == 501
    for path in ("/report.html", "/../config.yaml", "/figures/learning.svg", "//etc/passwd", "/version/"):
        assert ask(page, path)[0] == 404


def test_the_page_may_run_its_own_script_only(page: LivePage) -> None:
    page.show(PAGE % b"one")
    _, headers, content = ask(page, "/")
    [script] = re.findall(r"<script[^>]*>(.*?)</script>", content.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"


def test_another_host_is_refused(page: LivePage) -> None:
    page.show(PAGE % b"one")
    port = page.address.rpartition(":")[2].strip("/")
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        assert ask(page, "/", Host=host)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "localhost:1", f"127.0.0.1.evil.example:{port}"):
        status, _, content = ask(page, "/", Host=host)
        assert (status, b"one" in content) == (403, False)


def test_only_this_machine_is_listened_to_and_a_taken_port_is_refused(page: LivePage) -> None:
    host, port = page._server.server_address[:2]
    assert host == "127.0.0.1"
    with pytest.raises(InputError, match=rf"port={port}: cannot be used \(Address already in use\); give another"):
        LivePage(int(port))


def test_the_port_is_free_after_the_end() -> None:
    with LivePage(0) as live:
        port = live._server.server_port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.05)


def test_ctrl_c_ends_the_watch_with_its_exit_code(here: Path) -> None:
    (here / "runs").mkdir()
    command = [sys.executable, "-m", "negexp", "report", "runs=runs", "watch=true", "every=0.1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background suite ignores it
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("http://127.0.0.1:"), process.communicate()
        assert process.stdout.readline().endswith("report of 0 finished and 0 unfinished runs\n")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "negexp: stopped by SIGINT"
    assert (here / "runs/watch/report.html").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_a_browser_loads_the_page_again(page: LivePage, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer = serve._Handler.do_GET

    def noted(self: serve._Handler) -> None:
        asked.append(self.path)
        answer(self)

    monkeypatch.setattr(serve._Handler, "do_GET", noted)
    page.show(PAGE % b"one")
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={here / 'profile'}", page.address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            until(lambda: "/version" in asked)
            assert asked.count("/") == 1
            page.show(PAGE % b"two")
            until(lambda: asked.count("/") == 2)
        finally:
            browser.kill()
