"""Several processes, on torch.distributed: gloo for tensors on CPUs, nccl for those on GPUs.

What goes between processes is tensors, JSON and the bytes of files, never a pickle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from negexp.errors import InputError
from negexp.world import Elsewhere, LostProcessError, ToldError, Value, World

BUCKET_BYTES = 25 * 2**20  # of gradients that are exchanged together, as in torch's DistributedDataParallel


def connect() -> World:
    """Meet the other processes, by the variables of torchrun."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"WORLD_SIZE={os.environ.get('WORLD_SIZE')}: the processes cannot meet ({reason}); start them with torchrun"
        ) from None
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    return Processes(dist.get_rank(), dist.get_world_size(), local)


class Processes(World):
    """One of several processes."""

    def __init__(self, rank: int, size: int, local_rank: int) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    def gather(self, part: Tensor) -> list[Tensor]:
        """Return the tensors of all processes. They go through one buffer, as long as the longest of them."""
        rows = torch.tensor([len(part)])
        all_rows = [torch.empty_like(rows) for _ in range(self.size)]
        with _reaching_all():
            dist.all_gather(all_rows, rows)
        counts = [int(count) for count in all_rows]
        padded = part.new_zeros(max(counts), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in counts]
        if padded.numel():
            with _reaching_all():
                dist.all_gather(parts, padded)
        return [one[:count] for one, count in zip(parts, counts, strict=True)]

    def gather_rows(self, part: Tensor) -> Tensor:
        """Return the rows of all processes, with gradients for those of this one."""
        rows: Tensor = _Gathered.apply(part, self)  # type: ignore[no-untyped-call]
        return rows

    def order(self, place: Tensor) -> Tensor:
        """Return the order of all processes' rows."""
        return torch.cat(self.gather(place)).argsort()

    def fill(self, rows: Tensor, computed: Tensor) -> None:
        """Copy the other processes' rows into `rows`."""
        parts = zip(self.gather(computed), self.gather(rows[computed]), strict=True)
        for rank, (places, part) in enumerate(parts):
            if rank != self.rank:
                rows[places] = part

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return the bytes of all processes."""
        return [part.numpy().tobytes() for part in self.gather(_as_tensor(data))]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients, in buckets."""
        all_parameters = [parameter for parameter in parameters if parameter.requires_grad]
        has = torch.tensor([parameter.grad is not None for parameter in all_parameters], dtype=torch.uint8)
        with _reaching_all():
            dist.all_reduce(has, dist.ReduceOp.MAX)
        gradients = []
        for parameter, somewhere in zip(all_parameters, has.tolist(), strict=True):
            if somewhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            with _reaching_all():
                dist.all_reduce(flat)
            flat /= self.size
            for gradient, mean in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def tell(self, value: Any) -> Any:
        """Return the main process's value."""
        return json.loads(self._from_main(json.dumps(value).encode() if self.main else b""))

    def largest(self, number: int) -> int:
        """Return the largest number."""
        found = torch.tensor([number])
        with _reaching_all():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def together(self, work: Callable[[], Value]) -> Value:
        """Do the work, then exchange what was wrong; the main process reports it."""
        value: Value | None = None
        try:
            value, wrong = work(), ""
        except InputError as error:
            wrong = str(error)
        everywhere = [message.decode() for message in self.gather_bytes(wrong.encode())]
        first = next((rank for rank, message in enumerate(everywhere) if message), None)
        if first is not None:
            message = f"process {first}: " * (first > 0) + everywhere[first]
            raise InputError(message) if self.main else ToldError(message)
        return value  # type: ignore[return-value]  # the work has returned it

    def on_main(self, work: Callable[[], Any]) -> Any:
        """Do the work in the main process, and tell its value or what was wrong."""
        return self.tell(self.together(lambda: work() if self.main else None))

    def copy(self, folder: Path) -> None:
        """Send the files of a folder one after the other."""
        files = folder.iterdir() if self.main and folder.is_dir() else []
        names = self.tell(sorted(file.name for file in files if file.is_file()))
        if not self.main:
            folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            data = self._from_main((folder / name).read_bytes() if self.main else b"")
            if not self.main:
                (folder / Path(name).name).write_bytes(data)

    def own_folder(self, folder: Path) -> Path:
        """Return the given folder in the main process, elsewhere a temporary one."""
        return folder if self.main else Elsewhere.path()

    def _from_main(self, data: bytes) -> bytes:
        size = torch.tensor([len(data)])
        with _reaching_all():
            dist.broadcast(size, 0)
        found = _as_tensor(data) if self.main else torch.empty(int(size), dtype=torch.uint8)
        if len(found):
            with _reaching_all():
                dist.broadcast(found, 0)
        return found.numpy().tobytes()


class _Gathered(torch.autograd.Function):
    """The rows of all processes; see `World.gather_rows`."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, world: Processes) -> Tensor:
        parts = world.gather(part.detach())
        first = sum(len(one) for one in parts[: world.rank])
        ctx.rows, ctx.size = slice(first, first + len(part)), world.size
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.rows] * ctx.size, None


@contextmanager
def _reaching_all() -> Iterator[None]:
    """Surround a single exchange: other errors than its own would be taken for a lost process."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostProcessError(
            "another process of this run has ended, so this one ends too; the same command goes on "
            f"({str(error).strip().splitlines()[0]})"
        ) from None


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield gradients of one device and type that fill a bucket together."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        size = sum(one.numel() * one.element_size() for one in [*bucket, gradient])
        if bucket and (size > BUCKET_BYTES or (gradient.dtype, gradient.device) != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
