"""A run in a notebook: its tables as DataFrames, and its encoder. Torch is imported when an encoder is asked for."""

from negexp.notebook.run import Run, load_run

__all__ = ["Run", "load_run"]
