"""Compare finished runs: tables with intervals, figures, one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from negexp.command import Command
from negexp.components import Options, option


@dataclass
class ReportConfig(Options):
    """Everything `negexp report` reads."""

    runs: str = option(
        "run folders, folders that hold some, or globs; several with commas between them", form="DIR[,DIR...]"
    )
    output: str | None = option("where the report is written; null: report/ beside the runs")
    texts: bool = option("show texts of queries that the best arm gains and loses against the others")
    examples: int = option("so many of each", low=0)


def run(config: ReportConfig, folder: Path, overrides: list[str]) -> None:
    """Write the report; print its headline, and which runs were left out."""
    from negexp.report import write_report

    written = write_report(config.runs, config.output, config.texts, config.examples)
    left_out = [f"left out {one.folder}: {one.reason}" for one in written.skipped]
    lines = [*left_out, *written.remarks, *written.headlines]
    print("\n".join([*lines, f"report of {written.runs} runs in {written.folder}/report.html"]))


COMMAND = Command(
    schema=ReportConfig,
    run=run,
    usage=("negexp report runs=DIR[,DIR...] [output=DIR] [texts=false]",),
    paths=("runs", "output"),
    sweeps=False,
)
