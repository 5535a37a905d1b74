"""The CPU's fast paths: dropout, attention and packed texts, put into an encoder of transformers by one call.

The rest of the model knows nothing of them, and they know nothing of it. `README.md` beside this file says what they
do, for which encoders, and by how much results differ.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from negexp.model.cpu.dropout import replace_dropout
from negexp.model.cpu.packing import can_pack, pack_texts

__all__ = ["fuse"]


def fuse(encoder: PreTrainedModel) -> None:
    """Give an encoder the CPU's fast paths; it is called as before, and on other devices computes as before.

    Every encoder gets negexp's dropout, and those that can take packed texts get these with negexp's attention.
    """
    replace_dropout(encoder)
    if can_pack(encoder.config):
        pack_texts(encoder)
