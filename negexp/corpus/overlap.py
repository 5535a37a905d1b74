"""Copies within the training split, and texts that it shares with validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from negexp.corpus.arguments import Ints, Split


@dataclass(frozen=True)
class Overlap:
    """Which training pairs are copies or leaks; masks are (pairs,) over the training split as read."""

    repeated_point: int  # training pairs whose point text occurs more than once among the points
    copy: np.ndarray  # same two texts as an earlier training pair
    leak: np.ndarray  # point or counter text stands in validation or test
    leaked: dict[str, int]  # evaluation split -> its pairs whose point or counter text stands in the training split


def find_overlap(splits: dict[str, Split]) -> Overlap:
    """Find copies and leaks of the training split by text identity."""
    train = splits["train"]
    _, inverse, counts = np.unique(train.point, return_inverse=True, return_counts=True)
    held_out = np.concatenate([splits["validation"].texts(), splits["test"].texts()])
    leaked = {name: int(seen_in_training(splits[name], train).sum()) for name in ("validation", "test")}
    return Overlap(
        repeated_point=int((counts[inverse] > 1).sum()),
        copy=~first_of_pair(train),
        leak=np.isin(train.point, held_out) | np.isin(train.counter, held_out),
        leaked=leaked,
    )


def first_of_pair(split: Split) -> np.ndarray:
    """Return a mask (pairs,) of the rows that are the first with their two texts."""
    _, first = np.unique(np.stack([split.point, split.counter]), axis=1, return_index=True)
    mask = np.zeros(len(split), dtype=bool)
    mask[first] = True
    return mask


def rows_to_keep(train: Split, overlap: Overlap, train_overlap: str, copies: str) -> Ints:
    """Return the training rows that `data.train_overlap` and `data.copies` leave, in order."""
    keep = np.ones(len(train), dtype=bool)
    if train_overlap == "drop":
        keep &= ~overlap.leak
    if copies == "merge":
        keep &= ~overlap.copy
    return np.flatnonzero(keep)


def seen_in_training(split: Split, train: Split) -> np.ndarray:
    """Return a mask (pairs,) of the pairs whose point or counter text stands in the training pairs used."""
    known = train.texts()
    return np.isin(split.point, known) | np.isin(split.counter, known)
