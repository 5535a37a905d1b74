"""What a corpus reader is: it turns files into pairs of texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from negexp.config import DataConfig
from negexp.corpus.arguments import Record
from negexp.corpus.limits import Limits
from negexp.errors import InputError


@dataclass(frozen=True)
class Reading:
    """The pairs that a reader found, in their order; where they name no split, splits are drawn.

    found: split -> points and counters in the files, also those that make no pair; empty where there are no such.
    """

    records: list[Record]
    found: dict[str, tuple[int, int]] = field(default_factory=dict)


class CorpusReader(ABC):
    """Base of all corpus readers: a subclass says in `read` what is in the files."""

    Options: type[DataConfig] = DataConfig
    wants: ClassVar[str] = "the corpus"  # what `data.path` should be, for messages

    def __init__(self, options: DataConfig) -> None:
        self.options = options

    @property
    def path(self) -> Path:
        """Return where the corpus is; `check` has made sure that a path is given."""
        assert self.options.path is not None
        return Path(self.options.path).expanduser()

    def check(self) -> None:
        """Raise `InputError` when there is no such corpus; what is in it, only reading can say."""
        options = self.options
        if options.path is None:
            raise InputError(f"data.path: data={options.name} needs data.path=... ({self.wants})")
        if not self.path.exists():
            raise InputError(f"data.path={options.path}: does not exist; give {self.wants}")

    @abstractmethod
    def read(self, limits: Limits) -> Reading:
        """Read all pairs, or raise `InputError` naming file and line."""
