"""The keys of `negexp search`."""

from __future__ import annotations

from dataclasses import dataclass

from negexp.components import Options, component, option
from negexp.config.sections import BARS, DataConfig, check_device


@dataclass
class SearchConfig(Options):
    """Everything `negexp search` reads."""

    run: str = option("a folder that `negexp train` wrote, with a committed epoch", form="DIR")
    query: str | None = option("a point in words; its nearest counters are printed", form="TEXT")
    queries: str | None = option(
        "many points: a table (.csv, .jsonl, .parquet) with the column text, and id if there are ids, or .txt with a "
        "text a line",
        form="FILE",
    )
    documents: str | None = option(
        "what is searched instead of the run's corpus: a file as of queries, with the columns title, theme, debate and "
        "stance if there are any",
        form="FILE",
    )
    split: str = option("whose arguments are searched", choices=("all", "train", "validation", "test"))
    candidates: str = option(
        "counters alone, or points too; the documents of a collection take the place of the counters",
        choices=("counters", "all"),
    )
    k: int = option("candidates a query, best first", low=1)
    rerank: bool = option("false: the order of the embeddings, also where the run has a re-ranker")
    output: str | None = option(
        "a new file: .csv, .jsonl or .parquet for a table, .run for a TREC run; null: print the candidates", form="FILE"
    )
    keep: bool = option("true: the embeddings of candidates are kept in the run's folder search/, and read from there")
    device: str = option("auto | cpu | cuda | cuda:N | mps")
    tokens_per_batch: int | None = option("null: chosen for the device", low=1)
    progress: str = option("bars: auto (a terminal only) | always | never", choices=BARS)
    data: DataConfig = component("data", "the run's corpus")

    def check(self) -> None:
        """Raise `InputError` unless the device has a name that torch knows."""
        check_device("device", self.device)
