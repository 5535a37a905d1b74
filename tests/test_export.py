"""`negexp export`: the folder, its card, the upload, and what is refused. No sentence-transformers is needed for it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from conftest import compose_train
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from negexp.cli import main
from negexp.commands import train
from negexp.export.card import model_card, without_folders
from negexp.export.request import is_hub_name
from negexp.export.run import export_run
from negexp.report.runs import read_runs
from negexp.tracking import RunFolder, files

pytestmark = pytest.mark.runs

SMOKE = ["experiment=smoke", "trainer.epochs=1", "model.query_head=residual", "data.path=null"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    train.run(compose_train(*SMOKE), folder, [*SMOKE, "hydra.run.dir=/home/ada/secret/run"])
    return folder


@pytest.fixture(scope="module")
def exported(finished: Path) -> Path:
    """Return the folder of the run, for tests that only read it."""
    export_run(finished, finished.with_name("exported"))
    return finished.with_name("exported")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that refuses an export; no file is written or changed."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert main(["export", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("negexp: ")
    assert err.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return err


# --- the folder ----------------------------------------------------------------------------------------------------


def test_the_folder_has_modules_weights_and_a_card(
    finished: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "out").mkdir()  # an empty folder may exist
    assert main(["export", f"run={finished}", "output=out"]) == 0
    assert 'load it with SentenceTransformer("out")' in capsys.readouterr().out
    modules = json.loads(Path("out/modules.json").read_text())
    assert [one["path"] for one in modules] == ["", "1_Pooling", "2_Dense", "3_Normalize", "4_Router"]
    best = json.loads((finished / "checkpoints/index.json").read_text())["best"]
    trained = load_file(finished / "checkpoints" / best / "model.safetensors")
    dense = load_file("out/2_Dense/model.safetensors")
    assert dense["linear.weight"].equal(trained["towers.0.head.weight"])
    encoder = load_file("out/model.safetensors")
    assert all(encoder[name].equal(trained[f"towers.0.encoder.{name}"]) for name in encoder)
    suffixes = {path.suffix for path in Path("out").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors", ".md"}
    assert [path.name for path in here.iterdir()] == ["out"]


def test_no_file_names_a_folder_of_this_machine(finished: Path, exported: Path) -> None:
    for path in exported.rglob("*"):
        if path.suffix in (".json", ".md"):
            assert not re.search(r"/home/|/tmp|secret|" + re.escape(str(finished)), path.read_text()), path


def test_the_card_says_where_the_model_comes_from_and_what_it_reached(finished: Path, exported: Path) -> None:
    _, front, card = (exported / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "sentence-transformers"
    assert "base_model" not in yaml.safe_load(front)
    result = json.loads((finished / "result.json").read_text())
    assert "data.max_pairs=16 leaves 16 train" in card
    assert "Strategy of negatives: `decay` (nearest). Loss: `triplet_ce`." in card
    assert f"negexp train {' '.join(SMOKE)} hydra.run.dir=run\n" in card
    assert f"torch {result['versions']['torch']}" in card
    assert "@software{negexp," in card
    assert "`encode` alone embeds candidates" in card
    for task, values in result["test"]["clean"]["retrieval"].items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {task} |"))
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        expected = [values[metric] for metric in ("accuracy@1", "accuracy@10", "mrr", "ndcg@10")]
        assert [float(cell.split(" ")[0]) for cell in cells] == [round(100 * value, 1) for value in expected]
        for cell, value in zip(cells, expected, strict=True):
            low, high = map(float, re.findall(r"[\d.]+", cell)[1:])
            assert low - 0.05 <= 100 * value <= high + 0.05


def test_texts_of_a_strangers_run_stay_texts_in_the_card(finished: Path, here: Path) -> None:
    run = shutil.copytree(finished, here / "run")
    path = run / "result.json"
    result = json.loads(path.read_text())
    result["corpus_summary"] = "pairs\n# Title <script>alert(1)</script> `code`"
    result["overrides"] = ["a=```\n<script>", "b=1"]
    path.write_text(json.dumps(result))
    assert main(["export", "run=run", "output=out"]) == 0
    card = Path("out/README.md").read_text()
    outside = re.sub(r"^```.*?^```$", "", card, flags=re.DOTALL | re.MULTILINE)
    assert "pairs # Title &lt;script>alert(1)&lt;/script> 'code'" in outside
    assert "<script" not in outside
    assert card.count("```") % 2 == 0


def test_the_base_of_the_card_is_a_name_of_the_hub_and_no_folder(finished: Path, here: Path) -> None:
    run = read_runs([finished])[0][0]
    run.config.model.pretrained = "encoders/minilm"
    assert "base_model: encoders/minilm\n" in model_card(run, 0)
    (here / "encoders" / "minilm").mkdir(parents=True)
    assert "base_model" not in model_card(run, 0)


def test_a_failure_while_writing_leaves_nothing(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(operation: str, path: Path) -> None:
        if operation == "sync" and path.name == "README.md":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "before_operation", fail)
    assert "cannot be written (No space left on device)" in refusal(capsys, f"run={finished}", "output=out")


def test_paths_are_shortened_and_nothing_else() -> None:
    assert without_folders("model.pretrained=/data/models/mini") == "model.pretrained=mini"
    assert without_folders("+a.b='~/x/y'") == "+a.b=y"
    assert without_folders("model.pretrained=org/name") == "model.pretrained=org/name"
    assert without_folders("trainer.monitor=clean/retrieval/epa/mrr") == "trainer.monitor=clean/retrieval/epa/mrr"


# --- refusals ------------------------------------------------------------------------------------------------------


def test_an_output_that_holds_something_is_refused(
    finished: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    Path("link").symlink_to("mine")
    assert "output=mine: holds something already" in refusal(capsys, f"run={finished}", "output=mine")
    assert "output=mine/notes.txt: is a file" in refusal(capsys, f"run={finished}", "output=mine/notes.txt")
    assert "output=.: is the current folder" in refusal(capsys, f"run={finished}", "output=.")
    assert "output=link: is a link" in refusal(capsys, f"run={finished}", "output=link")


def damage_result(run: Path) -> None:
    (run / "result.json").write_text("{}")


def damage_weights(run: Path) -> None:
    next(iter(run.glob("checkpoints/*/model.safetensors"))).write_bytes(b"no weights")


def link_tokenizer(run: Path) -> None:
    (run / "encoder" / "tokenizer.json").rename(run.parent / "tokenizer.json")
    (run / "encoder" / "tokenizer.json").symlink_to(run.parent / "tokenizer.json")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no run": (shutil.rmtree, "config.yaml: not found; run= must name a folder that `negexp train` wrote"),
    "unfinished": (lambda run: RunFolder(run).result.unlink(), "has no result.json, so it is unfinished"),
    "another result": (damage_result, "cannot be exported (written by another version"),
    "damaged weights": (damage_weights, "does not match its manifest.json"),
    "linked tokenizer": (link_tokenizer, "is not a regular file"),
    "a target": (lambda run: (run / "config.yaml").write_text("model:\n  _target_: os.system\n"), "_target_"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_run_that_cannot_be_used_is_refused(
    case: str, finished: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm, message = DAMAGES[case]
    harm(shutil.copytree(finished, here / "run"))
    assert message in refusal(capsys, "run=run", "output=out")


def test_a_run_of_version_0_1_is_exported(here: Path) -> None:
    run = Path(__file__).parent / "data" / "run-0.1"
    before = sorted(path.name for path in run.rglob("*"))
    assert main(["export", f"run={run}", "output=out"]) == 0
    assert "Strategy of negatives: `" in Path("out/README.md").read_text()
    assert sorted(path.name for path in run.rglob("*")) == before


def test_the_same_run_gives_the_same_bytes(finished: Path, exported: Path, tmp_path: Path) -> None:
    export_run(finished, tmp_path / "again")
    one, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (exported, tmp_path / "again")
    )
    assert one == other


def test_code_of_a_repository_does_not_travel(finished: Path, here: Path) -> None:
    run = shutil.copytree(finished, here / "run")
    for name in ("config.json", "tokenizer_config.json"):
        path = run / "encoder" / name
        code = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config", "AutoTokenizer": ["evil.Tokenizer", None]}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": code}))
    assert main(["export", "run=run", "output=out"]) == 0
    assert not [path for path in Path("out").rglob("*.json") if "evil" in path.read_text()]


@pytest.mark.parametrize("name", ["counters", "a/b/c", "../x", "a/b--c", "a/.b", "a b/c", "a/b.git", "a/" + "b" * 96])
def test_a_wrong_name_on_the_hub_is_refused(
    name: str, finished: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, f"run={finished}", "output=out", f"hub='{name}'")
    assert f"hub={name}: is no ORGANISATION/NAME" in line


@given(st.text(alphabet="ab-_./ ~A9", max_size=12))
def test_a_name_that_is_accepted_is_one_for_the_hubs_own_client(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import _validators

    try:
        _validators.validate_repo_id(name)
        valid = name.count("/") == 1
    except HFValidationError:
        valid = False
    assert valid or not is_hub_name(name)


# --- the hub -------------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """A stand-in of the hub's HTTP interface: repositories, small files in commits, large files by Git LFS."""

    log: list[tuple[str, str | None]]  # path and token of every request
    created: list[dict[str, Any]]
    large: dict[str, bytes]  # SHA-256 -> content
    files: dict[str, bytes]
    refuse: str | None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.log.append((path, self.headers.get("Authorization")))
        if self.refuse is not None and path.startswith(self.refuse):
            return self.answer(403, {"error": "no"})
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return self.answer(200, {"url": f"{self.address}/lab/counters", "id": "lab/counters"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/models/lab/counters/preupload/main":
            return self.answer(200, {"files": [self.mode(one["path"]) for one in json.loads(body)["files"]]})
        if path == "/lab/counters.git/info/lfs/objects/batch":
            return self.answer(
                200, {"transfer": "basic", "objects": [self.place(o) for o in json.loads(body)["objects"]]}
            )
        if path == "/api/models/lab/counters/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    self.files[line["value"]["path"]] = self.large[line["value"]["oid"]]
            commit = f"{self.address}/lab/counters/commit/{'0' * 40}"
            return self.answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": commit})
        return self.answer(404, {"error": "not found"})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.large[self.path.rpartition("/")[2]] = content
        self.answer(200, {})

    def do_GET(self) -> None:
        self.answer(404, {"error": "not found"})

    @property
    def address(self) -> str:
        return constants.ENDPOINT

    def mode(self, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def place(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self.address}/large/{one['oid']}"}}}

    def answer(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """Serve a stand-in of the hub, and point the client there, with a token in the environment."""
    served = type("Served", (Hub,), {"log": [], "created": [], "large": {}, "files": {}, "refuse": None})
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield served
        server.shutdown()


def test_the_folder_is_uploaded_with_the_token_of_the_environment(
    hub: type[Hub], finished: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", f"run={finished}", "output=out", "hub=lab/counters"]) == 0
    written = {
        path.relative_to("out").as_posix(): path.read_bytes() for path in Path("out").rglob("*") if path.is_file()
    }
    assert hub.files == written
    assert "model.safetensors" in written
    assert hub.created[0]["name"] == "counters"
    assert hub.created[0]["organization"] == "lab"
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
    assert {token for path, token in hub.log} == {"Bearer hf_secret"}
    assert f"uploaded to {constants.ENDPOINT}/lab/counters" in capsys.readouterr().out
    assert not [path for path in Path("out").rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()]


@pytest.mark.parametrize("step", ["/api/repos/create", "/api/models/lab/counters/commit"])
def test_a_refused_upload_leaves_a_complete_folder(
    step: str, hub: type[Hub], finished: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuse = step
    assert main(["export", f"run={finished}", "output=out", "hub=lab/counters"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(r"hub=lab/counters: cannot be uploaded \(.*403.*\); out is complete", err)
    assert "hf_secret" not in err
    assert hub.files == {}
    assert Path("out/modules.json").exists()


def test_a_hub_that_does_not_answer_leaves_a_complete_folder(
    hub: type[Hub], finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert main(["export", f"run={finished}", "output=out", "hub=lab/counters"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(r"hub=lab/counters: cannot be uploaded \(.*refused\); out is complete", err)
    assert Path("out/modules.json").exists()


def test_no_token_is_refused_before_anything_is_written(
    hub: type[Hub], finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(here / "no-token"))
    assert huggingface_hub.get_token() is None
    message = "hub=lab/counters: this machine has no token of the hub; run `hf auth login`, or set HF_TOKEN"
    assert message in refusal(capsys, f"run={finished}", "output=out", "hub=lab/counters")
    assert hub.log == []
