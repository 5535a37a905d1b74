"""The encoder of a run: texts to embeddings, as the run computes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from negexp.config.sections import check_device
from negexp.embedding import TextEncoder
from negexp.errors import InputError
from negexp.model import BuiltModel, Role, quiet_transformers
from negexp.runtime import Runtime, choose_runtime, explain_out_of_memory, reproducible
from negexp.tokens import tokenize
from negexp.tracking.stored_run import StoredRun
from negexp.training import TrainedRun


@dataclass(frozen=True)
class Encoder:
    """An encoder with its tokenizer, on a device.

    epoch: the epoch of its weights. max_length: tokens of a text that it reads. Of two texts, the nearer one by
    Euclidean distance is the better candidate; embeddings of length 1 have the same order by cosine.
    """

    built: BuiltModel
    runtime: Runtime
    max_length: int
    epoch: int

    @classmethod
    def of_run(cls, run: StoredRun, device: str = "auto") -> Encoder:
        """Return the encoder of a run with the weights of its best epoch; `device` as in `trainer.device`."""
        quiet_transformers()
        check_device("device", device)
        trained, trainer = TrainedRun.read(run.folder), run.config.trainer
        runtime = choose_runtime(device, trainer.precision, None, trainer.threads, key="")
        built = trained.model(trainer.fused)
        built.model.to(runtime.device)
        return cls(built, runtime, trained.config.model.max_length, int(trained.commit.value("epoch")))

    @property
    def roles_differ(self) -> bool:
        """Return whether a text has another embedding as a query than as a candidate.

        It has with `model.shared_encoder=false` (two encoders) and with `model.query_head=residual`.
        """
        return not self.built.model.shared or self.built.model.query_head is not None

    @property
    def dimensions(self) -> int:
        """Return the size of an embedding."""
        return self.built.model.tower("candidate").retrieval_size

    def embed(self, texts: Iterable[str], role: Role | None = None) -> NDArray[np.float32]:
        """Return the retrieval embeddings (texts, dimensions) of texts, in their order.

        Parameters
        ----------
        texts
            Any iterable of texts but a single one: a list, a column of a DataFrame.
        role
            `query` (a point) or `candidate` (a counter, or any text that is searched). It may be left out where both
            embeddings are the same.

        Raises
        ------
        InputError
            When something is not a text, or when the role is missing where it matters.
        """
        chosen, listed = self._role(role), _texts(texts)
        if not listed:
            return np.empty((0, self.dimensions), dtype=np.float32)
        rows = np.arange(len(listed))
        tokens = tokenize(listed, self.built.tokenizer, self.max_length)
        with reproducible(self.runtime, deterministic=True), explain_out_of_memory("the number of texts"):
            vectors = TextEncoder(self.built.model, tokens, self.runtime).embed_as(chosen, rows, "texts")
        retrieval: NDArray[np.float32] = vectors.retrieval.cpu().numpy()
        return retrieval

    def __repr__(self) -> str:
        """Return the encoder in one line, as a notebook shows it."""
        roles = "queries and candidates differ" if self.roles_differ else "the same for queries and candidates"
        return f"<encoder of epoch {self.epoch}: {self.dimensions} dimensions, {roles}; {self.runtime.describe()}>"

    def _role(self, role: str | None) -> Role:
        choices: tuple[Role, ...] = get_args(Role)
        for choice in choices:
            if role == choice:
                return choice
        if role is not None:
            raise InputError(f"role={role}: no such role; choose from {', '.join(choices)}")
        if self.roles_differ:
            raise InputError(
                "role: must be given, because this run embeds queries and candidates differently; role='query' for "
                "points, role='candidate' for counters and all texts that are searched"
            )
        return "candidate"


def _texts(texts: Iterable[str]) -> list[str]:
    """Return the texts as a list, or raise `InputError` where something is no text."""
    if isinstance(texts, str):
        raise InputError("texts: is a single text; give a list, as in embed([text])")
    listed = list(texts)
    for number, text in enumerate(listed):
        if not isinstance(text, str):
            raise InputError(f"texts[{number}]={text!r:.40}: is no text, but {type(text).__name__}; leave it out")
    return listed
