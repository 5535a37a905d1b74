"""The architecture, read from the source: imports point one way, and nothing that is loaded can run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

import negexp
from negexp.config import CONF_DIR

PACKAGE = Path(__file__).resolve().parent.parent / "negexp"

# lowest first; a module imports from its own room or from lower levels only
LEVELS = (
    (
        *("drawing", "errors", "largest", "modules", "nearest", "paired", "processor", "progress", "randomness"),
        *("scratch", "shared", "signals", "streams"),
    ),
    ("components", "world"),
    ("command",),
    ("config",),
    ("corpus",),
    ("index", "lexical"),
    ("sampling",),
    ("tokens",),
    ("model", "runtime"),
    ("embedding", "losses", "pair_tokens"),
    ("evaluation",),
    ("tracking",),
    ("kept",),
    ("training", "report"),
    ("actions", "bench", "export", "mine", "notebook", "search"),
    ("commands",),
    ("application",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
READS_CONFIGURATION = {"components", "config", "application", "cli"}
ALTERNATIVES = {
    "accelerate",
    "faiss",
    "sentence_transformers",
    "datasets",
}  # they come with the extras `bench` and `trainer`
MOST_PARAMETERS, MOST_FUNCTION_LINES, MOST_FILE_LINES = 6, 50, 300
RECEIVERS = {"self", "cls", "ctx"}  # `ctx`: of a static method of torch.autograd.Function
# what is larger than these limits, and the reason; an entry that is no longer needed fails the test as well
LARGER: dict[str, str] = {}
ALLOWED_IN_CPU = {"negexp.scratch.scratch", "negexp.processor.has_instructions"}
TABLES = {"pandas", "pyarrow"}
RUNS_WHAT_IT_LOADS = {"pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in SOURCES}


def imports(name: str) -> set[str]:
    """Return the dotted names that a module imports anywhere in it, `from a import b` as `a.b`."""
    found: set[str] = set()
    for node in ast.walk(tree(MODULES[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = name.split(".")[: -node.level] if node.level else []
            found |= {".".join([*here, *filter(None, [node.module]), alias.name]) for alias in node.names}
    return found


def room(dotted: str) -> str:
    """Return the file or folder right below negexp/ that a dotted name stands in; of `__init__.py` only, ''."""
    parts = dotted.split(".")
    return (
        parts[1] if len(parts) > 1 and ((PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()) else ""
    )


def rooms_imported(name: str) -> set[str]:
    return {room(found) for found in imports(name) if found.split(".")[0] == "negexp"} - {""}


def third_party(name: str) -> set[str]:
    return {found.split(".")[0] for found in imports(name)} - {"negexp"}


def reached(start: str) -> set[str]:
    """Return the third-party packages that a room reaches through its own imports and those of what it imports."""
    rooms, todo = {start}, [start]
    packages: set[str] = set()
    while todo:
        current = todo.pop()
        for name in MODULES:
            if room(name) == current:
                packages |= third_party(name)
                todo += sorted(rooms_imported(name) - rooms)
                rooms |= rooms_imported(name)
    return packages


def oversized(path: Path) -> Iterator[str]:
    """Yield a line for the file, and for each function in it, that is larger than the limits."""
    name = path.relative_to(PACKAGE).as_posix()
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > MOST_FILE_LINES:
        yield f"{name}: {lines} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                yield f"{name}: {node.name} has {length} lines"
            count = len({argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)} - RECEIVERS)
            if count > MOST_PARAMETERS:
                yield f"{name}: {node.name} has {count} parameters"


def test_files_and_functions_are_small() -> None:
    assert {line for path in SOURCES for line in oversized(path)} == set(LARGER)


def test_the_size_test_finds_what_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    limits = {
        "six.py": "class A:\n    def f(self, a, b, /, c, *rest, d, **others): ...\n",
        "seven.py": "class A:\n    def f(self, a, b, /, c, d=1, *rest, e, **others): ...\n",
        "fifty.py": "def f():\n" + 49 * "    1\n",
        "fifty_one.py": "async def f():\n" + 50 * "    1\n",
        "lines.py": 300 * "1\n",
        "more_lines.py": 301 * "1\n",
    }
    found: list[str] = []
    for name, source in limits.items():
        (tmp_path / name).write_text(source)
        found += oversized(tmp_path / name)
    assert found == ["seven.py: f has 7 parameters", "fifty_one.py: f has 51 lines", "more_lines.py: 301 lines"]


def test_every_room_has_a_level() -> None:
    assert {room(name) for name in MODULES if room(name) != "__init__"} == set(LEVEL)


@pytest.mark.parametrize("name", MODULES)
def test_no_import_runs_back_up(name: str) -> None:
    own = room(name)
    if own == "__init__":  # what it imports when asked for: a notebook's functions
        assert rooms_imported(name) == {"notebook"}
        return
    up = {other for other in rooms_imported(name) if other != own and LEVEL[other] >= LEVEL[own]}
    assert not up, f"{name} (level {LEVEL[own]}) imports {sorted(up)}, which stand beside or above it"


def test_the_package_imports_nothing_until_asked_and_no_module_asks() -> None:
    at_once = [node for node in tree(MODULES["negexp.__init__"]).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in at_once if isinstance(node, ast.ImportFrom)} == {"__future__", "typing"}
    assert len(at_once) == 2, "every module of negexp imports negexp/__init__.py"
    offered = {f"negexp.{name}" for name in negexp.__all__}
    assert not [name for name in MODULES if imports(name) & offered]


def test_the_cpus_fast_paths_are_independent_and_used_in_one_place() -> None:
    inside = {name for name in MODULES if name.startswith("negexp.model.fused.")}
    for name in inside:
        own = {found for found in imports(name) if found.startswith("negexp.")}
        assert {found for found in own if not found.startswith("negexp.model.fused.")} <= ALLOWED_IN_CPU
    users = {name for name in MODULES if any(found.startswith("negexp.model.fused") for found in imports(name))}
    assert users - inside == {"negexp.model.build"}


def test_runtime_imports_no_more_than_errors_processor_and_world() -> None:
    assert rooms_imported("negexp.runtime") <= {"errors", "processor", "world"}


@pytest.mark.parametrize("name", MODULES)
def test_only_some_rooms_import_hydra(name: str) -> None:
    assert room(name) in READS_CONFIGURATION or not third_party(name) & {"hydra", "omegaconf"}


def test_only_the_benchmark_imports_alternatives() -> None:
    parts = {"negexp.corpus.readers.datasets", "negexp.index.backends.faiss"}  # parts of a library, each an extra
    assert {name for name in MODULES if third_party(name) & ALTERNATIVES} == {
        *("negexp.bench.peers", "negexp.bench.peer_trainer"),
        *parts,
    }
    assert {name for name in MODULES if "bench" in rooms_imported(name) and room(name) != "bench"} == {
        "negexp.commands.bench"
    }


def test_a_run_imports_matplotlib_for_the_figures_of_its_trackers_only() -> None:
    draws = {name for name in MODULES if "matplotlib" in third_party(name)}
    users = {name for name in MODULES if any(found.rpartition(".")[0] in draws for found in imports(name))} - draws
    tracker = "negexp.tracking.tracker"
    assert {name for name in users if room(name) not in ("bench", "mine", "report")} == {tracker}
    at_once = [node.module or "" for node in tree(MODULES[tracker]).body if isinstance(node, ast.ImportFrom)]
    assert at_once
    assert not draws & set(at_once)


def test_pandas_is_imported_at_once_only_where_tables_are_the_matter() -> None:
    at_once: set[str] = set()
    for name in MODULES:
        found = [
            alias.name for node in tree(MODULES[name]).body if isinstance(node, ast.Import) for alias in node.names
        ]
        at_once |= {name} if {"pandas", "pyarrow"} & set(found) else set()
    assert {room(name) for name in at_once - {"negexp.tracking.curves"}} == {"drawing", "mine", "report"}


@pytest.mark.parametrize("start", ["sampling", "corpus", "config", "components"])
def test_rooms_without_a_model_do_not_import_torch(start: str) -> None:
    assert not reached(start) & {"torch", "transformers", "tokenizers", "safetensors"}


def calls_and_names(name: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of whatever is called by a bare name, taken as an attribute, or imported."""
    for node in ast.walk(tree(MODULES[name])):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("name", MODULES)
