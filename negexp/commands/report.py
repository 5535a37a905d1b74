"""`negexp report`: finished runs to one page, tables and figures."""

from __future__ import annotations

import logging
from pathlib import Path

from negexp.config import ReportConfig
from negexp.report import write_report

log = logging.getLogger("negexp")


def run(config: ReportConfig, folder: Path, overrides: list[str]) -> None:
    """Write the report and print its headline, and what was left out."""
    written = write_report(config.runs, config.output, config.texts, config.examples)
    for one in written.skipped:
        log.warning(f"left out {one.folder}: {one.reason}")
    for remark in written.remarks:
        log.warning(remark)
    for headline in written.headlines:
        log.info(headline)
    log.info(f"{written.runs} runs, report in {written.folder}: report.html, report.md, tables/, figures/")
