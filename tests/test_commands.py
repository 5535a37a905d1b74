"""Commands and what documents them: a command is one module and one YAML file; help and reference name every key."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from negexp.application.names import job_name
from negexp.application.reference import reference
from negexp.cli import main
from negexp.command import find, names, purpose
from negexp.components import KINDS
from negexp.components.declared import Declared, component_options, options_of
from negexp.components.options import Options, is_section, rules
from negexp.config import CONF_DIR, decides_result, flatten

pytestmark = pytest.mark.runs

# what a package brings that adds a command: one module, one YAML file, and the entry point in its pyproject.toml
MODULE = '''\
"""Repeat a word."""

from dataclasses import dataclass
from pathlib import Path

from negexp.command import Command
from negexp.components import Options, option
from negexp.errors import InputError


@dataclass
class RepeatConfig(Options):
    """The keys of the command."""

    word: str = option("the word to repeat")
    times: int = option("how often", low=1, high=9)
    where: str | None = option("a folder; null: nowhere")


def check(config: RepeatConfig, overrides: list[str]) -> None:
    """Refuse an empty word."""
    if not config.word:
        raise InputError("word=: is empty; give a word")


def run(config: RepeatConfig, folder: Path, overrides: list[str]) -> None:
    """Print the word."""
    print(" ".join([config.word] * config.times), config.where, folder.parent)


COMMAND = Command(schema=RepeatConfig, run=run, check=check, usage=("negexp repeat word=WORD",), paths=("where",))
'''
YAML = """\
defaults:
  - command
  - _self_

