"""From folders of runs to the files of a report."""

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

from negexp import __version__
from negexp.errors import InputError
from negexp.report.arms import Comparison, compare_what_can_be
from negexp.report.compare import MANY_ARMS, Numbers, best_first, compute
from negexp.report.examples import Exchange, exchanges
from negexp.report.figures import FIGURES, draw_figures, render
from negexp.report.runs import Skipped, find_runs, read_runs
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

OWN_FILES = re.compile(rf"(\d+-)?((arms|pairs|epochs)\.csv|({'|'.join(FIGURES)})\.(svg|png))")


@dataclass(frozen=True)
class Picture:
    """A figure as it is shown: its files, and the SVG itself for the page."""

    name: str
    caption: str
    data_uri: str


@dataclass
class Section:
    """All that the report says of one comparison."""

    comparison: Comparison
    numbers: Numbers
    prefix: str
    pictures: list[Picture] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    no_examples: str | None = None

    @cached_property
    def main(self) -> list[Table]:
        """Return the tables that stand at the top, of the queries that the headline is about."""
        about = self.numbers.queries
        tables = [
            main_table(self.comparison, self.numbers, about),
            seen_table(self.comparison, self.numbers),
            pair_table(self.comparison, self.numbers, about),
        ]
        return [table for table in tables if table is not None]

    @cached_property
    def more(self) -> list[Table]:
        """Return the top tables of the other queries, where training saw some, and the tables by task."""
        others = [subset for subset in self.numbers.arms["queries"].unique() if subset != self.numbers.queries]
        tables = [make(self.comparison, self.numbers, one) for one in others for make in (main_table, pair_table)]
        return [table for table in tables if table is not None] + task_tables(self.comparison, self.numbers)

    @cached_property
    def settings(self) -> list[Table]:
        """Return what differs between arms, and the versions."""
        tables = [settings_table(self.comparison), versions_table(self.comparison)]
        return [table for table in tables if table is not None]


@dataclass(frozen=True)
class Written:
    """What a report came to: its folder, one headline a comparison, and what it left out."""

    folder: Path
    headlines: list[str]
    remarks: list[str]
    runs: int
    skipped: list[Skipped]


def write_report(runs: str, output: str | None, texts: bool, examples: int) -> Written:
    """Read runs and write `report.html`, `report.md`, `tables/`, `figures/` and, with `texts`, `examples.jsonl`.

    Raises
    ------
    InputError
        When no run is found, none is left that can be reported, or `output` cannot be written.
    """
    folders = find_runs(runs)
    usable, skipped = read_runs(folders)
    if not usable:
        reasons = "; ".join(f"{one.folder}: {one.reason}" for one in skipped[:3])
        more = "" if len(skipped) <= 3 else f"; and {len(skipped) - 3} more"
        raise InputError(f"runs={runs}: no finished run is left to report ({reasons}{more})")
    comparisons, remarks = compare_what_can_be(usable)
    folder = Path(output).expanduser() if output is not None else _beside(runs, folders)
    try:
        _clear(folder, chosen=output is not None)
    except OSError as error:
        raise InputError(f"output={folder}: cannot be written ({error.strerror}); give another folder") from None
    sections = []
    for number, comparison in enumerate(comparisons, 1):
        section = Section(comparison, compute(comparison), f"{number}-" if len(comparisons) > 1 else "")
        _write_tables(section, folder / "tables")
        _draw(section, folder / "figures")
        if texts:
            _find_examples(section, examples)
        sections.append(section)
    if texts:
        found = [
            one for section in sections for exchange in section.exchanges for one in exchange.gained + exchange.lost
        ]
        lines = [json.dumps(example.row(), ensure_ascii=False) for example in found]
        write_bytes(folder / "examples.jsonl", "".join(f"{line}\n" for line in lines).encode())
    _write_pages(folder, sections, remarks, skipped)
    headlines = [" ".join(section.numbers.headline) for section in sections]
    return Written(folder, headlines, remarks, len(usable), skipped)


def _beside(runs: str, folders: Sequence[Path]) -> Path:
    """Return `report/` in the one folder that was given, else in the closest folder that holds all runs."""
    given = Path(runs).expanduser()
    return (given if given.is_dir() else Path(os.path.commonpath(folders))) / "report"


def _clear(folder: Path, chosen: bool) -> None:
    """Make the report's folders, and remove what an earlier one left there: it may have shown other runs, or texts.

    A run's folder may come from a stranger, so links in it are not followed; a folder that the user chose may be one.
    """
    for part in (folder, folder / "tables", folder / "figures"):
        if part.is_symlink() and (part != folder or not chosen):
            raise InputError(f"{part}: is a link, which a report does not follow; remove it, or give output=FOLDER")
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
        svg = render(figure, "svg")
        write_bytes(folder / f"{section.prefix}{name}.svg", svg)
        write_bytes(folder / f"{section.prefix}{name}.png", render(figure, "png"))
        uri = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
        section.pictures.append(Picture(f"{section.prefix}{name}", caption, uri))


def _find_examples(section: Section, number: int) -> None:
    """Compare the best arm with the next ones."""
    order = best_first(section.numbers.arms, section.comparison, section.numbers.queries)
    names = order["arm"].tolist()[: 1 + MANY_ARMS]
    try:
        section.exchanges = exchanges(section.comparison, names, section.numbers.queries, number)
    except InputError as error:
        section.no_examples = f"no texts: {error}"


def _write_pages(folder: Path, sections: list[Section], remarks: list[str], skipped: list[Skipped]) -> None:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("negexp.report", "templates"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    context: dict[str, Any] = {
        "sections": sections,
        "remarks": remarks,
        "skipped": skipped,
        "runs": sum(len(section.comparison.runs) for section in sections),
        "version": __version__,
    }
    for name in ("report.html", "report.md"):
        write_bytes(folder / name, environment.get_template(f"{name}.j2").render(context).encode())
