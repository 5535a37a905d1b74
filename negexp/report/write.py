"""Read the folders of runs and write the files of a report."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from negexp import __version__
from negexp.drawing import render
from negexp.errors import InputError
from negexp.report.arms import Comparison, group_into_comparisons
from negexp.report.compare import MANY_ARMS, Numbers, arms_best_first, compute
from negexp.report.examples import ChangedQueries, changed_queries
from negexp.report.figures import FIGURES, draw_figures
from negexp.report.runs import Run, Skipped, find_runs, read_runs
from negexp.report.tables import (
    Table,
    curves,
    main_table,
    pair_table,
    seen_table,
    settings_table,
    task_tables,
    versions_table,
)
from negexp.tracking.files import write_bytes, write_csv

UNFINISHED = "unfinished"  # the figure of unfinished runs
OWN_FILES = re.compile(rf"(\d+-)?((arms|pairs|epochs)\.csv|({'|'.join([*FIGURES, UNFINISHED])})\.(svg|png))")


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: file name, caption, and the SVG as a data URI."""

    name: str
    caption: str
    data_uri: str


@dataclass(frozen=True)
class Unfinished:
    """The part of a watched report on unfinished runs: their figures, and a table."""

    pictures: list[Picture]
    table: Table


@dataclass
class Section:
    """Everything that the report shows for one comparison."""

    comparison: Comparison
    numbers: Numbers
    prefix: str
    pictures: list[Picture] = field(default_factory=list)
    changed_queries: list[ChangedQueries] = field(default_factory=list)
    no_examples: str | None = None

    @cached_property
    def main(self) -> list[Table]:
        """Return the top tables, for the queries of the headline."""
        queries = self.numbers.queries
        tables = [
            main_table(self.comparison, self.numbers, queries),
            seen_table(self.comparison, self.numbers),
            pair_table(self.comparison, self.numbers, queries),
        ]
        return [table for table in tables if table is not None]

    @cached_property
    def more(self) -> list[Table]:
        """Return the top tables for the other subsets of queries, if there are any, and the tables by task."""
        others = [subset for subset in self.numbers.arms["queries"].unique() if subset != self.numbers.queries]
        tables = [make(self.comparison, self.numbers, one) for one in others for make in (main_table, pair_table)]
        return [table for table in tables if table is not None] + task_tables(self.comparison, self.numbers)

    @cached_property
    def settings(self) -> list[Table]:
        """Return the table of settings that differ, and the table of versions."""
        tables = [settings_table(self.comparison), versions_table(self.comparison)]
        return [table for table in tables if table is not None]


@dataclass(frozen=True)
class Finished:
    """The part of a report on finished runs: a section for each comparison, and remarks."""

    sections: list[Section] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def headlines(self) -> list[str]:
        """Return one headline per comparison."""
        return [" ".join(section.numbers.headline) for section in self.sections]

    @property
    def runs(self) -> int:
        """Return the number of runs."""
        return sum(len(section.comparison.runs) for section in self.sections)


@dataclass(frozen=True)
class WrittenReport:
    """A written report: its folder, one headline per comparison, remarks, number of runs, and skipped runs."""

    folder: Path
    headlines: list[str]
    remarks: list[str]
    runs: int
    skipped: list[Skipped]


def write_report(runs: str, output: str | None, texts: bool, examples: int) -> WrittenReport:
    """Read runs and write `report.html`, `report.md`, `tables/`, `figures/` and, with `texts`, `examples.jsonl`.

    Raises
    ------
    InputError
        When there is no run, no run can be reported, or `output` cannot be written.
    """
    folders = find_runs(runs)
    usable, skipped = read_runs(folders)
    if not usable:
        reasons = "; ".join(f"{one.folder}: {one.reason}" for one in skipped[:3])
        more = "" if len(skipped) <= 3 else f"; and {len(skipped) - 3} more"
        raise InputError(f"runs={runs}: no run can be reported ({reasons}{more})")
    folder = prepare_folder(runs, output, folders)
    finished = write_finished(usable, folder, texts, examples)
    write_pages(folder, finished, skipped)
    return WrittenReport(folder, finished.headlines, finished.remarks, finished.runs, skipped)


