"""Write a report on run folders: tables with intervals, figures and one HTML page. It needs no torch."""

from negexp.report.write import write_report

__all__ = ["write_report"]
