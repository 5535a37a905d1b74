"""Tokenise every text once per run, and form batches of similar length with little padding."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import BertWordPieceTokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from negexp.corpus import SPLITS, Corpus
from negexp.shared import Latest

log = logging.getLogger("negexp")

Ints = NDArray[np.int64]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TokenTable:
    """Token sequences as one ragged array, each distinct sequence once.

    Attributes
    ----------
    row : (texts,) row of each text's sequence; texts that are equal after truncation share a row, so their embeddings
        are bit-identical.
    lengths : (rows,) tokens of each sequence.
    pad_id : the token that pads shorter sequences.

    >>> table = TokenTable([[7, 8, 9], [5], [7, 8, 9]], pad_id=0)
    >>> table.row
    array([0, 1, 0])
    >>> ids, mask = table.pad(np.array([0, 1]))
    >>> ids.tolist(), mask.tolist()
    ([[7, 8, 9], [5, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    """

    def __init__(self, sequences: Sequence[Sequence[int]], pad_id: int) -> None:
        rows: dict[tuple[int, ...], int] = {}
        self.row: Ints = np.array([rows.setdefault(tuple(s), len(rows)) for s in sequences], dtype=np.int64)
        self.lengths: Ints = np.array([len(s) for s in rows], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._tokens = np.fromiter((token for s in rows for token in s), dtype=np.int32, count=int(self.lengths.sum()))
        self.pad_id = pad_id
        for array in (self.row, self.lengths, self._starts, self._tokens):
            array.setflags(write=False)  # jobs of a sweep share the table

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self, rows: Ints, tokens_per_batch: int) -> Iterator[NDArray[np.intp]]:
        """Yield positions in `rows`, longest sequences first, in batches of at most `tokens_per_batch` padded tokens.

        The longest batch comes first, so that a batch that does not fit into memory fails at once.
        """
        order = np.argsort(-self.lengths[rows], kind="stable")
        start = 0
        while start < len(order):
            longest = int(self.lengths[rows[order[start]]])
            size = max(1, tokens_per_batch // longest)
            yield order[start : start + size]
            start += size

    def digests(self, rows: Ints) -> list[bytes]:
        """Return the SHA-256 of each of some rows."""
        starts, stops = self._starts[rows], self._starts[rows] + self.lengths[rows]
        bounds = zip(starts.tolist(), stops.tolist(), strict=True)
        return [hashlib.sha256(self._tokens[start:stop].tobytes()).digest() for start, stop in bounds]

    def indistinguishable(self, texts: Ints, identity: Ints) -> Ints:
        """Return those of the texts (texts,) that have the same tokens as a text with another identity (texts,)."""
        classes = np.unique(np.stack([self.row[texts], identity]), axis=1)[0]  # each row once per identity
        row, count = np.unique(classes, return_counts=True)
        return texts[np.isin(self.row[texts], row[count > 1])]

    def pad(self, rows: Ints) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask (rows, longest), int64."""
        lengths = self.lengths[rows]
        columns = np.arange(int(lengths.max()))
        mask = columns < lengths[:, None]
        source = np.minimum(self._starts[rows][:, None] + columns, len(self._tokens) - 1)
        ids = np.where(mask, self._tokens[source], self.pad_id).astype(np.int64)
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


_tables: Latest[TokenTable] = Latest(2)
_vocabularies: Latest[dict[str, int]] = Latest(2)


def tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenTable:
    """Tokenise texts, each cut to `max_length` tokens including special tokens."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
    return TokenTable(encoded["input_ids"], padding_id(tokenizer))


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token id that pads shorter texts of a batch; 0 if the tokenizer has none."""
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def tokenize_corpus(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, max_length: int, splits: Sequence[str] = SPLITS
) -> TokenTable:
    """Tokenise all texts of a corpus; warn about texts in the given splits with equal tokens that are not copies.

    The same table is returned again for the same texts, tokenizer and length.
    """
    key = corpus.texts, _described(tokenizer), max_length
    tokens = _tables.get(key, lambda: tokenize(corpus.texts, tokenizer, max_length))
    tokenize(corpus.texts[:1], tokenizer, max_length)  # a tokenizer keeps its limit, and a run saves it
    texts = np.unique(np.concatenate([corpus[split].texts() for split in splits]))
    same = tokens.indistinguishable(texts, corpus[splits[0]].identify(texts))
    if len(same):
        cut = int((tokens.lengths[tokens.row[same]] >= max_length).sum())
        reasons = [f"{cut} are cut to model.max_length={max_length}; raise it"] if cut else []
        reasons += [f"{len(same) - cut} differ in what the tokenizer drops"] if cut < len(same) else []
        log.warning(
            f"{len(same)} texts have the same tokens as another text that is not a copy (data.match={corpus.match}). "
            f"The encoder cannot tell them apart, and they are neither merged nor dropped: {', '.join(reasons)}"
        )
    return tokens


def _described(tokenizer: PreTrainedTokenizerBase) -> Hashable:
    """Return all that decides a tokenizer's output; of one that is no `tokenizers.Tokenizer`, the object itself."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return tokenizer
    own = type(tokenizer).__qualname__, tokenizer.truncation_side, tokenizer.split_special_tokens
    return *own, padding_id(tokenizer), tokenizer.backend_tokenizer.to_str()


def train_vocabulary(texts: Sequence[str], size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Train a lower-casing WordPiece vocabulary (as BERT's; Devlin et al. 2019) on the given texts.

    The same texts give the same vocabulary. The library does not guarantee that: it numbers the characters in the order
    of a hash map, which differs between processes, and breaks ties between merges by these numbers. So the characters
    are passed as special tokens, which fixes their numbers. In the returned tokenizer they are not special.
    """
    vocabulary = _vocabularies.get((tuple(texts), size), lambda: _vocabulary(texts, size))
    return PreTrainedTokenizerFast(
        tokenizer_object=BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)._tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _vocabulary(texts: Sequence[str], size: int) -> dict[str, int]:
    trained = BertWordPieceTokenizer(lowercase=True)
    alphabet = sorted({c for text in texts for c in trained.normalize(text) if not c.isspace()})
    numbered = [*SPECIAL_TOKENS, *alphabet, *(f"##{character}" for character in alphabet)]
    trained.train_from_iterator(
        texts, vocab_size=max(size, len(numbered)), min_frequency=2, special_tokens=numbered, show_progress=False
    )
    vocabulary: dict[str, int] = trained.get_vocab()
    return vocabulary
