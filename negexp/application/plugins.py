"""YAML files of other packages: the `conf/` folder of each package that registers a component or a command."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from negexp import command
from negexp.components import KINDS


class OtherPackages(SearchPathPlugin):
    """Adds these folders behind negexp's own, so that no package can replace one of negexp's files."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders."""
        for folder in conf_folders():
            search_path.append("negexp", f"file://{folder}")


def conf_folders() -> list[Path]:
    """Return `conf/` of every package that registers a component or a command; no package is imported."""
    groups = [*(kind.group for kind in KINDS.values()), command.GROUP]
    entries = [entry for group in groups for entry in entry_points(group=group)]
    packages = dict.fromkeys(entry.module.partition(".")[0] for entry in entries)
    folders = []
    for package in packages:
        spec = find_spec(package)
        places = (spec.submodule_search_locations or []) if spec is not None else []
        folders += [Path(place) / "conf" for place in places if (Path(place) / "conf").is_dir()]
    return folders


def register_search_path() -> None:
    """Let Hydra find the folders, here and wherever it composes in this process."""
    Plugins.instance().register(OtherPackages)
