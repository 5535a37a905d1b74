"""A folder in the layout of BEIR (Thakur et al. 2021): corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from negexp.components import option
from negexp.config import DataConfig
from negexp.corpus.arguments import Record
from negexp.corpus.collection import Document
from negexp.corpus.limits import Limits, decode
from negexp.corpus.reader import CorpusReader, Reading
from negexp.corpus.tables import checked_text, jsonl_rows, titled_text
from negexp.errors import InputError

QRELS = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
LAYOUT = "a folder with corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv"
LONGEST_GRADE = 9  # digits


@dataclass
class BeirOptions(DataConfig):
    """The keys of `data=beir`."""

    titles: str = option(
        "keep: a document is its title, a space and its text; drop: its text", choices=("keep", "drop")
    )
    identical_ids: str = option(
        "ignore: a document with the id of a query is that query, never its candidate (as in BEIR's own evaluation); "
        "keep: ids of queries and documents have nothing to do with each other",
        choices=("ignore", "keep"),
    )


@dataclass
class Judgements:
    """Grades above 0 by query and document, and the lines of the qrels files that are left out."""

    grades: dict[str, dict[tuple[str, str], int]] = field(default_factory=dict)  # split -> (query, document) -> grade
    unknown: Counter[str] = field(default_factory=Counter)  # "queries", "documents" -> lines with one without text
    identical: int = 0  # lines that name the query itself


class Beir(CorpusReader):
    """The folder. Every pair of a query and a document with a grade above 0 is a pair of point and counter."""

    Options = BeirOptions
    options: BeirOptions
    wants = LAYOUT
    reads_only_path = True

    def check(self) -> None:
        """Raise `InputError` if the folder or one of its files does not exist."""
        super().check()
        if not self.path.is_dir():
            raise InputError(f"data.path={self.path}: is not a folder; give {LAYOUT}")
        for name in ("corpus.jsonl", "queries.jsonl", "qrels"):
            if not (self.path / name).exists():
                raise InputError(f"data.path={self.path}: has no {name}; give {LAYOUT}")

    def remedy(self, split: str) -> str:
        """Return what to do when the folder has no pair of a split that is needed."""
        return f"give qrels/{QRELS[split]}, or evaluate a split that is there with `negexp evaluate split=...`"

    def read(self, limits: Limits) -> Reading:
        """Read documents, queries and grades; lines of the qrels that name an unknown or empty text are left out."""
        files = {split: f"qrels/{name}" for split, name in QRELS.items() if (self.path / "qrels" / name).exists()}
        if not files:
            raise InputError(f"data.path={self.path}: qrels/ holds none of {', '.join(QRELS.values())}; give one")
        total = 0
        for name in ("corpus.jsonl", "queries.jsonl", *files.values()):
            total += self._file(name).stat().st_size
            limits.check_bytes(total, self.path)
        documents, empty = self._texts("corpus.jsonl")
        queries, _ = self._texts("queries.jsonl")
        judged = Judgements()
        for split, name in files.items():
            judged.grades[split] = self._grades(name, queries, documents, judged)
        if not any(judged.grades.values()):
            raise InputError(
                f"data.path={self.path}: qrels/ has no line with a grade above 0 whose query and document are in "
                f"queries.jsonl and corpus.jsonl ({_left_out(judged)}); give the files that belong together"
            )
        row = {id_: place for place, id_ in enumerate(documents)}
        ignored = self.options.identical_ids == "ignore"
        records = [
            Record(
                *(queries[query], documents[document], split, None, None, None, query),
                query=query,
                document=row[document],
                itself=row.get(query, -1) if ignored else -1,
                grade=grade,
            )
            for split, grades in judged.grades.items()
            for (query, document), grade in grades.items()
        ]
        note = f"qrels: {_left_out(judged)}; {empty} documents without text are left out."
        return Reading(records, note=note, documents=[Document(id_, text) for id_, text in documents.items()])

    def _texts(self, name: str) -> tuple[dict[str, str], int]:
        """Return the texts of a file by id, and the number of those that are empty and left out."""
        texts: dict[str, str] = {}
        empty: set[str] = set()
        for location, cells in jsonl_rows(self._file(name)):
            id_ = checked_text(cells.get("_id"), f"{location}: _id")
            if not id_:
                raise InputError(f"{location}: has no _id; give every line one")
            if id_ in texts or id_ in empty:
                raise InputError(f"{location}: _id={id_} occurs twice; ids must be unique")
            text = titled_text(cells, location, self.options.titles == "keep")
            if text:
                texts[id_] = text
            else:
                empty.add(id_)
        return texts, len(empty)

    def _grades(
        self, name: str, queries: dict[str, str], documents: dict[str, str], judged: Judgements
    ) -> dict[tuple[str, str], int]:
        """Return the grades above 0 of a qrels file; count what is left out in `judged`."""
        grades: dict[tuple[str, str], int] = {}
        for query, document, grade in _judgement_lines(self._file(name)):
            unknown = [
                kind
                for kind, id_, known in (("queries", query, queries), ("documents", document, documents))
                if id_ not in known
            ]
            judged.unknown.update(unknown)
            if unknown:
                continue
            if query == document and self.options.identical_ids == "ignore":
                judged.identical += 1
            elif grade > 0:
                grades[query, document] = grade
            else:
                grades.pop((query, document), None)
        return grades

    def _file(self, name: str) -> Path:
        """Return the path of a file of the folder, or raise `InputError` if it is no file or a link to elsewhere."""
        file = self.path / name
        if not file.is_file():
            raise InputError(f"{file}: is not a file; give {LAYOUT}")
        if not file.resolve().is_relative_to(self.path.resolve()):
            raise InputError(f"{file}: is a link to a file outside the folder; put the file itself there")
        return file


def _judgement_lines(file: Path) -> Iterator[tuple[str, str, int]]:
    """Yield query, document and grade of each line of a qrels file; a first line without a number is the header."""
    for number, line in enumerate(decode(file.read_bytes(), str(file)).splitlines(), 1):
        if not line.strip():
            continue
        cells = line.split("\t")
        grade = cells[2].strip() if len(cells) == 3 else ""
        is_number = grade.removeprefix("-").isdecimal() and grade.isascii() and len(grade) <= LONGEST_GRADE
        if is_number:
            yield cells[0].strip(), cells[1].strip(), int(grade)
        elif number > 1 or len(cells) != 3:
            raise InputError(f"{file}:{number}: is not query-id, corpus-id and a whole number, separated by tabs")


def _left_out(judged: Judgements) -> str:
    """Return how many lines of the qrels are left out, in words."""
    queries, documents = judged.unknown["queries"], judged.unknown["documents"]
    itself = f", {judged.identical} the query itself" if judged.identical else ""
    return f"{queries} lines name an unknown or empty query, {documents} an unknown or empty document{itself}"
