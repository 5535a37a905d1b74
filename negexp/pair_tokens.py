"""Point and candidate as one input of a cross-encoder, and the scores of many such inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from negexp.model import CrossEncoder
from negexp.progress import progress_bar
from negexp.runtime import Runtime
from negexp.signals import check_stop
from negexp.tokens import padding_id

Ints = NDArray[np.int64]

Asking = Callable[[Ints, Ints], NDArray[np.float64]]  # points (queries,), candidates (queries, k) -> (queries, k)

TOKENIZED_AT_ONCE = 4096  # inputs whose tokens are in memory together


class PairBatch(NamedTuple):
    """Inputs of a cross-encoder: token ids, attention mask and token types, all (inputs, longest)."""

    ids: Tensor
    mask: Tensor
    types: Tensor


@dataclass(frozen=True)
class PairReader:
    """A cross-encoder with the texts that it reads, its tokenizer and its device.

    max_length: tokens of both texts together, with special tokens; the longer text is cut first.
    """

    model: CrossEncoder
    texts: Sequence[str]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    runtime: Runtime
    progress: str = "never"

    def logits(self, points: Ints, candidates: Ints) -> Tensor:
        """Return the logits (inputs,) of pairs of texts in one call, in the model's current mode, with gradients."""
        tokens = self._tokens(points, candidates)
        order = np.argsort([-len(ids) for ids, _ in tokens], kind="stable")
        back = self.runtime.to_device(torch.from_numpy(np.argsort(order)))
        return self._call([tokens[place] for place in order])[back]

    @torch.inference_mode()
    def scores(self, points: Ints, candidates: Ints) -> NDArray[np.float64]:
        """Return the logits (inputs,) of pairs of texts, in evaluation mode, in batches of similar length."""
        self.model.eval()
        found = np.empty(len(points))
        with progress_bar(len(points), "re-ranking", "pair", self.progress) as bar:
            for start in range(0, len(points), TOKENIZED_AT_ONCE):
                part = slice(start, start + TOKENIZED_AT_ONCE)
                self._score_part(self._tokens(points[part], candidates[part]), found[part])
                bar.update(len(found[part]))
        return found

    def _score_part(self, tokens: list[tuple[list[int], list[int]]], found: NDArray[np.float64]) -> None:
        order = np.argsort([-len(ids) for ids, _ in tokens], kind="stable")
        start = 0
        while start < len(order):
            check_stop()
            size = max(1, self.runtime.tokens_per_batch // len(tokens[order[start]][0]))
            places = order[start : start + size]
            found[places] = self._call([tokens[place] for place in places]).double().cpu().numpy()
            start += size

    def _tokens(self, points: Ints, candidates: Ints) -> list[tuple[list[int], list[int]]]:
        """Return token ids and token types of each input, joined as the tokenizer joins two texts."""
        pairs = ([self.texts[row] for row in rows.tolist()] for rows in (points, candidates))
        encoded = self.tokenizer(
            *pairs,
            truncation="longest_first",
            max_length=self.max_length,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        return list(zip(encoded["input_ids"], encoded["token_type_ids"], strict=True))

    def _call(self, tokens: list[tuple[list[int], list[int]]]) -> Tensor:
        batch = pad(tokens, padding_id(self.tokenizer))
        with self.runtime.autocast():
            logits: Tensor = self.model(*(self.runtime.to_device(part) for part in batch))
        return logits


class PairCache:
    """The scores of a cross-encoder's pairs, each computed once.

    Tasks and protocols share most pairs of texts.
    """

    def __init__(self, reader: PairReader) -> None:
        self.reader = reader
        self.key: Ints = np.empty(0, dtype=np.int64)  # ascending
        self.score: NDArray[np.float64] = np.empty(0)

    def __call__(self, points: Ints, candidates: Ints) -> NDArray[np.float64]:
        """Return the scores (queries, k) of candidates (queries, k) of points (queries,), as rows of the texts."""
        keys = self.keys(points, candidates)
        self.add(keys)
        return self.score[np.searchsorted(self.key, keys)]

    def prepare(self, ask: Callable[[Asking], object]) -> None:
        """Compute together the scores of all pairs that `ask` passes to the function that it gets."""
        asked: list[Ints] = []

        def collect(points: Ints, candidates: Ints) -> NDArray[np.float64]:
            asked.append(np.unique(self.keys(points, candidates)))
            return np.zeros(candidates.shape)

        ask(collect)
        if asked:
            self.add(np.concatenate(asked))

    def keys(self, points: Ints, candidates: Ints) -> Ints:
        """Return one number for each pair of texts (queries, k)."""
        return points[:, None] * len(self.reader.texts) + candidates

    def add(self, keys: Ints) -> None:
        """Compute the scores of those pairs that are not known."""
        new = np.setdiff1d(keys, self.key)
        if len(new):
            score = self.reader.scores(*np.divmod(new, len(self.reader.texts)))
            order = np.argsort(key := np.concatenate([self.key, new]))
            self.key, self.score = key[order], np.concatenate([self.score, score])[order]


def pad(tokens: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int) -> PairBatch:
    """Return inputs of different lengths as one batch.

    >>> pad([([5, 6, 7], [0, 0, 1]), ([5, 9], [0, 1])], 0).mask.tolist()
    [[1, 1, 1], [1, 1, 0]]
    """
    longest = max(len(ids) for ids, _ in tokens)
    ids, mask, types = (torch.full((len(tokens), longest), value) for value in (pad_id, 0, 0))
    for row, (own, own_types) in enumerate(tokens):
        ids[row, : len(own)] = torch.tensor(own)
        types[row, : len(own)] = torch.tensor(own_types)
        mask[row, : len(own)] = 1
    return PairBatch(ids, mask, types)
