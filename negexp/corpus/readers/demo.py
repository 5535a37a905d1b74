"""The demo: debates that are shipped with the package."""

from __future__ import annotations

from pathlib import Path

from negexp.corpus.limits import Limits
from negexp.corpus.reader import CorpusReader, Reading
from negexp.corpus.tables import read_pairs
from negexp.errors import InputError

DEMO = Path(__file__).parent.parent / "demo.jsonl"


class Demo(CorpusReader):
    """The shipped pairs; it takes no path."""

    @property
    def path(self) -> Path:
        """Return the shipped file."""
        return DEMO

    def check(self) -> None:
        """Raise `InputError` when a path is given."""
        if self.options.path is not None:
            raise InputError(
                f"data.path={self.options.path}: data=demo ships its texts; a path needs data=arguana or data=pairs"
            )

    def read(self, limits: Limits) -> Reading:
        """Read the shipped file."""
        return Reading(read_pairs(DEMO, limits))
