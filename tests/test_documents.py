"""The documents: links, anchors and command lines are right, README.md is short, the table of rooms is the code's."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from test_structure import LEVELS

from negexp.config import CONF_DIR

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".docs", ".github", "conf", "negexp", "outputs", "tests")  # outputs/: its README only
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(
        path for folder in FOLDERS for path in (ROOT / folder).glob("README.md" if folder == "outputs" else "**/*.md")
    ),
]
EXPECTED = ("README.md", "conf/README.md", "negexp/README.md", "outputs/README.md", "tests/README.md")


def prose(path: Path) -> str:
    """Return a document without its code blocks and code spans."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: code[0].strip("`").replace("[", "").replace("]", ""), text)


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def links(path: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))


def broken(path: Path) -> list[str]:
    """Return the relative links of a document that lead nowhere."""
    wrong = []
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = unquote(link).partition("#")
        target = (path.parent / file).resolve() if file else path
        there = target.exists() and target.is_relative_to(ROOT)
        if not there or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("name", EXPECTED)
def test_the_documents_are_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_and_anchors_exist(path: Path) -> None:
    assert broken(path) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_document_can_be_reached_from_the_readme(path: Path) -> None:
    reached, todo = {ROOT / "README.md"}, [ROOT / "README.md"]
    while todo:
        document = todo.pop()
        for link in links(document):
            target = (document.parent / unquote(link).partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file() and target not in reached:
                reached.add(target)
                todo.append(target)
    forms = ROOT / ".github" / "pull_request_template.md"
    assert path in reached | {forms}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("name", ["main line", "test line"])
def test_the_readmes_two_lines_are_where_ci_reads_them(name: str) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    place = lines.index(f"<!-- {name} -->")
    assert lines[place + 1] == lines[place + 3] == "```"
    assert lines[place + 2].startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_broken_links_and_anchors_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# One & two\n\n## `code`: x\n## `code`: x\n")
    good = "[a](other.md) [b](other.md#one--two) [c](other.md#code-x-1) [d](https://x.example/#y) `[e](f.md)`"
    (tmp_path / "a.md").write_text(f"{good}\n```\n[g](h.md)\n```\n")
    assert broken(tmp_path / "a.md") == []
    (tmp_path / "a.md").write_text("[a](others.md) [b](other.md#two) [c](#here) [d](../x.md)")
    assert broken(tmp_path / "a.md") == ["others.md", "other.md#two", "#here", "../x.md"]


def command_lines() -> list[str]:
    """Return the distinct command lines of all documents; variables that their block assigns are written out."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            lines = [line for line in block.splitlines() if line.startswith("negexp ") and not language]
            for name, value in re.findall(r'^(\w+)="(.*)"$', block, re.MULTILINE):
                lines = [line.replace(f"${name}", value) for line in lines]
            found += lines
    return list(dict.fromkeys(found))


def composed(command: str, arguments: list[str]) -> None:
    """Compose a command's configuration; of a sweep, its first job."""
    quoted = [re.sub(r"=(.*(?:[<>*]|\.\.\.).*)$", r"='\1'", argument) for argument in arguments if argument != "-m"]
    overrides = OverridesParser.create().parse_overrides(quoted)
    first = [
        f"{override.key_or_group}={next(override.sweep_string_iterator())}"
        if override.is_sweep_override()
        else str(override.input_line)
        for override in overrides
    ]
    compose(command, first)


def names_missing_launcher(line: str) -> bool:
    """Return whether a line needs a launcher of an extra that is not installed; tests/test_launchers.py runs them."""
    named = re.search(r"hydra/launcher=(submitit|ray)", line)
    return named is not None and importlib.util.find_spec(f"hydra_plugins.hydra_{named[1]}_launcher") is None


@pytest.mark.runs
def test_the_command_lines_of_all_documents_are_accepted() -> None:
    # the guide's own parts are not installed here: tests/test_guide.py checks its lines
    guide = (ROOT / "negexp" / "README.md").read_text(encoding="utf-8")
    wrong = []
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        for line in command_lines():
            _, command, *arguments = shlex.split(line, comments=True)
            try:
                composed(command, [argument for argument in arguments if argument not in ("--cfg", "job")])
            except HydraException as error:
                if line not in guide and not names_missing_launcher(line):
                    wrong.append(f"{line}: {error}")
    assert len(command_lines()) > 20
    assert wrong == []


def test_the_table_of_rooms_is_that_of_the_layers() -> None:
    text = (ROOT / "negexp" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, flags=re.MULTILINE)
    rooms = [tuple(sorted(name.strip("/") for name in re.findall(r"`([^`]+)`", cell))) for _, cell in rows]
    assert [int(level) for level, _ in rows] == list(range(len(LEVELS)))
    assert rooms == [tuple(sorted(level)) for level in LEVELS]
