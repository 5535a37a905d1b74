"""List runs, finished or not: name, arm, epochs, best value and state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from negexp.command import Command
from negexp.components import Options, option


@dataclass
class RunsConfig(Options):
    """Everything `negexp runs` reads."""

    runs: str = option(
        "run folders, folders that hold some, or globs; several with commas between them", form="DIR[,DIR...]"
    )


def run(config: RunsConfig, folder: Path, overrides: list[str]) -> None:
    """Print the table."""
    from negexp.report.listing import listing_text

    print(listing_text(config.runs))


COMMAND = Command(
    schema=RunsConfig,
    run=run,
    usage=("negexp runs [runs=DIR[,DIR...]]",),
    paths=("runs",),
    sweeps=False,
)
