"""Run folders to a report that can be believed: tables with intervals, figures, one HTML page. Starts without torch."""

from negexp.report.write import write_report

__all__ = ["write_report"]
