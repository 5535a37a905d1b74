"""Compare finished runs: tables with intervals, figures, one HTML page, with watch=true while runs train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from negexp.command import Command
from negexp.components import Options, option
from negexp.errors import InputError


@dataclass
class ReportConfig(Options):
    """Everything `negexp report` reads."""

    runs: str = option(
        "run folders, folders that hold some, or globs; several with commas between them", form="DIR[,DIR...]"
    )
    output: str | None = option("where the report is written; null: report/ beside the runs, with watch=true watch/")
    texts: bool = option("show texts of queries that the best arm gains and loses against the others")
    examples: int = option("so many of each", low=0)
    watch: bool = option(
        "true: write the report again whenever a run commits, with the learning curves of unfinished runs, and serve "
        "it on 127.0.0.1 until Ctrl-C"
    )
    port: int = option("of watch; 0: any free one", low=0, high=65535)
    every: float = option("watch: seconds between two looks at the runs", low=0.1)

    def check(self) -> None:
        """Raise `InputError` for a port of a report that is not served."""
        if self.port and not self.watch:
            raise InputError(f"port={self.port}: a report is served with watch=true only; add it, or leave out port")


def run(config: ReportConfig, folder: Path, overrides: list[str]) -> None:
    """Write the report and print its headline, and which runs were left out; or watch."""
    if config.watch:
        from negexp.report.watch import Watch, watch_report

        watch = Watch(config.runs, config.output, config.texts, config.examples)
        return watch_report(watch, config.port, config.every)
    from negexp.report import write_report

    written = write_report(config.runs, config.output, config.texts, config.examples)
    left_out = [f"left out {one.folder}: {one.reason}" for one in written.skipped]
    lines = [*left_out, *written.remarks, *written.headlines]
    print("\n".join([*lines, f"report of {written.runs} runs in {written.folder}/report.html"]))


COMMAND = Command(
    schema=ReportConfig,
    run=run,
    usage=(
        "negexp report runs=DIR[,DIR...] [output=DIR] [texts=false]",
        "negexp report runs=DIR[,DIR...] watch=true [port=N]",
    ),
    paths=("runs", "output"),
    sweeps=False,
)
