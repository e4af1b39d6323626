"""What the benchmarks measure with: the most memory that a process takes, and the median of rounds with their range."""

import statistics
import threading
from collections.abc import Sequence
from pathlib import Path

MIB = 2**20


class Peak:
    """The most memory of the process's own (not of files that it has mapped), looked at every 2 ms, in MiB.

    On a GPU it is what PyTorch has allocated there.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.cuda = device == "cuda"

    def __enter__(self) -> "Peak":
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self.before = self.most = self._now()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        if self.cuda:
            import torch

            self.most = torch.cuda.max_memory_allocated() / MIB

    @property
    def grown(self) -> float:
        return self.most - self.before

    def _watch(self) -> None:
        while not self.done.wait(0.002):
            self.most = max(self.most, self._now())

    def _now(self) -> float:
        if self.cuda:
            import torch

            return torch.cuda.memory_allocated() / MIB
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and in brackets the range where there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"