word: echo
times: 2
where: null
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a package with a command of its own, and work in an empty folder."""
    installed = tmp_path / "installed"
    for file, content in {
        "throw_away/__init__.py": "",
        "throw_away/repeat.py": MODULE,
        "throw_away/conf/repeat.yaml": YAML,
        "throw_away-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: throw-away\nVersion: 1.0\n",
        "throw_away-1.0.dist-info/entry_points.txt": "[negexp.commands]\nrepeat = throw_away.repeat:COMMAND\n",
    }.items():
        (installed / file).parent.mkdir(parents=True, exist_ok=True)
        (installed / file).write_text(content, encoding="utf-8")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", ["negexp"])
    monkeypatch.syspath_prepend(installed)
    yield installed
    for module in [module for module in sys.modules if module.partition(".")[0] == "throw_away"]:
        del sys.modules[module]
    GlobalHydra.instance().clear()


def test_a_command_of_another_package_is_listed_without_importing_it(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help"]) == 0
    assert "  repeat     Repeat a word\n" in capsys.readouterr().out
    assert names() == ["bench", "evaluate", "export", "mine", "report", "runs", "search", "train", "repeat"]
    assert "throw_away" not in sys.modules


def test_a_command_of_another_package_runs_and_sweeps(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repeat", "word=hey", "times=3", "where=a,b"]) == 0
    assert capsys.readouterr().out == f"hey hey hey a,b {Path('outputs/repeat').resolve()}\n"
    assert main(["repeat", "-m", "word=a,b", "times=1"]) == 0
    out = capsys.readouterr().out
    assert out.index("\na None ") < out.index("\nb None ") < out.index(": 2 done")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["times=10"], "times=10: must be between 1 and 9"),
        (["word="], "word=: is empty; give a word"),
        (["wrd=x"], "Could not override 'wrd'"),
        (["-m", "times=1,10"], "times=10: must be between 1 and 9"),
    ],
)
def test_a_command_of_another_package_refuses_wrong_input_in_one_line(
    package: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["repeat", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"negexp: {message}")
    assert list(Path().iterdir()) == []


def test_help_of_another_packages_command_has_its_keys(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repeat", "--help", "times=5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("negexp repeat - repeat a word\n\nusage: negexp repeat word=WORD\n")
    assert [line.split() for line in out.splitlines() if "times" in line] == [["times:", "5", "#", "how", "often"]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("throw_away.repeat:run", "is no negexp.command.Command"),
        ("throw_away.missing:COMMAND", "cannot be imported"),
    ],
)
def test_an_entry_point_that_is_no_command_is_refused_in_one_line(
    package: Path, entry: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = package / "throw_away-1.0.dist-info" / "entry_points.txt"
    path.write_text(f"[negexp.commands]\nrepeat = {entry}\ntrain = {entry}\n")
    assert main(["repeat"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"negexp: repeat: {entry} ")
    assert message in err
    assert err.count("\n") == 1
    assert find("train").schema.__name__ == "TrainConfig"  # a built-in command cannot be replaced


# --- options read from their sources ------------------------------------------------------------------------------


def as_declared(schema: type[Options]) -> dict[str, Any]:
    """Return what the imported class says: rules, and those inside sections and inside the base of components."""
    return {
        key: (rule, as_declared(annotation) if is_section(annotation) else {})
        for key, (annotation, rule) in rules(schema).items()
    }


def as_read(options: Mapping[str, Declared]) -> dict[str, Any]:
    return {key: (option.rule, as_read(option.inside)) for key, option in options.items()}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in KINDS[kind].built_in()])
def test_options_read_from_a_source_are_those_of_the_imported_component(kind: str, name: str) -> None:
    found = component_options(kind, name)
    assert as_read(found) == as_declared(KINDS[kind].find(name, "name").Options)


@pytest.mark.parametrize("name", names())
def test_options_read_from_a_source_are_those_of_the_imported_command(name: str) -> None:
    schema = find(name).schema
    assert as_read(options_of(schema)) == as_declared(schema)
    assert list(options_of(schema)) == list(rules(schema))


# --- help and reference -------------------------------------------------------------------------------------------


def composed(name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        values = OmegaConf.to_container(compose(name, list(overrides)), resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@pytest.mark.parametrize("name", names())
def test_help_names_every_key_and_its_line_of_help_within_120_columns(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    words = " ".join(out.replace("#", " ").split())
    assert purpose(name)[1:] in words

    def check(options: Mapping[str, Declared], values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            option = options[key]
            assert f" {key}:" in words
            assert " ".join(option.rule.help.split()) in words
            if option.rule.kind is not None and "name" in value:
                check(component_options(option.rule.kind, value["name"]), value)
            elif option.inside:
                check(option.inside, value)

    check(options_of(find(name).schema), composed(name))


def test_help_lists_the_components_of_other_packages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {"negexp.losses": [EntryPoint("mine", "mine:Mine", "negexp.losses")]}
    monkeypatch.setattr("negexp.components.registry.entry_points", lambda group: entries.get(group, []))
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    for kind in KINDS:
        for name in KINDS[kind].built_in():
            assert any(line.startswith(f"  {kind}: ") and name in line for line in out.splitlines())
    assert "weighted_sum; without a YAML file, by name=...: mine" in " ".join(out.split())


def test_help_of_a_command_imports_neither_torch_nor_transformers() -> None:
    script = (
        "import sys; from negexp.cli import main; from negexp.command import find, names\n"
        "commands = [find(name) for name in names()]\n"
        "print(main(['train', '--help', 'loss=weighted_sum', 'index=exact']))\n"
        "print({'torch', 'transformers'} & set(sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-2:] == ["0", "set()"]
    assert component_options("loss", "triplet")["margin"].rule.help in " ".join(result.stdout.replace("#", " ").split())


def test_the_reference_in_conf_is_up_to_date() -> None:
    found = (CONF_DIR / "README.md").read_text(encoding="utf-8")
    assert found == reference(), "run: python -m negexp.application.reference > conf/README.md"


def test_the_reference_has_every_key_of_every_command() -> None:
    text = reference()
    for name in names():
        for key in rules(find(name).schema):
            assert f"`{key}`" in text
    for key in flatten(composed("train", "sampler=hard", "loss=triplet")):
        assert f"| `{key}` |" in text or f"| `{key.partition('.')[2]}` |" in text or key == "sampler.mining.name"


# --- keys that do not decide the result ---------------------------------------------------------------------------

BESIDE_THE_RESULT = {
    *("name", "resume", "checkpoint.keep", "tracker.ledger", "tracker.progress", "tracker.listeners"),
    *("data.max_bytes", "data.max_files", "trainer.profile", "trainer.processes"),
    *("cache.keep", "cache.folder", "cache.max_bytes"),
}


def test_keys_that_do_not_decide_the_result() -> None:
    assert {key for key in flatten(composed("train")) if not decides_result(key)} == BESIDE_THE_RESULT
    assert not decides_result("tracker.listeners.mine.file")


def folder(*overrides: str) -> str:
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        config = compose("train", list(overrides), return_hydra_config=True)
    assert isinstance(config, DictConfig)
    return job_name(_root_=config)


def test_the_folder_of_a_job_is_named_by_the_keys_that_decide_the_result() -> None:
    values = composed("train")
    beside = [f"{key}={values[key.partition('.')[0]] if '.' not in key else 'null'}" for key in BESIDE_THE_RESULT]
    plain = folder("seed=1", "trainer.lr=1e-3")
    assert plain.startswith("seed=1,trainer.lr=1e-3-")
    assert folder("trainer.lr=1e-3", *beside, "tracker=default", "seed=1") == plain
