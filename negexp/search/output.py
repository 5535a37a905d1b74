"""Rankings as text, as a table and as a TREC run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from negexp.errors import InputError
from negexp.evaluation.trec import encoded, listed_scores, run_lines
from negexp.search.candidates import PLACE, Candidates
from negexp.search.ranking import Ranking
from negexp.tracking.files import write_bytes, write_csv, write_parquet

if TYPE_CHECKING:
    import pandas as pd

KINDS = (".csv", ".jsonl", ".parquet", ".run")
SHOWN = 200  # characters of a text


class Answer(NamedTuple):
    """What was asked and found. cosine: whether the embeddings are normalised, so the score is the cosine."""

    ids: list[str]
    queries: list[str]
    candidates: Candidates
    ranking: Ranking
    cosine: bool

    def scores(self) -> np.ndarray:
        """Return the similarities (queries, k): the cosine, else minus the Euclidean distance."""
        distance = self.ranking.distance
        return 1 - distance**2 / 2 if self.cosine else -distance

    def has_second_stage(self) -> bool:
        """Return whether a re-ranker has ordered the nearest."""
        return bool(np.isfinite(self.ranking.combined).any())


def check_output_file(path: Path) -> None:
    """Raise `InputError` unless a new file of a known kind can be written at `path`."""
    if path.suffix.lower() not in KINDS:
        raise InputError(f"output={path}: must end in .csv, .jsonl or .parquet for a table, or in .run for a TREC run")
    if path.exists() or path.is_symlink():
        raise InputError(f"output={path}: exists already; give a new name, or remove it")
    if not path.parent.is_dir():
        raise InputError(f"output={path}: the folder {path.parent} does not exist; make it first")


def write(answer: Answer, path: Path) -> None:
    """Write the answer into a file, whose kind is the end of its name."""
    kind = path.suffix.lower()
    if kind == ".run":
        write_bytes(path, trec_run(answer))
    elif kind == ".csv":
        write_csv(path, table(answer))
    elif kind == ".parquet":
        write_parquet(path, table(answer))
    else:
        write_bytes(path, table(answer).to_json(orient="records", lines=True, force_ascii=False).encode())


def table(answer: Answer) -> pd.DataFrame:
    """Return a row for each query and candidate, best first.

    `query`, `rank`, `score` (see `Answer`), `combined` where a re-ranker has a say (null behind the candidates that it
    orders), where the candidate stands (`PLACE`, `copies`), and `text`.
    """
    import pandas as pd

    return pd.DataFrame(_columns(answer)).astype(dict.fromkeys(PLACE, "str"))


def _columns(answer: Answer) -> dict[str, Any]:
    """Return the columns of `table`."""
    query, column = np.nonzero(answer.ranking.candidate >= 0)
    candidate = answer.ranking.candidate[query, column]
    values: dict[str, Any] = {"query": [answer.ids[one] for one in query], "rank": column + 1}
    values["score"] = answer.scores()[query, column]
    if answer.has_second_stage():
        values["combined"] = answer.ranking.combined[query, column]
    place = {name: [own[row] for row in candidate] for name, own in answer.candidates.place.items()}
    return values | place | {"text": [answer.candidates.texts[row] for row in candidate]}


def trec_run(answer: Answer) -> bytes:
    """Return the lines of a run file. Ids have no white space, and scores decrease strictly, as in an evaluation's."""
    ids = [encoded(id_) for id_ in answer.candidates.place["id"]]
    stage, scores, lines = "reranked" if answer.has_second_stage() else "retrieval", answer.scores(), []
    for number, query in enumerate(answer.ids):
        found = answer.ranking.candidate[number]
        found = found[found >= 0]
        own = listed_scores(scores[number, : len(found)], stage)
        named = zip((ids[row] for row in found), own.tolist(), strict=True)
        lines.append(run_lines(encoded(query), named, stage))
    return b"".join(lines)


def text(answer: Answer) -> str:
    """Return the answer for a terminal: three lines for each candidate. Control characters of texts are left out."""
    hits: dict[str, list[str]] = {id_: [] for id_ in answer.ids}
    columns = _columns(answer)
    for cells in zip(*columns.values(), strict=True):
        row = dict(zip(columns, cells, strict=True))
        hits[row["query"]].append(_hit(row))
    blocks = []
    for id_, query in zip(answer.ids, answer.queries, strict=True):
        name = "" if len(answer.ids) == 1 else f"{one_line(id_)}: "
        blocks.append("\n".join([f"{name}{one_line(query)}", *(hits[id_] or ["   no candidate"])]))
    return "\n\n".join(blocks)


def _hit(row: Mapping[Any, Any]) -> str:
    combined = row.get("combined", np.nan)
    second = "" if np.isnan(combined) else f"  combined {combined:.3f}"
    stands = [str(row["source"])] + [f"{name} {row[name]}" for name in PLACE[2:] if row[name] is not None]
    stands += [f"{row['copies']} copies"] if row["copies"] > 1 else []
    lines = [f"score {row['score']:.3f}{second}  {row['id']}", ", ".join(stands), str(row["text"])]
    first, *rest = (one_line(line) for line in lines)
    return "\n".join([f"{row['rank']:>4}  {first}", *(f"      {line}" for line in rest)])


def one_line(text: str) -> str:
    r"""Return the beginning of a text on one line, without characters that could steer a terminal.

    >>> one_line("red \x1b[31m and\n  more")
    'red [31m and more'
    """
    line = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return line if len(line) <= SHOWN else f"{line[:SHOWN].rstrip()} ..."
