"""Fast paths: packed texts, attention, and on a CPU dropout. One call puts them into an encoder of transformers.

The rest of the model does not depend on them, nor they on it. `README.md` beside this file describes them, the encoders
that they support, and how much results differ.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from negexp.model.fused.dropout import replace_dropout
from negexp.model.fused.packing import can_pack, pack_texts

__all__ = ["fuse"]


def fuse(encoder: PreTrainedModel) -> None:
    """Give an encoder the fast paths. Callers need no change; where none fits, the encoder computes as before.

    Every encoder gets negexp's dropout. Encoders that support packed texts get packing and negexp's attention as well.
    """
    replace_dropout(encoder)
    if can_pack(encoder.config):
        pack_texts(encoder)
