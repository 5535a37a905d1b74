"""The arguments of the training pairs, with what is known of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from negexp.corpus import Split
from negexp.corpus.argument_numbers import ArgumentNumbers

Ints = NDArray[np.int64]

ORIGINS = ("elsewhere", "theme", "debate")  # by code, see `Arguments.origin`


class Arguments(ArgumentNumbers):
    """The 2n arguments of n training pairs, each known by one number.

    Attributes
    ----------
    text : (2n,) row of each argument's text in `Corpus.texts`.
    identity : (2n,) the same number for copies of a text, see `Split.identity`.
    theme, debate, stance : (2n,) codes, or None where the corpus has none.
    """

    def __init__(self, split: Split) -> None:
        super().__init__(len(split))
        self.text: Ints = np.concatenate([split.point, split.counter])
        self.identity: Ints = np.concatenate([split.point_identity, split.counter_identity])
        self.theme, self.debate, self.stance = (
            None if codes is None else np.tile(codes, 2) for codes in (split.theme, split.debate, split.stance)
        )

    def origin(self, pair: Ints, argument: Ints) -> Ints:
        """Return where each argument comes from, as a place in `ORIGINS`; `pair` and `argument` are broadcast.

        `debate`: the pair's debate. `theme`: the pair's theme, but another debate. `elsewhere`: neither of them.
        """
        origin = np.zeros(np.broadcast(pair, argument).shape, dtype=np.int64)
        for code, codes in enumerate((self.theme, self.debate), start=1):
            if codes is not None:
                origin[codes[pair] == codes[argument]] = code
        return origin
