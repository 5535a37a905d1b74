"""Write a run's encoder as a folder of sentence-transformers, with a model card; upload it where asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from negexp.command import Command
from negexp.components import Options, option


@dataclass
class ExportConfig(Options):
    """Everything `negexp export` reads."""

    run: str = option("a folder that `negexp train` wrote, finished", form="DIR")
    output: str = option("where the folder of sentence-transformers is written; new or empty", form="DIR")
    hub: str | None = option("ORGANISATION/NAME: upload it there too; the token is that of `hf auth login` or HF_TOKEN")
    hub_private: bool = option("true: a new repository on the hub is private")


def check(config: ExportConfig, overrides: Sequence[str]) -> None:
    """Raise `InputError` unless the output folder is free, the hub can be asked, and the run has a configuration."""
    from negexp.export.request import check_hub, check_run
    from negexp.tracking.output import check_output_folder

    check_run(Path(config.run).expanduser())
    check_output_folder(Path(config.output).expanduser())
    if config.hub is not None:
        check_hub(config.hub)


def run(config: ExportConfig, folder: Path, overrides: list[str]) -> None:
    """Write the folder, upload it where asked, and say how to load it."""
    from negexp.export.hub import upload
    from negexp.export.run import export_run

    output = Path(config.output).expanduser()
    print(export_run(Path(config.run).expanduser(), output))
    if config.hub is not None:
        print(f"uploaded to {upload(output, config.hub, config.hub_private)}")


COMMAND = Command(
    schema=ExportConfig,
    run=run,
    check=check,
    usage=("negexp export run=DIR output=DIR [hub=ORGANISATION/NAME] [hub_private=false]",),
    paths=("run", "output"),
    sweeps=False,
)