def test_loading_a_file_cannot_run_code(name: str) -> None:
    assert not third_party(name) & RUNS_WHAT_IT_LOADS
    forbidden = {
        "eval",
        "exec",
        "compile",
        "__import__",
        "torch.load",
        "pd.read_pickle",
        "yaml.load",
        "yaml.unsafe_load",
    }
    assert not [f"{name}:{line}: {what}" for line, what in calls_and_names(name) if what in forbidden]
    assert "torch.load" not in imports(name)
    for node in ast.walk(tree(MODULES[name])):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code", "shell"):
            assert ast.unparse(node.value) == "False", f"{name}:{node.value.lineno}: {node.arg}"


def test_modules_are_imported_by_name_in_two_places_only() -> None:
    found = {name for name in MODULES for _, what in calls_and_names(name) if what.endswith("import_module")}
    assert found <= {"negexp.command", "negexp.components.registry"}


@pytest.mark.parametrize("path", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF_DIR)))
def test_no_yaml_names_a_target(path: Path) -> None:
    assert "_target_" not in keys(yaml.safe_load(path.read_text(encoding="utf-8")))


def keys(value: object) -> set[object]:
    if isinstance(value, dict):
        return set(value).union(*(keys(child) for child in value.values()))
    if isinstance(value, list):
        return set().union(*(keys(child) for child in value))
    return set()
