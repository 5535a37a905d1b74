"""Where and how tensors are computed: device, precision, determinism, seeds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from negexp.errors import InputError
from negexp.processor import fast_bfloat16

# Padded tokens in one forward call: enough to keep the device busy, few enough that length-sorted batches are tight and
# that a CPU keeps them in its cache. In training every call costs a gradient of all word embeddings as well, so there a
# usual batch is one call.
TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 65536, "mps": 16384}
TOKENS_PER_TRAINING_BATCH = TOKENS_PER_BATCH | {"cpu": 16384}


@dataclass(frozen=True)
class Runtime:
    """The device, whether bfloat16 autocast is on, how many padded tokens go into one forward call, CPU threads.

    tokens_per_batch: when texts are embedded; tokens_per_training_batch: with gradients.
    """

    device: torch.device
    bfloat16: bool
    tokens_per_batch: int
    tokens_per_training_batch: int
    threads: int

    def autocast(self) -> torch.autocast:
        """Return the autocast context of this runtime."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def to_device(self, tensor: Tensor) -> Tensor:
        """Copy to the device; to a GPU from pinned memory, without waiting for the copy."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def synchronize(self) -> None:
        """Wait until a GPU has done what was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def describe(self) -> str:
        """Return device, precision and threads for the log."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        return f"{name}, {'bfloat16 autocast' if self.bfloat16 else 'float32'}, {self.threads} threads"


def choose_runtime(
    device: str, precision: str, tokens_per_batch: int | None, threads: int | None = None, key: str = "trainer."
) -> Runtime:
    """Resolve `auto`: the GPU where there is one; bfloat16 on GPUs that have it and on CPUs with instructions for it.

    Raises
    ------
    InputError
        When the device asked for is not there; `key` is the prefix of the configuration key to name.
    """
    chosen = _device(device, key)
    bfloat16 = precision == "bfloat16" or (precision == "auto" and _has_fast_bfloat16(chosen))
    return Runtime(
        chosen,
        bfloat16,
        tokens_per_batch or TOKENS_PER_BATCH[chosen.type],
        tokens_per_batch or TOKENS_PER_TRAINING_BATCH[chosen.type],
        threads or torch.get_num_threads(),
    )


@contextmanager
def reproducible(runtime: Runtime, deterministic: bool) -> Iterator[None]:
    """Use the runtime's threads, deterministic algorithms and TF32 products within; leave torch's state as it was.

    In a sweep several runs share one process: flags and generator states must not leak from one to the next.
    """
    algorithms = torch.are_deterministic_algorithms_enabled()
    filling: Any = torch.utils.deterministic
    fill = filling.fill_uninitialized_memory
    matmul = torch.get_float32_matmul_precision()
    benchmark = torch.backends.cudnn.benchmark
    threads = torch.get_num_threads()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
    devices = [runtime.device] if runtime.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.set_num_threads(runtime.threads)
        torch.use_deterministic_algorithms(deterministic)
        filling.fill_uninitialized_memory = False  # with NaN, every new tensor: it finds bugs, and takes time
        torch.backends.cudnn.benchmark = False
        if runtime.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(algorithms)
            filling.fill_uninitialized_memory = fill
            torch.backends.cudnn.benchmark = benchmark
            torch.set_float32_matmul_precision(matmul)


@contextmanager
def explain_out_of_memory(keys: str) -> Iterator[None]:
    """Turn running out of memory into one line that names the keys to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(f"out of memory ({str(error).split(chr(10), 1)[0]}); lower {keys}") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # what the CPU allocator raises
            raise
        raise InputError(f"out of memory ({str(error).split(chr(10), 1)[0]}); lower {keys}") from error


def _device(device: str, key: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"{key}device={device}: {torch.cuda.device_count()} GPUs are visible; use auto or cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"{key}device={device}: is not available here; use auto or cpu")
    return chosen


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and fast_bfloat16()
