"""Copies within the training split, and texts shared between splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from negexp.corpus.arguments import SPLITS, Ints, Split


@dataclass(frozen=True)
class Overlap:
    """Copies and leaks among the training pairs; masks are (pairs,) over the training split as read."""

    repeated_point: int  # training points (with a collection: queries) whose text is that of another one
    copy: np.ndarray  # pair has the same two texts as an earlier training pair
    leak: np.ndarray  # point or counter text occurs in validation or test
    asked: np.ndarray  # point text is a query of validation or test
    leaked: dict[str, int]  # evaluation split -> number of its pairs with a text that occurs in the training split
    held_out: int  # test pairs with a text that occurs in validation


def find_overlap(splits: dict[str, Split]) -> Overlap:
    """Find repeated training pairs and texts shared between splits, by text identity."""
    train, validation, test = (splits[name] for name in SPLITS)
    asked = slice(None) if train.collection is None else train.collection.first_of_query()
    _, inverse, counts = np.unique(train.point_identity[asked], return_inverse=True, return_counts=True)
    return Overlap(
        repeated_point=int((counts[inverse] > 1).sum()),
        copy=~first_of_pair(train),
        leak=shares_text(train, validation) | shares_text(train, test),
        asked=shares_query(train, validation) | shares_query(train, test),
        leaked={name: int(shares_text(splits[name], train).sum()) for name in ("validation", "test")},
        held_out=int(shares_text(test, validation).sum()),
    )


def first_of_pair(split: Split) -> np.ndarray:
    """Return a mask (pairs,) of the first row with each pair of texts."""
    _, first = np.unique(np.stack([split.point_identity, split.counter_identity]), axis=1, return_index=True)
    mask = np.zeros(len(split), dtype=bool)
    mask[first] = True
    return mask


def rows_to_keep(train: Split, overlap: Overlap, train_overlap: str, copies: str) -> Ints:
    """Return the training rows that remain after `data.train_overlap` and `data.copies`, in order."""
    keep = np.ones(len(train), dtype=bool)
    if train_overlap == "drop":
        keep &= ~overlap.leak
    if train_overlap == "queries":
        keep &= ~overlap.asked
    if copies == "merge":
        keep &= ~overlap.copy
    return np.flatnonzero(keep)


def shares_text(split: Split, other: Split) -> np.ndarray:
    """Return a mask (pairs,) of the pairs whose point or counter text occurs in another split, as point or counter."""
    known = np.concatenate([other.point_identity, other.counter_identity])
    return np.isin(split.point_identity, known) | np.isin(split.counter_identity, known)


def shares_query(split: Split, other: Split) -> np.ndarray:
    """Return a mask (pairs,) of the pairs whose point occurs in another split, as a point."""
    return np.isin(split.point_identity, other.point_identity)


def seen_in(train: Split, split: Split) -> np.ndarray:
    """Return a mask (pairs,) of the pairs of a split that a model trained on `train` has seen.

    Documents of a collection belong to all splits, so there a query is seen only if it is a point of training.
    """
    return shares_text(split, train) if split.collection is None else shares_query(split, train)
