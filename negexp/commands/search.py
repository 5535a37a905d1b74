"""Find the nearest counters of a query, or of a file of queries, with a run; re-rank them where it can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from negexp.command import Command
from negexp.config import SearchConfig, completed_by_run


def check(config: SearchConfig, overrides: Sequence[str]) -> None:
    """Raise `InputError` unless the run can be used, there is something to search for, and the files exist."""
    from negexp.search.request import check_request

    check_request(config, overrides)
    if config.output is not None:
        from negexp.search.output import check_output_file

        check_output_file(Path(config.output).expanduser())


def run(config: SearchConfig, folder: Path, overrides: list[str]) -> None:
    """Print the candidates of the queries, or write them to `output`."""
    from negexp.search.output import text, write
    from negexp.search.run import search

    answer = search(config, overrides)
    if config.output is None:
        print(f"\n{text(answer)}")
    else:
        write(answer, Path(config.output).expanduser())
        print(f"the candidates of {len(answer.ids)} queries in {config.output}")


COMMAND = Command(
    schema=SearchConfig,
    run=run,
    check=check,
    complete=completed_by_run,
    completed=("data",),
    usage=(
        'negexp search run=DIR query="..." [k=10] [split=all] [candidates=counters]',
        'negexp search run=DIR query="..." documents=FILE',
        "negexp search run=DIR queries=FILE output=FILE.csv|.jsonl|.parquet|.run [documents=FILE]",
    ),
    paths=("run", "queries", "documents", "output", "data.path"),
    texts=("query",),
    sweeps=False,
)
