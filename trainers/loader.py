"""A split's batches on the device that computes them, made in the background where that is a GPU."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from heads.collate import on_device
from trainers.data.batches import Place


class Source(Protocol):
    """What makes a batch of tensors of the examples at (index, weight) places."""

    def batch(self, places: Sequence[Place], pad_id: int) -> Any:
        """The batch, in the processor's memory."""
        ...


class Loader:
    """Batches by their places; those that are announced to a background thread are made, and pinned, before their turn.

    A thread and no worker processes: rows are in memory-mapped tables and files, which need not be copied or opened
    anew, collation is a few NumPy calls for each row, and the main thread waits for the GPU meanwhile.
    """

    def __init__(self, source: Source, pad_id: int, device: torch.device, background: bool | None = None) -> None:
        self.source, self.pad_id, self.device = source, pad_id, device
        self.pinned = device.type == "cuda"
        self.pool: ThreadPoolExecutor | None = None
        if self.pinned if background is None else background:
            choose: dict[str, Any] = {
                "initializer": torch.cuda.set_device,
                "initargs": (device,),
            }  # a thread has its own
            self.pool = ThreadPoolExecutor(1, "batches", **(choose if self.pinned else {}))
        self.coming: deque[tuple[list[Place], Future[Any]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()
        if self.pool is not None:
            self.pool.shutdown()

    def announce(self, batches: Sequence[list[Place]]) -> None:
        """Say which batches are next, in their order; what was announced otherwise before is forgotten."""
        if self.pool is None:
            return
        if any(places != other for (places, _), other in zip(self.coming, batches, strict=False)):
            self._forget()
        for places in batches[len(self.coming) :]:
            self.coming.append((places, self.pool.submit(self._make, places)))

    def __call__(self, places: list[Place]) -> Any:
        """The batch of these places; what went wrong in the background is raised here."""
        if self.coming and self.coming[0][0] == places:
            batch = self.coming.popleft()[1].result()
        else:
            self._forget()
            batch = self._make(places)
        return on_device(batch, self.device, non_blocking=self.pinned)

    def _make(self, places: list[Place]) -> Any:
        batch = self.source.batch(places, self.pad_id)
        if not self.pinned:
            return batch
        return type(batch)(*(one.pin_memory() if isinstance(one, torch.Tensor) else one for one in batch))

    def _forget(self) -> None:
        for _, future in self.coming:
            future.cancel()
        self.coming.clear()
