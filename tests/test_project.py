"""What stands around the code: docstring examples, version, lock file, workflow, issue forms."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import negexp

ROOT = Path(__file__).resolve().parent.parent


def with_examples() -> list[str]:
    """Return the modules whose docstrings have examples; the others are not imported."""
    paths = (path for path in (ROOT / "negexp").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)


@pytest.mark.parametrize("name", with_examples())
def test_examples_in_docstrings(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted > 0
    assert failed == 0, "doctest has printed what differs"


def test_a_wrong_example_is_found() -> None:
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda _: None) == (1, 1)


def project() -> dict[str, Any]:
    metadata: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return metadata


def locked() -> dict[str, set[str]]:
    """Return the locked versions of every package; a package can have one for each Python version."""
    versions: dict[str, set[str]] = defaultdict(set)
    for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]:
        versions[package["name"]].add(package.get("version", ""))
    return versions


def direct_dependencies() -> list[str]:
    metadata = project()["project"]
    return sorted({*metadata["dependencies"], *chain.from_iterable(metadata["optional-dependencies"].values())})


@pytest.mark.parametrize("dependency", direct_dependencies())
def test_the_lock_file_has_every_dependency_within_its_range(dependency: str) -> None:
    wanted, versions = Requirement(dependency), locked()
    found = versions.get(canonicalize_name(wanted.name), set())
    assert found, "not locked: run `uv lock`"
    assert all(wanted.specifier.contains(version) for version in found), f"{found}: run `uv lock`"


def test_the_lock_file_names_public_hosts_only() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[^/\s\"]*", text)) == {"https://pypi.org", "https://files.pythonhosted.org"}
    assert not re.search(r"\b(path|directory|virtual) = ", text)


def test_the_changelog_starts_with_this_version() -> None:
    first = re.search(r"^## .*$", (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None
    assert negexp.__version__ in first[0]


def test_types_are_shipped() -> None:
    assert (ROOT / "negexp" / "py.typed").read_bytes() == b""


def test_the_workflow_runs_every_python_that_is_declared() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["everything"]
    declared = {line.split(" :: ")[-1] for line in project()["project"]["classifiers"] if "Python :: 3." in line}
    assert set(job["strategy"]["matrix"]["python"]) == declared
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_can_be_filled_in(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in form["body"])


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("there", [True, False])
def test_ci_skips_what_needs_the_shared_folder(there: bool, tmp_path: Path) -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    functions = re.findall(r"^(?:step|shared_step)\(\) \{.*?\}$", script, re.MULTILINE | re.DOTALL)
    assert len(functions) == 2
    if there:
        (tmp_path / "shared").mkdir()
    lines = ["set -euo pipefail", f"shared={tmp_path}/shared", *functions, "shared_step title echo done", "echo next"]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    printed = [line for line in done.stdout.splitlines() if line]
    if there:
        assert printed[0].startswith("== title (")
        assert printed[1:] == ["done", "next"]
    else:
        assert printed == [f"== title: skipped, there is no folder {tmp_path}/shared", "next"]
