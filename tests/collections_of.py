"""Small corpora with a collection of documents, and plain loops over their golds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from negexp.corpus.arguments import Record, Split, index_records
from negexp.corpus.collection import Document


@dataclass(frozen=True)
class Judged:
    """The texts of queries and documents as numbers, and the grades; a document with the id of a query is that query.

    copies: (texts,) the same number for texts that are copies.
    """

    queries: list[int]
    documents: list[int]
    grades: dict[tuple[int, int], int]  # (query, document) -> grade above 0
    itself: dict[int, int]  # query -> document
    copies: list[int]

    def records(self) -> list[Record]:
        """Return a pair for each grade, in the order of queries and documents."""
        return [
            Record(
                self.text(self.queries[query]),
                self.text(self.documents[document]),
                *("test", None, None, None, f"q{query}"),
                query=f"q{query}",
                document=document,
                itself=self.itself.get(query, -1),
                grade=grade,
            )
            for (query, document), grade in sorted(self.grades.items())
        ]

    def text(self, number: int) -> str:
        """Return a text; copies differ in white space."""
        return f"text{self.copies[number]}" + " " * number + "."

    def split(self) -> tuple[tuple[str, ...], Split]:
        """Return the texts of the corpus, and its only split."""
        documents = [Document(f"d{row}", self.text(text)) for row, text in enumerate(self.documents)]
        texts, splits = index_records(self.records(), "exact", documents)
        number = [int(text.removeprefix("text").rstrip(" .")) for text in texts]
        return texts, replace(splits["test"], identity=np.array(number))

    def same(self, text: int, other: int) -> bool:
        return self.copies[text] == self.copies[other]

    def golds(self, query: int) -> dict[int, int]:
        """Return the documents of a query and their grades."""
        return {document: grade for (one, document), grade in self.grades.items() if one == query}


@st.composite
def judged(draw: st.DrawFn, max_documents: int = 8) -> Judged:
    """Draw queries, documents and grades, with copies of all kinds."""
    texts = draw(st.integers(2, 6))
    copies = draw(st.lists(st.integers(0, texts - 1), min_size=texts, max_size=texts))
    some = st.integers(0, texts - 1)
    queries = draw(st.lists(some, min_size=1, max_size=4))
    documents = draw(st.lists(some, min_size=2, max_size=max_documents))
    pairs = st.tuples(st.integers(0, len(queries) - 1), st.integers(0, len(documents) - 1))
    grades = draw(st.dictionaries(pairs, st.integers(1, 3), min_size=1, max_size=10))
    itself = draw(st.dictionaries(st.integers(0, len(queries) - 1), st.integers(0, len(documents) - 1), max_size=2))
    grades = {one: grade for one, grade in grades.items() if itself.get(one[0]) != one[1]}
    return Judged(queries, documents, grades, itself, copies)
