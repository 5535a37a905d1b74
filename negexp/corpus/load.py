"""Load a corpus as configured: read, split, remove copies and leaks, limit, describe. Jobs of a process share it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from negexp.components import build
from negexp.config import DataConfig
from negexp.corpus.arguments import (
    SPLITS,
    Corpus,
    Ints,
    Split,
    index_records,
    metadata_names,
    with_unique_ids,
)
from negexp.corpus.collection import Collection, Golds
from negexp.corpus.limits import Limits
from negexp.corpus.overlap import Overlap, find_overlap, rows_to_keep
from negexp.corpus.reader import CorpusReader
from negexp.corpus.tables import draw_splits
from negexp.errors import InputError
from negexp.shared import Latest

SAME_TEXT = {
    "exact": "when every character is",
    "normalized": "regardless of case, white space, zero-width characters and Unicode form",
}

_latest: Latest[Corpus] = Latest(2)  # a run that is evaluated on another corpus needs both


def check_path(config: DataConfig) -> None:
    """Raise `InputError` if the corpus in `config` does not exist. Its content is checked by reading it."""
    reader: CorpusReader = build("data", config)
    reader.check()


def load_corpus(config: DataConfig, needed: Sequence[str] = SPLITS) -> Corpus:
    """Read the corpus in `config`, and handle copies and leaks as configured.

    The same corpus is returned again while its files stay as they are. Its arrays cannot be written.

    Raises
    ------
    InputError
        When the files are invalid, or when a needed split has no pairs left.
    """
    reader: CorpusReader = build("data", config)
    reader.check()
    stamp = reader.stamp()
    if stamp is None:
        return _load(reader, config, needed)
    return _latest.get((repr(config), tuple(needed), stamp), lambda: _load(reader, config, needed))


def _load(reader: CorpusReader, config: DataConfig, needed: Sequence[str]) -> Corpus:
    path, reading = reader.path, reader.read(Limits(config.max_bytes, config.max_files))
    records, file_counts = reading.records, reading.counts
    if records[0].split is None:
        records = draw_splits(records, config.validation_share, config.test_share, config.split_seed, path)
    records = with_unique_ids(records, in_each_split=bool(reading.documents))
    texts, splits = index_records(records, config.match, reading.documents)
    for name in needed:
        if not len(splits[name]):
            raise InputError(f"data.path={path}: holds no {name} pair; {reader.remedy(name)}")
    overlap = find_overlap(splits)
    rows = rows_to_keep(splits["train"], overlap, config.train_overlap, config.copies)
    if "train" in needed and not len(rows):
        raise InputError(
            f"data.train_overlap={config.train_overlap}: no training pair is left, all share a text with validation or "
            "test; give other splits or data.train_overlap=keep"
        )
    used = splits | {"train": splits["train"].take(rows)}
    used = {name: _limit(split, config.max_pairs, config.split_seed) for name, split in used.items()}
    counts = {name: _count(split, file_counts.get(name)) for name, split in splits.items()}
    respelled = len(texts) - len(np.unique(splits["train"].identify(np.arange(len(texts)))))
    notes = [_describe(config, counts, used, overlap, respelled), *describe_documents(used), reading.note]
    summary = " ".join(filter(None, notes))
    for split in used.values():
        _protect(split)
    return Corpus(config.name, texts, used, counts, config.match, summary, metadata_names(records))


def _protect(part: Split | Collection | Golds) -> None:
    """Let nobody write the arrays of a split, which several jobs may share."""
    derived = [part.point_identity, part.counter_identity] if isinstance(part, Split) else []
    for value in (*vars(part).values(), *derived):
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
        elif isinstance(value, Collection | Golds):
            _protect(value)


def _count(split: Split, in_files: tuple[int, int] | None) -> dict[str, int | None]:
    points, counters = in_files or (len(split), len(split))
    debates = None if split.debate is None else len(np.unique(split.debate))
    documents: dict[str, int | None] = {}
    if (collection := split.collection) is not None:  # several pairs may have the same query, or the same document
        points, counters = len(np.unique(collection.query)), len(np.unique(collection.counter))
        documents = {"documents": len(collection)}
    return {"points": points, "counters": counters, "pairs": len(split), "debates": debates, **documents}


def describe_documents(splits: dict[str, Split]) -> list[str]:
    """Return sentences on the documents and golds of the pairs that are used; none without a collection."""
    collections = [split.collection for split in splits.values() if split.collection is not None]
    if not collections:
        return []
    unpaired = np.all([collection.paired() < 0 for collection in collections], axis=0).sum()
    several = []
    for name, split in splits.items():
        if split.collection is not None:
            golds = np.unique(split.collection.golds.query, return_counts=True)[1]
            several.append(f"{int((golds > 1).sum())} of {len(golds)} {name}")
    return [
        f"The candidates are {len(collections[0])} documents, {unpaired} of them the counter of no pair.",
        f"Queries with several golds: {', '.join(several)}.",
    ]


def _limit(split: Split, max_pairs: int | None, seed: int) -> Split:
    """Return at most `max_pairs` pairs: whole debates in random order, the last one cut; rows stay in order.

    Without debates, the pairs of a query stay together in the same way.
    """
    if max_pairs is None or len(split) <= max_pairs:
        return split
    queries = np.arange(len(split)) if split.collection is None else split.collection.query
    group: Ints = queries if split.debate is None else np.unique(split.debate, return_inverse=True)[1]
    place = np.random.default_rng(seed).permutation(int(group.max()) + 1)
    rows = np.sort(np.argsort(place[group], kind="stable")[:max_pairs])
    return split.take(rows)


def _describe(
    config: DataConfig,
    counts: dict[str, dict[str, int | None]],
    used: dict[str, Split],
    overlap: Overlap,
    respelled: int,
) -> str:
    """Return a paragraph about the files, copies, leaks, and the pairs that are used."""
    sizes = "; ".join(
        f"{name} {count['points']} points, {count['counters']} counters, {count['pairs']} pairs"
        + ("" if count["debates"] is None else f" in {count['debates']} debates")
        for name, count in counts.items()
    )
    parts = [f"corpus {config.name}: {sizes}."]
    copies, leaks = int(overlap.copy.sum()), int(overlap.leak.sum())
    note = f"; {respelled} texts are copies for that reason alone" if respelled else ""
    parts.append(f"Texts count as the same {SAME_TEXT[config.match]} (data.match={config.match}){note}.")
    if overlap.repeated_point or leaks:
        parts.append(
            f"In training {overlap.repeated_point} points occur more than once and {copies} pairs repeat an earlier "
            f"one (data.copies={config.copies}); {leaks} pairs share a text with validation or test, and "
            f"{overlap.leaked['validation']} validation and {overlap.leaked['test']} test pairs with training "
            f"(data.train_overlap={config.train_overlap})."
        )
    else:
        parts.append("No copies, and no text is shared between training and validation or test.")
    if overlap.held_out:
        parts.append(
            f"Validation, which picks the epoch, shares a text with {overlap.held_out} of the "
            f"{counts['test']['pairs']} test pairs: a leak of its own kind, which no key removes."
        )
    parts.append(f"Training uses {len(used['train'])} pairs.")
    if config.max_pairs is not None:
        cut = ", ".join(f"{len(used[name])} {name}" for name in SPLITS)
        parts.append(f"data.max_pairs={config.max_pairs} leaves {cut} pairs: a trial, not the corpus.")
    return " ".join(parts)
