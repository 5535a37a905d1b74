"""Your own pairs: a table with columns point and counter; optional theme, debate, stance and split."""

from __future__ import annotations

from negexp.corpus.limits import Limits
from negexp.corpus.reader import CorpusReader, Reading
from negexp.corpus.tables import read_pairs


class Pairs(CorpusReader):
    """A CSV, JSONL or Parquet table with one pair per row."""

    wants = "a CSV, JSONL or Parquet table"
    reads_only_path = True

    def read(self, limits: Limits) -> Reading:
        """Read the table."""
        return Reading(read_pairs(self.path, limits))
