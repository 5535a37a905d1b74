"""The demo corpus, shipped with the package."""

from __future__ import annotations

from pathlib import Path

from negexp.corpus.limits import Limits
from negexp.corpus.reader import CorpusReader, Reading
from negexp.corpus.tables import read_pairs
from negexp.errors import InputError

DEMO = Path(__file__).parent.parent / "demo.jsonl"


class Demo(CorpusReader):
    """The shipped pairs; `data.path` must not be set."""

    reads_only_path = True

    @property
    def path(self) -> Path:
        """Return the shipped file."""
        return DEMO

    def check(self) -> None:
        """Raise `InputError` if a path is set."""
        if self.options.path is not None:
            raise InputError(
                f"data.path={self.options.path}: data=demo ships its texts; a path needs data=arguana or data=pairs"
            )

    def read(self, limits: Limits) -> Reading:
        """Read the shipped file."""
        return Reading(read_pairs(DEMO, limits))
