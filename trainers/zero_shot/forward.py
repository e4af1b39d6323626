"""One pass of a language model, which computes the logits that are read of it, and no others."""

# N rows, T tokens, U states, R log-probabilities, V vocabulary

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from heads.candidates import Reading
from trainers.backbones.load import position_offset
from trainers.backbones.packed_causal import PACKED_CAUSAL, SHORT
from trainers.backbones.packed_row import Group, packed_row
from trainers.backbones.tree import pair_bias


class Forward:
    """A language model, asked for log-probabilities; side is where rows are padded."""

    def __init__(self, model: Any, side: str) -> None:
        self.model, self.side = model.eval(), side
        base = model.base_model
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self.position_offset = position_offset(base)
        self.takes_positions = "position_ids" in inspect.signature(base.forward).parameters

    def __call__(
        self, reading: Reading, *, causal: bool = False, start: int = 0, groups: list[Group] | None = None, **extra: Any
    ) -> tuple[Tensor, np.ndarray]:
        """One pass, and the log-probabilities that are read of it, (R,) in float32; start tokens are in the cache.

        groups are those of a packed row (trainers/backbones/packed_row.py).
        Plainly causal rows that are padded on the right need no mask: no token sees the padding after it.
        """
        mask, plain = None, causal and self.side == "right"
        if not plain:
            mask = pad(reading.attention_mask.to(self.device), (start, 0), value=1)
            if mask.dim() == 3:
                mask = pair_bias(mask, self.dtype)
        # In rows of their own they are the model's own, and where they begin anew at a pad it would make a mask of them
        if self.takes_positions and (start or not plain or groups):
            extra["position_ids"] = reading.position_ids.to(self.device) + self.position_offset + start
        n_tokens = start + reading.input_ids.shape[1]
        attention = self._attention(n_tokens, packed=groups is not None)
        with torch.inference_mode(), self._only(reading.states), attention, packed_row(groups):
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

    @contextmanager
    def _attention(self, n_tokens: int, *, packed: bool) -> Iterator[None]:
        """That of packed rows for these; written out for short rows in bfloat16 on a CPU; else the model's own."""
        short = n_tokens <= SHORT and self.device.type == "cpu" and self.dtype == torch.bfloat16
        if not (packed or short) or self.model.config._attn_implementation != "sdpa":
            yield
            return
        self.model.set_attn_implementation(PACKED_CAUSAL if packed else "eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation("sdpa")
