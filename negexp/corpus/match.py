"""`data.match`: when two texts are copies of each other."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Default_Ignorable_Code_Point of the Unicode character database: zero-width characters, soft hyphens, direction marks,
# variation selectors. They are invisible.
IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def normalized(text: str) -> str:
    """Return the form in which a text is compared: NFKC, case-folded, no zero-width characters, white space collapsed.

    Two texts have the same form if they are a compatibility caseless match (Unicode Standard, D146), apart from
    zero-width characters and white space.

    >>> normalized(" Na\u00efve\u00a0 \ufb01le")
    'na\u00efve file'
    """
    if text.isascii():  # has nothing to decompose, and no such characters
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()
    return " ".join(unicodedata.normalize("NFKC", IGNORABLE.sub("", folded)).split())


def identities(texts: Iterable[str], match: str, known: Iterable[str] = ()) -> NDArray[np.int64]:
    """Return a number for each text (texts,) by first occurrence, the same for copies. `known` is numbered first."""
    numbers: dict[str, int] = {}

    def number(text: str) -> int:
        return numbers.setdefault(normalized(text) if match == "normalized" else text, len(numbers))

    for text in known:
        number(text)
    return np.array([number(text) for text in texts], dtype=np.int64)
