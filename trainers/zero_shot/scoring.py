"""Log-probabilities of candidates under a language model: what is needed is computed, and nothing else.

Logits are computed for the states that are read. A causal model's candidates share their prefix: in one row with
a tree mask where the model takes one, else by a key-value cache; the scores are those of separate rows.
"""

# B examples, C candidates, N rows, T tokens, U states, R log-probabilities, V vocabulary, D hidden width

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from heads.candidates import (
    Candidates,
    Masked,
    Reading,
    masked_rows,
    prefix_then_branches,
    separate_rows,
    share_prefix,
    tree_rows,
)
from heads.errors import InputError
from trainers.backbones.load import position_offset
from trainers.backbones.tree import pair_bias, takes_trees, window
from trainers.data.batches import evaluation_batches

# The sums of two ways of computing agree to this, in nats: float32 rounding, or that of half precision.
AGREE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}

Item = Candidates | Masked


class Scorer:
    """A language model that reads candidates' log-probabilities.

    layout is how a causal model's candidates share their prefix (tree, cache, separate); auto takes the first of these
    that agrees with separate rows on this very model. side is where rows are padded; it changes no score.

    Raises:
        InputError: the layout that is named does not agree.
    """

    def __init__(self, model: Any, pad_id: int, *, layout: str = "auto", side: Any = "right") -> None:
        self.model, self.pad_id, self.side = model.eval(), pad_id, side
        base = model.base_model
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self.position_offset = position_offset(base)
        self.takes_positions = "position_ids" in inspect.signature(base.forward).parameters
        self.window = window(base.config)
        self.layout = "separate"
        if layout == "auto":
            self.layout = next((one for one in ("tree", "cache") if self._agrees(one)), "separate")
        elif layout != "separate":
            if not self._agrees(layout):
                raise InputError(
                    f"zero_shot.candidates={layout}: this model ({base.config.model_type}) does not give the scores of "
                    "separate rows that way: use zero_shot.candidates=auto"
                )
            self.layout = layout

    def batch_tokens(self, item: Item) -> int:
        """Padded tokens that an item adds to a batch, when it is the longest."""
        if isinstance(item, Masked):
            return len(item.rows) * max(map(len, item.rows))
        if self._layout_of([item]) == "separate":
            return len(item.branches) * (len(item.prefix) + max(map(len, item.branches)))
        return item.tree_length

    def totals(self, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        """Sums of the scored tokens' log-probabilities, and their numbers, of each item's candidates: (B, C) each.

        A candidate that an item lacks has minus infinity and 1.
        """
        n_candidates = max(map(_n_candidates, items))
        total, count = np.zeros((len(items), n_candidates)), np.zeros((len(items), n_candidates))
        for found_R, owner in self._read(items):
            np.add.at(total, (owner[:, 0], owner[:, 1]), found_R.double().cpu().numpy())
            np.add.at(count, (owner[:, 0], owner[:, 1]), 1)
        for item, total_C in zip(items, total, strict=True):
            if isinstance(item, Candidates):  # two equal ones are a tie, which rounding at their two places would break
                total_C[: len(item.branches)] = total_C[item.first_equal()]
        absent = np.array([[c >= _n_candidates(item) for c in range(n_candidates)] for item in items])
        return np.where(absent, -np.inf, total), np.where(absent, 1, count)

    def _read(self, items: Sequence[Item]) -> Iterator[tuple[Tensor, np.ndarray]]:
        masked = [item for item in items if isinstance(item, Masked)]
        causal = [item for item in items if isinstance(item, Candidates)]
        if masked:
            yield self._forward(masked_rows(masked, pad_id=self.pad_id, side=self.side))
        elif self._layout_of(causal) == "cache":
            yield from self._cached(causal)
        else:
            rows = tree_rows if self._layout_of(causal) == "tree" else separate_rows
            yield self._forward(rows(causal, pad_id=self.pad_id, side=self.side))

    def _layout_of(self, items: Sequence[Candidates]) -> str:
        """The layout, where it gives these items their own scores.

        A mask of ours, or a padded prefix in a cache, takes the place of a model's window of local attention. A cache
        cannot begin empty.
        """
        longest = max(item.tree_length for item in items)
        fits = longest <= self.window and (self.layout == "tree" or all(item.prefix for item in items))
        return self.layout if fits else "separate"

    def _forward(self, reading: Reading, **extra: Any) -> tuple[Tensor, np.ndarray]:
        """One pass, and the log-probabilities that are read of it, (R,) in float32."""
        mask = reading.attention_mask.to(self.device)
        if mask.dim() == 3:
            mask = pair_bias(mask, self.dtype)
        if self.takes_positions:
            extra["position_ids"] = reading.position_ids.to(self.device) + self.position_offset
        with torch.inference_mode(), self._only(reading.states):
            out = self.model(input_ids=reading.input_ids.to(self.device), attention_mask=mask, **extra)
        logits = out[0]  # without labels the logits come first, whatever the output calls them
        if logits.shape[:2] != (1, len(reading.states)):  # an output layer that is used without being called
            logits = logits.flatten(0, 1)[reading.states.to(self.device)][None]
        logits_UV = logits[0].float()
        state_R, target_R = reading.reads.to(self.device).unbind(dim=1)
        found_R = logits_UV[state_R, target_R] - logits_UV.logsumexp(dim=-1)[state_R]
        return found_R, reading.owner

    @contextmanager
    def _only(self, states_U: Tensor) -> Iterator[None]:
        """Let the model's output layer see the states that are read, in one row, and no others."""
        states_U = states_U.to(self.device)

        def select(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (inputs[0].flatten(0, 1)[states_U][None],)

        output = self.model.get_output_embeddings()
        if output is None:
            yield
            return
        handle = output.register_forward_pre_hook(select)
        try:
            yield
        finally:
            handle.remove()

    def _cached(self, items: Sequence[Candidates]) -> Iterator[tuple[Tensor, np.ndarray]]:
        """The prefixes once, then every branch on its example's keys and values."""
        from transformers import DynamicCache

        prefixes, branches, rows = prefix_then_branches(items, pad_id=self.pad_id, side=self.side)
        cache = DynamicCache(config=self.model.config)
        yield self._forward(prefixes, past_key_values=cache, use_cache=True)
        if branches is not None:
            cache.batch_select_indices(torch.tensor(rows, device=self.device))
            yield self._forward(branches, past_key_values=cache, use_cache=True)

    def _agrees(self, layout: str) -> bool:
        """Whether a layout gives the scores of separate rows on a small input; the model itself is asked."""
        if not self.takes_positions:
            return False
        return takes_trees(self.model, self.position_offset) if layout == "tree" else self._cache_agrees()

    def _cache_agrees(self) -> bool:
        probe = [share_prefix([[1, 2, 3, 4, 5], [1, 2, 3, 6, 7, 8]], [(3, 5), (3, 6)])]
        self.layout = "separate"
        expected, _ = self.totals(probe)
        self.layout = "cache"
        try:
            found, _ = self.totals(probe)
        except (TypeError, ValueError, RuntimeError):
            # it has no such argument; it gives no cache; the shapes of mask and states do not fit
            return False
        finally:
            self.layout = "separate"
        return float(np.abs(found - expected).max()) < AGREE[self.dtype]


def _n_candidates(item: Item) -> int:
    return 1 + max(read[3] for read in item.reads) if isinstance(item, Masked) else len(item.branches)


def score_items(
    accelerator: Accelerator, scorer: Scorer, items: Sequence[Item], *, max_tokens: int, desc: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Every item's sums of log-probabilities and their numbers, (N, C) each, in order, the same on every process.

    Batches are of like length, at most max_tokens padded tokens each; every item is scored once.
    """
    batches = evaluation_batches([scorer.batch_tokens(item) for item in items], 1, max_tokens)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    found: list[tuple[int, list[float], list[float]]] = []
    hidden = not accelerator.is_main_process or desc is None
    with tqdm(total=sum(map(len, mine)), desc=desc, unit="ex", leave=False, disable=hidden, dynamic_ncols=True) as bar:
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
