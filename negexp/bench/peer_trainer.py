"""sentence-transformers' trainer, used as its documentation says. The extra `trainer` installs what it needs."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from negexp.bench.setting import Setting
from negexp.modules import source_of

Ints = NDArray[np.int64]
NEEDED = ("accelerate", "datasets", "sentence_transformers")
NOT_INSTALLED = "is not installed: pip install '.[trainer]'"
SCALE = 20.0  # of MultipleNegativesRankingLoss, its default: 1 / temperature


def missing_library() -> str | None:
    """Return the name of a library that the trainer needs and that is not installed, if there is one."""
    return next((name.replace("_", "-") for name in NEEDED if source_of(name) is None), None)


def train_with_sentence_transformers(
    setting: Setting, model: Any, columns: dict[str, list[str]], batches: Sequence[Ints], bfloat16: bool
) -> float:
    """Train a copy of a SentenceTransformer for one epoch with MultipleNegativesRankingLoss.

    columns: anchor, positive and perhaps negative, the texts of all rows. batches: the rows of each batch. Every option
    that the configuration's `trainer` section also has gets its value. Returns the mean of the batches' losses.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model, trainer, device = copy.deepcopy(model), setting.config.trainer, setting.runtime.device
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="negexp-bench-"))
        for redirect in (redirect_stdout, redirect_stderr):  # lines and bars of its own
            stack.enter_context(redirect(StringIO()))
        arguments = SentenceTransformerTrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=max(map(len, batches)),
            batch_sampler=lambda dataset, **_: _fixed_batches(dataset, batches),
            learning_rate=trainer.lr,
            weight_decay=trainer.weight_decay,
            lr_scheduler_type="constant",
            max_grad_norm=trainer.gradient_clip or 0.0,  # 0: no limit
            bf16=bfloat16,
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type == "cuda",
            seed=setting.config.seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        rows = Dataset.from_dict(columns)
        loss = MultipleNegativesRankingLoss(model, scale=SCALE)
        run = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss)
        trained: float = run.train().training_loss
        return trained


def _fixed_batches(dataset: Any, batches: Sequence[Ints]) -> Any:
    """Return a batch sampler that yields the given batches."""
    from sentence_transformers.base.sampler import DefaultBatchSampler

    class FixedBatches(DefaultBatchSampler):
        def __iter__(self) -> Iterator[list[int]]:
            return (batch.tolist() for batch in batches)

        def __len__(self) -> int:
            return len(batches)

    return FixedBatches(dataset, batch_size=max(map(len, batches)), drop_last=False)
