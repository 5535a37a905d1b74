"""What can be said about a search before anything is loaded: its run, its queries, its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from negexp.config import SearchConfig, data_of_run, given_keys, load_run_config
from negexp.corpus import check_path
from negexp.corpus.tables import check_cell
from negexp.errors import InputError
from negexp.search.texts import check_file
from negexp.tracking import RunFolder


def check_request(config: SearchConfig, overrides: Sequence[str]) -> None:
    """Raise `InputError` unless the run has a committed epoch, there is one kind of query, and the files exist."""
    folder = RunFolder(Path(config.run).expanduser())
    trained = load_run_config(folder.config)
    if not (folder.checkpoints / "index.json").exists():
        raise InputError(f"run={config.run}: has no committed epoch yet; let its `negexp train` command finish one")
    _check_queries(config)
    if config.documents is None:
        check_path(data_of_run(config.data, trained, overrides))
        return
    check_file(Path(config.documents).expanduser(), "documents")
    needless = {key for key in given_keys(overrides) if key in ("split", "candidates", "data", "data.path")}
    if needless:
        raise InputError(f"documents={config.documents}: takes the corpus's place; leave out {min(needless)}")


def _check_queries(config: SearchConfig) -> None:
    if config.query is not None and config.queries is not None:
        raise InputError('queries: is given beside query; give query="..." or queries=FILE')
    if config.queries is not None:
        check_file(Path(config.queries).expanduser(), "queries")
    elif config.query is None:
        raise InputError('query: needs query="..." or queries=FILE')
    elif not config.query.strip():
        raise InputError('query="": is empty; give the point in words')
    else:
        check_cell(config.query, "query")
