"""Progress on stderr: a bar in a terminal, and a plain line now and then in a file or a pipe."""

import math
import os
import sys
import time
from types import TracebackType
from typing import Any, Self

EVERY = 30.0  # seconds between two plain lines
# Bars of datasets, and of huggingface_hub and transformers
SILENT = ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS")


def is_terminal() -> bool:
    """Whether stderr is a terminal, in which a bar can be redrawn."""
    return sys.stderr.isatty()


def silence_libraries() -> None:
    """Leave out the bars of other libraries where stderr is no terminal; before they are imported."""
    if not is_terminal():
        for name in SILENT:
            os.environ.setdefault(name, "1")


def say(line: str) -> None:
    """Print a line on stderr, above the bar if there is one."""
    if is_terminal():
        from tqdm.auto import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def show_progress(
    total: int | None, desc: str | None, unit: str, *, initial: int = 0, disable: bool = False, leave: bool = False
) -> Any:
    """A context manager with update(n) and set_postfix(**values); leave keeps the bar when it is full."""
    if disable or is_terminal():
        from tqdm.auto import tqdm

        large = unit == "tok"
        return tqdm(
            total=total, desc=desc, unit=unit, initial=initial, disable=disable, leave=leave, dynamic_ncols=True,
            unit_scale=large,
        )  # fmt: skip
    return PlainProgress(total, desc or "", unit, initial)


class PlainProgress:
    """Counts, and prints where it is every half minute."""

    def __init__(self, total: int | None, desc: str, unit: str, initial: int = 0) -> None:
        self.total, self.desc, self.unit, self.n = total, desc, unit, initial
        self.first, self.began = initial, time.monotonic()
        self.printed, self.values = self.began, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_postfix(self, **values: Any) -> None:
        """Values for the next line."""
        self.values = "".join(f", {name} {value}" for name, value in values.items())

    def update(self, n: int = 1) -> None:
        """Count, and print a line if it is time."""
        self.n += n
        now = time.monotonic()
        if now - self.printed >= EVERY:
            self.printed = now
            print(self.line(now - self.began), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """Where it is after these seconds.

        >>> PlainProgress(400, "sst2", "update").line(9)
        'sst2: 0/400 update'
        """
        of = "" if self.total is None else f"/{self.total}"
        done = self.n - self.first
        left = f", {duration(seconds / done * (self.total - self.n))} left" if self.total and done else ""
        return f"{self.desc}: {self.n}{of} {self.unit}{self.values}{left}"

    def close(self) -> None:
        """Nothing is left to do."""


def duration(seconds: float) -> str:
    """A time for a reader.

    >>> duration(41.6), duration(700), duration(8000)
    ('42 s', '12 min', '2 h 14 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(value: float | None) -> str:
    """A score times 100."""
    return "undefined" if value is None or not math.isfinite(value) else f"{100 * value:.2f}"


def epoch_line(
    epoch: int, n_epochs: int, scores: dict[str, dict[str, float]], losses: dict[str, float], best: str
) -> str:
    """What an epoch has found, in one line; epoch counts from 1.

    >>> epoch_line(2, 3, {"validation": {"accuracy": 0.85}}, {"task loss": 0.51234}, "best so far")
    'epoch 2/3: validation accuracy 85.00 (best so far); train task loss 0.5123'
    """
    found = ", ".join(
        f"{split} {' '.join(f'{metric} {percent(value)}' for metric, value in each.items())}"
        for split, each in scores.items()
    )
    return f"epoch {epoch}/{n_epochs}: {found} ({best}); train " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items())


def start_line(what: str, accelerator: Any, rows: str) -> str:
    """What a run is about to do and on what: device, threads or processes, precision and rows."""
    import torch

    device = accelerator.device
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        n = torch.get_num_threads()
        where = f"{device.type.upper()}, {n} thread{'s' if n > 1 else ''}"
    n = accelerator.num_processes
    processes = f" · {n} processes" if n > 1 else ""
    precision = {"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    return f"{what} · {where}{processes} · {precision} · {rows}"
