"""Point and candidate as one input of a cross-encoder, and the scores of many such inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from negexp.model import CrossEncoder, SequenceClassifier
from negexp.progress import progress_bar
from negexp.runtime import Runtime
from negexp.signals import check_stop
from negexp.tokens import padding_id

Ints = NDArray[np.int64]

Asking = Callable[[Ints, Ints], NDArray[np.float64]]  # points (queries,), candidates (queries, k) -> (queries, k)

TOKENIZED_AT_ONCE = 4096  # inputs whose tokens are in memory together


TokensOfPair = tuple[list[int], list[int]]  # token ids and token types of an input


class PairBatch(NamedTuple):
    """Inputs of a cross-encoder: token ids, attention mask and token types, all (inputs, longest)."""

    ids: Tensor
    mask: Tensor
    types: Tensor


class Joiner:
    """Joins two texts as a tokenizer does (`truncation="longest_first"`), but tokenises each text once only."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer, self.from_left = tokenizer, tokenizer.truncation_side == "left"
        one = self._tokens(["a"])[0]
        frame = tokenizer("a", "a", return_token_type_ids=True)
        ids, types = list(frame["input_ids"]), list(frame["token_type_ids"])
        # the special tokens before, between and after the two texts
        first = next(place for place in range(len(ids)) if ids[place : place + len(one)] == one)
        second = max(place for place in range(len(ids)) if ids[place : place + len(one)] == one)
        pieces = slice(first), slice(first + len(one), second), slice(second + len(one), None)
        self.special = [(ids[piece], types[piece]) for piece in pieces]
        self.types = types[first], types[second]
        self.room = max_length - sum(len(own) for own, _ in self.special)
        self.known: dict[int, list[int]] = {}  # by row of the texts

    def read(self, texts: Sequence[str], rows: Ints) -> None:
        """Tokenise those of the texts that are not known."""
        new = [row for row in rows.tolist() if row not in self.known]
        self.known |= dict(zip(new, self._tokens([texts[row] for row in new]), strict=True))

    def join(self, point: int, candidate: int) -> TokensOfPair:
        """Return the input of two texts that were read; the longer text is cut first."""
        texts = self.known[point], self.known[candidate]
        parts = [self._cut(own, size) for own, size in zip(texts, self._sizes(*map(len, texts)), strict=True)]
        ids, types = list(self.special[0][0]), list(self.special[0][1])
        for part, type_, (own, own_types) in zip(parts, self.types, self.special[1:], strict=True):
            ids += part + own
            types += [type_] * len(part) + own_types
        return ids, types

    def _sizes(self, first: int, second: int) -> tuple[int, int]:
        """Return how many tokens of each text fit."""
        if first + second <= self.room:
            return first, second
        short = min(first, second, self.room // 2)
        return (self.room - short, short) if first > second else (short, self.room - short)

    def _cut(self, tokens: list[int], size: int) -> list[int]:
        return tokens[len(tokens) - size :] if self.from_left else tokens[:size]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return found


@dataclass
class Reading:
    """How many pairs of texts were scored since the last `restart`, and the seconds that it took."""

    pairs: int = 0
    seconds: float = 0.0

    def restart(self) -> None:
        """Count from zero."""
        self.pairs, self.seconds = 0, 0.0


@dataclass(frozen=True)
class PairReader:
    """A cross-encoder with the texts that it reads, its tokenizer and its device.

    max_length: tokens of both texts together, with special tokens; the longer text is cut first.
    """

    model: CrossEncoder | SequenceClassifier
    texts: Sequence[str]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    runtime: Runtime
    progress: str = "never"
    reading: Reading = field(default_factory=Reading)

    def logits(self, points: Ints, candidates: Ints) -> Tensor:
        """Return the logits (inputs,) of pairs of texts, in the model's current mode, with gradients.

        Each process computes its share of the inputs in one call.
        """
        tokens, world = self._tokens(points, candidates), self.runtime.world
        order = np.argsort([-len(ids) for ids, _ in tokens], kind="stable")
        own = order[list(world.share(len(order)))]
        logits = self._call([tokens[place] for place in own]) if len(own) else self._call(tokens[:1])[:0]
        return world.gather_rows(logits)[world.order(self.runtime.to_device(torch.from_numpy(own)))]

    @torch.inference_mode()
    def scores(self, points: Ints, candidates: Ints) -> NDArray[np.float64]:
        """Return the logits (inputs,) of pairs of texts, in evaluation mode, in batches of similar length."""
        self.model.eval()
        started, found = time.perf_counter(), np.empty(len(points))
        with progress_bar(len(points), "re-ranking", "pair", self.progress) as bar:
            for start in range(0, len(points), TOKENIZED_AT_ONCE):
                part = slice(start, start + TOKENIZED_AT_ONCE)
                self._score_part(self._tokens(points[part], candidates[part]), found[part])
                bar.update(len(found[part]))
        self.reading.pairs += len(found)
        self.reading.seconds += time.perf_counter() - started
        return found

    def _score_part(self, tokens: list[TokensOfPair], found: NDArray[np.float64]) -> None:
        world, batches = self.runtime.world, self._batches(tokens)
        own = [batches[number] for number in world.share(len(batches))]
        for places in own:
            check_stop()
            found[places] = self._call([tokens[place] for place in places]).cpu().double().numpy()
        world.fill(torch.from_numpy(found), torch.from_numpy(np.concatenate([*own, np.empty(0, dtype=np.int64)])))

    def _batches(self, tokens: list[TokensOfPair]) -> list[Ints]:
        """Return the places of inputs of similar length, longest first."""
        order, batches, start = np.argsort([-len(ids) for ids, _ in tokens], kind="stable"), [], 0
        while start < len(order):
            size = max(1, self.runtime.tokens_per_batch // len(tokens[order[start]][0]))
            batches.append(order[start : start + size])
            start += size
        return batches

    def _tokens(self, points: Ints, candidates: Ints) -> list[TokensOfPair]:
        pairs = zip(points.tolist(), candidates.tolist(), strict=True)
        self._joiner.read(self.texts, np.union1d(points, candidates))
        return [self._joiner.join(point, candidate) for point, candidate in pairs]

    @cached_property
    def _joiner(self) -> Joiner:
        return Joiner(self.tokenizer, self.max_length)

    def _call(self, tokens: list[TokensOfPair]) -> Tensor:
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


def pad(tokens: Sequence[TokensOfPair], pad_id: int) -> PairBatch:
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
