"""Where and how tensors are computed: device, precision, threads, determinism."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from negexp.errors import InputError
from negexp.processor import fast_bfloat16
from negexp.world import World, current

# Padded tokens in one forward call. Many keep the device busy; few keep padding low and the batch in a CPU's cache. In
# training, every call also computes a gradient of all word embeddings, so a batch of usual size should be one call.
TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 65536, "mps": 16384}
TOKENS_PER_TRAINING_BATCH = TOKENS_PER_BATCH | {"cpu": 16384}


@dataclass(frozen=True)
class Runtime:
    """The device, the precision, the number of CPU threads, the size of forward calls, and the processes of the run.

    tokens_per_batch: padded tokens in a forward call without gradients; tokens_per_training_batch: with gradients.
    """

    device: torch.device
    bfloat16: bool
    tokens_per_batch: int
    tokens_per_training_batch: int
    threads: int
    world: World = field(default_factory=current)

    def autocast(self) -> torch.autocast:
        """Return the autocast context of this runtime."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def to_device(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device. To a GPU, the copy runs from pinned memory in the background."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def synchronize(self) -> None:
        """Wait until a GPU has finished its queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def describe(self) -> str:
        """Return device, precision and threads for the log."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        processes = f", {self.world.size} processes" if self.world.size > 1 else ""
        return f"{name}, {'bfloat16 autocast' if self.bfloat16 else 'float32'}, {self.threads} threads{processes}"


def choose_runtime(
    device: str, precision: str, tokens_per_batch: int | None, threads: int | None = None, key: str = "trainer."
) -> Runtime:
    """Return the runtime. `auto` means a GPU if there is one, and bfloat16 if the device has instructions for it.

    Raises
    ------
    InputError
        When the requested device does not exist; `key` is the prefix of the configuration key in the message.
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
    """Set threads, deterministic algorithms and TF32 products for a block; then restore torch's state.

    In a sweep, several runs share a process: flags and generator states must not leak from one run to the next.
    """
    algorithms = torch.are_deterministic_algorithms_enabled()
    filling: Any = torch.utils.deterministic
    fill = filling.fill_uninitialized_memory
    matmul = torch.get_float32_matmul_precision()
    benchmark = torch.backends.cudnn.benchmark
    threads = torch.get_num_threads()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it before its first use
    devices = [runtime.device] if runtime.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.set_num_threads(runtime.threads)
        torch.use_deterministic_algorithms(deterministic)
        filling.fill_uninitialized_memory = False  # filling every new tensor with NaN finds bugs, but takes time
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
    """Raise `InputError` with the keys to lower when memory runs out."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(f"out of memory ({str(error).split(chr(10), 1)[0]}); lower {keys}") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # the message of the CPU allocator
            raise
        raise InputError(f"out of memory ({str(error).split(chr(10), 1)[0]}); lower {keys}") from error


def _device(device: str, key: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            _check_gpus(f"{key}device={device}")
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"{key}device={device}: {torch.cuda.device_count()} GPUs are visible; use auto or cpu")
    if chosen.type == "cuda":
        _check_gpus(f"{key}device={device}")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"{key}device={device}: not available on this machine; use auto or cpu")
    return chosen


def _check_gpus(setting: str) -> None:
    """Raise `InputError` when processes would share a GPU, which nccl does not allow."""
    world = current()
    if world.size == 1:
        return
    own = f"{socket.gethostname()} {torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    everywhere = world.gather_bytes(own.encode())
    processes, gpus = len(everywhere), len(set(everywhere))
    if processes > gpus:
        raise InputError(
            f"{setting}: {processes} processes need a GPU each, and have {gpus}; start {gpus} (trainer.processes), or "
            "set trainer.device=cpu"
        )


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and fast_bfloat16()
