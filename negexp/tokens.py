"""Tokenise every text once per run; batches come out sorted by length and barely padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import BertWordPieceTokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Ints = NDArray[np.int64]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TokenTable:
    """Token sequences as one ragged array, each distinct sequence once.

    Attributes
    ----------
    row : (texts,) row of each text's sequence; texts that are equal after truncation share a row, so they also
        share an embedding to the bit.
    lengths : (rows,) tokens of each sequence.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], pad_id: int) -> None:
        rows: dict[tuple[int, ...], int] = {}
        self.row: Ints = np.array([rows.setdefault(tuple(s), len(rows)) for s in sequences], dtype=np.int64)
        self.lengths: Ints = np.array([len(s) for s in rows], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._tokens = np.fromiter((token for s in rows for token in s), dtype=np.int32, count=int(self.lengths.sum()))
        self._pad_id = pad_id

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self, rows: Ints, tokens_per_batch: int) -> Iterator[NDArray[np.intp]]:
        """Yield positions in `rows`, longest sequences first, in batches of at most so many tokens after padding.

        The longest batch comes first, so that a batch that does not fit into memory fails at once.
        """
        order = np.argsort(-self.lengths[rows], kind="stable")
        start = 0
        while start < len(order):
            longest = int(self.lengths[rows[order[start]]])
            size = max(1, tokens_per_batch // longest)
            yield order[start : start + size]
            start += size

    def pad(self, rows: Ints) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask (rows, longest of them), int64."""
        lengths = self.lengths[rows]
        columns = np.arange(int(lengths.max()))
        mask = columns < lengths[:, None]
        source = np.minimum(self._starts[rows][:, None] + columns, len(self._tokens) - 1)
        ids = np.where(mask, self._tokens[source], self._pad_id).astype(np.int64)
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenTable:
    """Tokenise texts, each cut to `max_length` tokens with the special ones."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
    return TokenTable(encoded["input_ids"], padding_id(tokenizer))


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token id that fills up shorter texts of a batch; 0 where the tokenizer names none."""
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def train_vocabulary(texts: Sequence[str], size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Train a lower-casing WordPiece vocabulary (as BERT's; Devlin et al. 2019) on the given texts.

    The same texts give the same vocabulary. The library alone does not promise that: it numbers the characters in the
    order of a hash map that differs from process to process, and breaks ties between merges by those numbers. So the
    characters are numbered first, as special tokens, and are special no more in the tokenizer that is returned.
    """
    trained = BertWordPieceTokenizer(lowercase=True)
    alphabet = sorted({c for text in texts for c in trained.normalize(text) if not c.isspace()})
    numbered = [*SPECIAL_TOKENS, *alphabet, *(f"##{character}" for character in alphabet)]
    trained.train_from_iterator(
        texts, vocab_size=max(size, len(numbered)), min_frequency=2, special_tokens=numbered, show_progress=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=BertWordPieceTokenizer(vocab=trained.get_vocab(), lowercase=True)._tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