def write_finished(runs: Sequence[Run], folder: Path, texts: bool, examples: int) -> Finished:
    """Compare finished runs. Write `tables/`, `figures/` and, with `texts`, `examples.jsonl` into a prepared folder."""
    comparisons, remarks = group_into_comparisons(runs)
    sections = []
    for number, comparison in enumerate(comparisons, 1):
        section = Section(comparison, compute(comparison), f"{number}-" if len(comparisons) > 1 else "")
        _write_tables(section, folder / "tables")
        _draw(section, folder / "figures")
        if texts:
            _find_examples(section, examples)
        sections.append(section)
    if texts:
        _write_examples(sections, folder / "examples.jsonl")
    return Finished(sections, remarks)


def prepare_folder(runs: str, output: str | None, folders: Sequence[Path], name: str = "report") -> Path:
    """Return the folder of the report, `output` or `name` beside the runs, without an earlier report's files.

    Raises
    ------
    InputError
        When it cannot be written, or there is neither an `output` nor a run beside which it could be.
    """
    folder = Path(output).expanduser() if output is not None else _default_folder(runs, folders) / name
    try:
        _clear_folder(folder, chosen=output is not None)
    except OSError as error:
        raise InputError(f"output={folder}: cannot be written ({error.strerror}); give another folder") from None
    return folder


def _default_folder(runs: str, folders: Sequence[Path]) -> Path:
    """Return the given folder, or for several folders the closest one that contains all runs."""
    given = Path(runs).expanduser()
    if not given.is_dir() and not folders:
        raise InputError(f"runs={runs}: contains no run yet; give output=FOLDER, where the report is written")
    return given if given.is_dir() else Path(os.path.commonpath(folders))


def _clear_folder(folder: Path, chosen: bool) -> None:
    """Make the folders of the report, and remove the files of an earlier report. It may have shown other runs or texts.

    The folder of a run may come from a stranger, so links in it are not followed. An `output` folder may be a link.
    """
    for part in (folder, folder / "tables", folder / "figures"):
        if part.is_symlink() and (part != folder or not chosen):
            raise InputError(f"{part}: is a link, and reports do not follow links; remove it, or give output=FOLDER")
        part.mkdir(parents=True, exist_ok=True)
    (folder / "examples.jsonl").unlink(missing_ok=True)
    for path in [*(folder / "tables").iterdir(), *(folder / "figures").iterdir()]:
        if OWN_FILES.fullmatch(path.name):
            path.unlink()


def _write_tables(section: Section, folder: Path) -> None:
    write_csv(folder / f"{section.prefix}arms.csv", section.numbers.arms)
    if not section.numbers.pairs.empty:
        write_csv(folder / f"{section.prefix}pairs.csv", section.numbers.pairs)
    write_csv(folder / f"{section.prefix}epochs.csv", curves(section.comparison))


def _draw(section: Section, folder: Path) -> None:
    for name, (caption, figure) in draw_figures(section.comparison, section.numbers).items():
        section.pictures.append(write_picture(folder, f"{section.prefix}{name}", caption, figure))


def write_picture(folder: Path, name: str, caption: str, figure: Figure) -> Picture:
    """Write a figure as SVG and PNG."""
    svg = render(figure, "svg")
    write_bytes(folder / f"{name}.svg", svg)
    write_bytes(folder / f"{name}.png", render(figure, "png"))
    return Picture(name, caption, "data:image/svg+xml;base64," + base64.b64encode(svg).decode())


def _find_examples(section: Section, number: int) -> None:
    """Find the queries that the best arm gains and loses against the next arms."""
    order = arms_best_first(section.numbers.arms, section.comparison, section.numbers.queries)
    names = order["arm"].tolist()[: 1 + MANY_ARMS]
    try:
        section.changed_queries = changed_queries(section.comparison, names, section.numbers.queries, number)
    except InputError as error:
        section.no_examples = f"no texts: {error}"


def _write_examples(sections: Sequence[Section], path: Path) -> None:
    changed = [one for section in sections for one in section.changed_queries]
    lines = [json.dumps(example.row(), ensure_ascii=False) for one in changed for example in one.gained + one.lost]
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def write_pages(
    folder: Path, finished: Finished, skipped: Sequence[Skipped], unfinished: Unfinished | None = None
) -> None:
    """Write `report.html` and `report.md`; with `unfinished`, a part on unfinished runs comes first."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("negexp.report", "templates"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    context: dict[str, Any] = {
        "sections": finished.sections,
        "remarks": finished.remarks,
        "skipped": skipped,
        "runs": finished.runs,
        "unfinished": unfinished,
        "version": __version__,
    }
    for name in ("report.html", "report.md"):
        write_bytes(folder / name, environment.get_template(f"{name}.j2").render(context).encode())
