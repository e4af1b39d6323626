"""Log-probabilities of candidates under a language model: what is needed is computed, and nothing else.

Logits are computed for the states that are read. A causal model's candidates share their prefix: in one row with
a tree mask where the model takes one, else by a key-value cache; the scores are those of separate rows.
"""

# B examples, C candidates, N items, R log-probabilities

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from heads.candidates import (
    Candidates,
    Masked,
    masked_rows,
    packed_prefixes,
    prefix_then_branches,
    separate_rows,
    share_prefix,
    tree_rows,
)
from heads.errors import InputError
from heads.tree import split_common
from trainers.backbones.packed_causal import keep_start
from trainers.backbones.packed_row import group_lengths
from trainers.backbones.tree import REFUSALS, takes_trees, window
from trainers.data.batches import evaluation_batches
from trainers.progress import show_progress
from trainers.zero_shot.forward import Forward

WORTH = 256  # tokens: about what it costs to ask a model whether it takes something

PROBE = ([1, 2, 3, 4, 5], [1, 2, 3, 6])  # prefixes that a model is asked with

# The sums of two ways of computing agree to this, in nats: float32 rounding, or that of half precision.
AGREE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}

Item = Candidates | Masked


class Scorer:
    """A language model that reads candidates' log-probabilities.

    layout is how a causal model's candidates share their prefix (tree, cache, separate); auto takes the first of these
    that agrees with separate rows on this very model. Where all that is scored of them is one token each, their prefix
    is all that the model reads (prefix), on a CPU all prefixes in one row without padding (packed), where that agrees,
    unless separate rows are asked for. side is where rows are padded; it changes no score. layouts has the ways that
    were taken, masked among them.

    Raises:
        InputError: the layout that is named does not agree.
    """

    def __init__(self, model: Any, pad_id: int, *, layout: str = "auto", side: Any = "right") -> None:
        self.model, self.pad_id, self.side = model, pad_id, side
        self.forward = Forward(model, side)
        config = model.base_model.config
        self.window = window(config)
        if layout not in ("auto", "separate") and not self._agrees(layout):
            raise InputError(
                f"zero_shot.candidates={layout}: this model ({config.model_type}) does not give the scores of "
                "separate rows that way: use zero_shot.candidates=auto"
            )
        if layout != "auto":
            self.layout = layout
        self.apart = layout == "separate"
        self.layouts: set[str] = set()
        self.start: tuple[int, ...] = ()  # what share_start() has kept the keys and values of
        self._kept: Any = None

    @cached_property
    def layout(self) -> str:
        """How candidates of several tokens share their prefix: tree, cache or separate."""
        return next((one for one in ("tree", "cache") if self._agrees(one)), "separate")

    @cached_property
    def packs(self) -> bool:
        """Whether prefixes go into one row without padding."""
        sdpa = self.model.config._attn_implementation == "sdpa"
        if not (sdpa and self.forward.takes_positions and self.forward.device.type == "cpu" and self.side == "right"):
            return False
        probe = [share_prefix([[*prefix, 6], [*prefix, 9]], [(len(prefix), len(prefix) + 1)] * 2) for prefix in PROBE]
        return self._gives("packed", probe)

    def resume(self, layouts: Sequence[str]) -> None:
        """Go on after a part that was scored before, as if this scorer had scored it."""
        self.layouts.update(layouts)
        if "packed" in layouts:
            _ = self.packs  # few items are packed only once this is known, see _layout_of

    def share_start(self, items: Sequence[Item]) -> None:
        """Compute once what all these items begin with, an instruction or a system message, and keep it for them.

        Where candidates share their prefix, later passes read what comes after it. Nothing is kept where that saves
        little, and where it does not give the scores of whole rows on this very model.
        """
        self.start = ()
        causal = [item for item in items if isinstance(item, Candidates)]
        if (
            len(causal) < len(items)
            or not self.forward.takes_positions
            or self._layout_of(causal) in ("cache", "separate")
        ):
            return
        start, _ = split_common([item.unread for item in causal])
        fits = max(item.tree_length for item in causal) <= self.window
        if fits and len(start) * len(items) > WORTH and self._start_agrees(self._layout_of(causal)):
            self._keep(start)

    def _keep(self, start: tuple[int, ...]) -> None:
        self.start = start
        self._kept = keep_start(self.model, start, self.forward.position_offset) if start else None

    def batches(self, items: Sequence[Item], max_tokens: int) -> list[np.ndarray]:
        """Indices of items that are scored together, of like length, at most max_tokens tokens at once."""
        sizes = [self.batch_tokens(item) for item in items]
        causal = [item for item in items if isinstance(item, Candidates)]
        packed = bool(causal) and self._layout_of(causal) == "packed"
        return evaluation_batches(sizes, 1, max_tokens, packed=packed)

    def batch_tokens(self, item: Item) -> int:
        """Padded tokens that an item adds to a batch, when it is the longest."""
        if isinstance(item, Masked):
            return len(item.rows) * max(map(len, item.rows))
        if self._layout_of([item]) == "separate":
            return len(item.branches) * (len(item.prefix) + max(map(len, item.branches)))
        # A layer has its own copy of the start's keys and values for each row: no work, but memory
        return max(item.tree_length - len(self.start), item.tree_length // 4)

    def totals(self, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        """Sums of the scored tokens' log-probabilities, and their numbers, of each item's candidates: (B, C) each.

        A candidate that an item lacks has minus infinity and 1.
        """
        return self._totals(items, None)

    def _totals(self, items: Sequence[Item], layout: str | None) -> tuple[np.ndarray, np.ndarray]:
        n_candidates = max(map(_n_candidates, items))
        total, count = np.zeros((len(items), n_candidates)), np.zeros((len(items), n_candidates))
        for found_R, owner in self._read(items, layout):
            np.add.at(total, (owner[:, 0], owner[:, 1]), found_R.double().cpu().numpy())
            np.add.at(count, (owner[:, 0], owner[:, 1]), 1)
        for item, total_C in zip(items, total, strict=True):
            if isinstance(item, Candidates):  # two equal ones are a tie, which rounding at their two places would break
                total_C[: len(item.branches)] = total_C[item.first_equal()]
        absent = np.array([[c >= _n_candidates(item) for c in range(n_candidates)] for item in items])
        return np.where(absent, -np.inf, total), np.where(absent, 1, count)

    def _read(self, items: Sequence[Item], layout: str | None) -> Iterator[tuple[Tensor, np.ndarray]]:
        masked = [item for item in items if isinstance(item, Masked)]
        causal = [item for item in items if isinstance(item, Candidates)]
        if masked:
            self.layouts.add("masked")
            yield self.forward(masked_rows(masked, pad_id=self.pad_id, side=self.side))
            return
        if layout is None:
            layout = self._layout_of(causal)
            self.layouts.add(layout)
        if layout in ("packed", "prefix", "tree"):
            rest = [item.after(len(self.start)) for item in causal]
            more: dict[str, Any] = {"past_key_values": self._kept, "use_cache": True} if self.start else {}
            if layout == "packed":
                reading, lengths = packed_prefixes(rest)
                more["groups"] = group_lengths(lengths)
            elif layout == "tree":
                reading = tree_rows(rest, pad_id=self.pad_id, side=self.side)
            else:
                reading, _, _ = prefix_then_branches(rest, pad_id=self.pad_id, side=self.side)
            yield self.forward(reading, causal=layout != "tree", start=len(self.start), **more)
        elif layout == "cache":
            yield from self._cached(causal)
        else:
            yield self.forward(separate_rows(causal, pad_id=self.pad_id, side=self.side), causal=True)

    def _layout_of(self, items: Sequence[Candidates]) -> str:
        """The layout, where it gives these items their own scores; prefix, where nothing else is read.

        A mask of ours, or a padded prefix in a cache, takes the place of a model's window of local attention. A cache
        cannot begin empty.
        """
        if self.apart:
            return "separate"
        longest = max(item.tree_length for item in items)
        if not any(item.fed(c) for item in items for c in range(len(item.branches))):
            # Asking takes two small passes, once
            worth = "packs" in vars(self) or sum(item.tree_length for item in items) > WORTH
            return "packed" if worth and self.packs and longest <= self.window else "prefix"
        fits = longest <= self.window and (self.layout == "tree" or all(item.prefix for item in items))
        return self.layout if fits else "separate"

    def _cached(self, items: Sequence[Candidates]) -> Iterator[tuple[Tensor, np.ndarray]]:
        """The prefixes once, then every branch on its example's keys and values."""
        from transformers import DynamicCache

        prefixes, branches, rows = prefix_then_branches(items, pad_id=self.pad_id, side=self.side)
        cache = DynamicCache(config=self.model.config)
        yield self.forward(prefixes, past_key_values=cache, use_cache=True)
        if branches is not None:
            cache.batch_select_indices(torch.tensor(rows, device=self.forward.device))
            yield self.forward(branches, past_key_values=cache, use_cache=True)

    def _agrees(self, layout: str) -> bool:
        """Whether a layout gives the scores of separate rows on a small input; the model itself is asked."""
        if not self.forward.takes_positions:
            return False
        return takes_trees(self.model, self.forward.position_offset) if layout == "tree" else self._cache_agrees()

    def _cache_agrees(self) -> bool:
        return self._gives("cache", [share_prefix([[1, 2, 3, 4, 5], [1, 2, 3, 6, 7, 8]], [(3, 5), (3, 6)])])

    def _start_agrees(self, layout: str) -> bool:
        ends = [6, 7, 8] if layout == "tree" else [6]
        probe = [
            share_prefix([[*prefix, *ends], [*prefix, 9]], [(n, n + len(ends)), (n, n + 1)])
            for prefix in PROBE
            if (n := len(prefix))
        ]
        return self._gives(layout, probe, start=(1, 2, 3))

    def _gives(self, layout: str, probe: Sequence[Candidates], start: tuple[int, ...] = ()) -> bool:
        """Whether a layout gives the scores of separate rows on this very model, what they begin with being kept."""
        expected, _ = self._totals(probe, "separate")
        try:
            self._keep(start)
            found, _ = self._totals(probe, layout)
        except REFUSALS:
            return False
        finally:
            self.start = ()
        return float(np.abs(found - expected).max()) < AGREE[self.forward.dtype]


def _n_candidates(item: Item) -> int:
    return 1 + max(read[3] for read in item.reads) if isinstance(item, Masked) else len(item.branches)


def score_items(
    accelerator: Accelerator, scorer: Scorer, items: Sequence[Item], *, max_tokens: int, desc: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Every item's sums of log-probabilities and their numbers, (N, C) each, in order, the same on every process.

    Batches are of like length, at most max_tokens padded tokens each; every item is scored once.
    """
    scorer.share_start(items)
    batches = scorer.batches(items, max_tokens)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    found: list[tuple[int, list[float], list[float]]] = []
    hidden = not accelerator.is_main_process or desc is None
    with show_progress(sum(map(len, mine)), desc, "ex", disable=hidden) as bar:
        for batch in mine:
            total, count = scorer.totals([items[i] for i in batch])
            found += zip(batch, total.tolist(), count.tolist(), strict=True)
            bar.update(len(batch))
    gathered = {i: rest for i, *rest in gather_object(found)}
    width = max(len(total) for total, _ in gathered.values())
    totals, counts = np.full((len(items), width), -np.inf), np.ones((len(items), width))
    for i, (total, count) in gathered.items():
        totals[i, : len(total)], counts[i, : len(count)] = total, count
    return totals, counts
