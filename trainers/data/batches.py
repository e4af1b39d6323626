"""Which examples share an update, a micro-batch and a batch of evaluation.

The order of the data is a function of (seed, epoch, lengths) alone. How an update is then dealt to processes and cut
into micro-batches changes the speed and no number: every example keeps its weight.
"""

from collections.abc import Sequence

import numpy as np

# Examples in a window of this many batches are sorted by length: wide enough that a batch is of like length, narrow
# enough that an epoch stays shuffled.
WINDOW = 50

# Of a batch of evaluation: computing pads costs more than another, smaller batch.
MOST_PADDING = 0.1

# Tokens of a packed row: in more, on a CPU, each takes longer, since what is computed leaves the processor's caches.
PACKED_TOKENS = 2048

Numbers = Sequence[int] | np.ndarray
Place = tuple[int, float]  # an example's index and its weight: 0 where it only fills a place


def epoch_updates(lengths: Numbers, batch_size: int, *, seed: int, epoch: int, group: bool) -> list[np.ndarray]:
    """The examples of each update of an epoch; every example once, the last update possibly smaller.

    With group, a shuffled epoch is cut into windows of WINDOW batches, each sorted by length and cut into batches,
    which are then shuffled; the smaller batch, where there is one, stays last.

    >>> [update.tolist() for update in epoch_updates([3, 1, 2, 9, 8], 2, seed=0, epoch=0, group=True)]
    [[3, 4], [0, 2], [1]]
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    if not group:
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    sizes = np.asarray(lengths)
    batches = []
    n_full = len(order) // batch_size * batch_size
    for first in range(0, n_full, WINDOW * batch_size):
        window = order[first : min(first + WINDOW * batch_size, n_full)]
        window = window[np.argsort(-sizes[window], kind="stable")]
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    shuffled = [batches[i] for i in rng.permutation(len(batches))]
    return [*shuffled, order[n_full:]] if n_full < len(order) else shuffled


def deal(update: Numbers, lengths: Numbers, *, rank: int, world: int, micro: int) -> list[list[Place]]:
    """One process's micro-batches of an update: every process has as many, so that all stay in step.

    Examples go round by length, so that each process has like work. A place that is left over is filled by a copy of
    an example with weight 0.

    >>> deal([7, 8, 9], [0] * 10, rank=1, world=2, micro=1)
    [[(8, 1.0)], [(7, 0.0)]]
    """
    ordered = sorted(update, key=lambda i: -lengths[i])
    share: list[Place] = [(index, 1.0) for index in ordered[rank::world]]
    share += [(ordered[0], 0.0)] * (-(-len(update) // world) - len(share))
    return [share[i : i + micro] for i in range(0, len(share), micro)]


def evaluation_batches(lengths: Numbers, n_rows: int, max_tokens: int, *, packed: bool = False) -> list[np.ndarray]:
    """Batches for scoring, longest first, of at most max_tokens tokens once padded (one example at the least).

    lengths are of each example's longest row, n_rows its rows. A batch ends, too, where padding would pass MOST_PADDING
    of it. packed says that a batch is one row without padding, of at most PACKED_TOKENS.

    >>> [[batch.tolist() for batch in evaluation_batches([10, 2, 9, 10], 1, most)] for most in (20, 100)]
    [[[0, 3], [2], [1]], [[0, 3, 2], [1]]]
    """
    sizes = np.asarray(lengths) * n_rows
    order = np.argsort(-sizes, kind="stable")
    most = min(max_tokens, PACKED_TOKENS) if packed else max_tokens
    batches: list[np.ndarray] = []
    first = 0
    while first < len(order):
        longest = sizes[order[first]]
        real = sizes[order[first : first + max(1, most // (1 if packed else longest))]].cumsum()
        # what comes is shorter still: never again once it does not fit
        fits = real <= most if packed else real >= (1 - MOST_PADDING) * longest * np.arange(1, len(real) + 1)
        batches.append(order[first : first + max(1, int(fits.sum()))])
        first += len(batches[-1])
    return batches
