"""The base class of corpus readers, which turn files into pairs of texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from negexp.config import DataConfig
from negexp.corpus.arguments import Record
from negexp.corpus.collection import Document
from negexp.corpus.limits import Limits
from negexp.corpus.stamp import file_stamp
from negexp.errors import InputError


@dataclass(frozen=True)
class Reading:
    """The pairs from a reader, in order. If they have no split, splits are drawn.

    counts: split -> points and counters in the files, with those that have no partner; empty if all are in pairs, or if
    there are documents.
    note: a sentence for the summary of the corpus, on what the reader changed in the texts.
    documents: all documents that are candidates, with the pairs' counters; empty if the candidates are those of the
    pairs, and each query has one gold.
    """

    records: list[Record]
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    note: str = ""
    documents: Sequence[Document] = ()


class CorpusReader(ABC):
    """Base of all corpus readers: a subclass returns the pairs in the files from `read`."""

    Options: type[DataConfig] = DataConfig
    wants: ClassVar[str] = "the corpus"  # the expected kind of `data.path`, for messages
    # whether the pairs depend on the options and the files at `path` alone, so that jobs of a sweep can share them
    reads_only_path: ClassVar[bool] = False

    def __init__(self, options: DataConfig) -> None:
        self.options = options

    @property
    def path(self) -> Path:
        """Return the path of the corpus; `check` has made sure that it is set."""
        assert self.options.path is not None
        return Path(self.options.path).expanduser()

    def check(self) -> None:
        """Raise `InputError` if the corpus does not exist. Its content is checked by `read`."""
        options = self.options
        if options.path is None:
            raise InputError(f"data.path: data={options.name} needs data.path=... ({self.wants})")
        if not self.path.exists():
            raise InputError(f"data.path={options.path}: does not exist; give {self.wants}")

    def remedy(self, split: str) -> str:
        """Return what to do when the corpus has no pair of a split that is needed."""
        return "name all of train, validation, test in its split column"

    def stamp(self) -> Hashable | None:
        """Return a value that is another one once the files have changed; None where nothing can tell that."""
        return file_stamp(self.path, self.options.max_files) if self.reads_only_path else None

    @abstractmethod
    def read(self, limits: Limits) -> Reading:
        """Return all pairs, or raise `InputError` with file and line."""
