"""The model that is trained: backbone, readout, head, and the auxiliary LM loss."""

# B examples, C sequences per example, N rows of S sequences (B * C of 1, or B of C), T tokens, D hidden width, K labels

import inspect
from contextlib import nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from heads.collate import Batch, PackedBatch
from heads.language_model import packed_lm_loss, sequence_lm_loss, tree_lm_loss
from heads.own_head_loss import LmHead
from heads.readout import extract_state
from heads.tree import tree_mask
from trainers.backbones.last_block import read_only, takes_reading
from trainers.backbones.lm_head import OwnHead
from trainers.backbones.load import position_offset
from trainers.backbones.packed import takes_packing
from trainers.backbones.packed_row import group_lengths, packed_row
from trainers.backbones.padding import needs_mask
from trainers.backbones.tree import pair_bias, takes_trees


class Outputs(NamedTuple):
    """What a model says of a batch: logits (B, K), and the mean LM loss of each sequence (B, C) where asked for."""

    logits: Tensor
    lm_loss: Tensor | None


class TaskModel(nn.Module):
    """A backbone with a task's head.

    backbone is the network that gives hidden states, with or without a peft adapter. lm_head is given where the LM's
    logits are not the states times the embeddings: a linear layer, or the model's own code. lm says whether the
    auxiliary loss is computed. pooler says whether the head reads the backbone's pooled [CLS] state where it has a
    pooler.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        head: nn.Module,
        *,
        lm: bool,
        pooler: bool,
        lm_head: nn.Linear | OwnHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.own_head = lm_head if isinstance(lm_head, OwnHead) else None
        # The network that an own head belongs to is the backbone, so only what is the head's alone is registered
        self.lm_head = nn.ParameterDict(lm_head.parameters) if isinstance(lm_head, OwnHead) else lm_head
        self.lm = lm
        base = base_of(backbone)
        pooled = getattr(base, "pooler", None) is not None
        if pooled and not pooler:
            base.pooler = None  # so that no parameter is left without a gradient
        self.pooled = pooled and pooler
        accepted = inspect.signature(base.forward).parameters
        self.takes_types = getattr(base.config, "type_vocab_size", 0) > 1 and "token_type_ids" in accepted
        self.takes_positions = "position_ids" in accepted
        self.position_offset = position_offset(base)
        self.needs_mask = needs_mask(backbone)

    def forward(self, batch: Batch | PackedBatch, lm: bool = True) -> Outputs:
        """Logits, and LM losses where both the model's lm and this one are true; the batch is (B, C or 1, T) or packed.

        Raises:
            ValueError: the batch is packed, and the backbone does not take that.
        """
        if isinstance(batch, PackedBatch):
            return self._packed(batch, lm=self.lm and lm)
        flat = (-1, batch.input_ids.shape[-1])
        input_ids, branch = batch.input_ids.view(flat), batch.branch.view(flat)
        real_NT = batch.attention_mask.view(flat)
        mask = pair_bias(tree_mask(branch), self._dtype) if batch.shared else real_NT
        extra = self._extra(batch.token_type_ids.view(flat), batch.position_ids.view(flat))
        if not (batch.shared or self.needs_mask) and batch.side == "right":
            # From positions that begin anew at a pad, transformers would make a mask, as for packed sequences
            mask, _ = None, extra.pop("position_ids", None)
        hidden_NTD = self.backbone(input_ids=input_ids, attention_mask=mask, **extra).last_hidden_state
        present_BC = batch.sequence_mask
        logits = self._logits(extract_state(hidden_NTD, batch.extract_position.view(len(hidden_NTD), -1)), present_BC)
        if not (self.lm and lm):
            return Outputs(logits, None)
        if batch.shared:
            return Outputs(logits, tree_lm_loss(hidden_NTD, input_ids, branch, present_BC, self._lm_head))
        losses = sequence_lm_loss(hidden_NTD, input_ids, real_NT, self._lm_head)
        return Outputs(logits, losses.view(present_BC.shape))

    def _packed(self, batch: PackedBatch, *, lm: bool) -> Outputs:
        """For a batch whose sequences all stand in one row."""
        if not self.takes_packing:
            raise ValueError(f"{type(self.backbone).__name__} does not keep the sequences of a row apart")
        extra = self._extra(batch.token_type_ids, batch.position_ids)
        places_1S = batch.extract_position.view(1, -1)
        few = self.takes_reading and not lm
        reading = read_only(base_of(self.backbone), places_1S[0]) if few else nullcontext()
        with packed_row(group_lengths(batch.lengths.tolist())), reading:
            hidden_1ND = self.backbone(input_ids=batch.input_ids, **extra).last_hidden_state
        state_1SD = hidden_1ND if few else extract_state(hidden_1ND, places_1S)
        logits = self._logits(state_1SD.transpose(0, 1), batch.sequence_mask)
        if not lm:
            return Outputs(logits, None)
        row = hidden_1ND[0], batch.input_ids[0], batch.lengths
        return Outputs(logits, packed_lm_loss(*row, batch.extract_position, batch.sequence_mask, self._lm_head))

    @property
    def _lm_head(self) -> LmHead:
        """The LM's output weights, a row for each token of the vocabulary, or its own code."""
        if self.own_head is not None:
            return self.own_head
        output: Any = base_of(self.backbone).get_input_embeddings() if self.lm_head is None else self.lm_head
        return output.weight

    def _extra(self, token_type_ids: Tensor, position_ids: Tensor) -> dict[str, Tensor]:
        """What the backbone's forward takes besides token ids and a mask."""
        extra: dict[str, Tensor] = {}
        if self.takes_types:
            extra["token_type_ids"] = token_type_ids
        if self.takes_positions:
            extra["position_ids"] = position_ids + self.position_offset
        return extra

    def _logits(self, state_NSD: Tensor, present_BC: Tensor) -> Tensor:
        if self.pooled:  # a pooler reads the first token of what it is given
            state_NSD = base_of(self.backbone).pooler(state_NSD)
        return self.head(state_NSD.view(*present_BC.shape, -1), present_BC)

    @cached_property
    def takes_packing(self) -> bool:
        """Whether a batch may be one row of all sequences: the backbone, adapter included, gives the same states."""
        return self.takes_positions and takes_packing(self.backbone, base_of(self.backbone), self.position_offset)

    @cached_property
    def takes_reading(self) -> bool:
        """Whether a packed batch's last block may leave out what the head does not read, with the same states."""
        return takes_reading(self.backbone, base_of(self.backbone), self.position_offset)

    @cached_property
    def takes_trees(self) -> bool:
        """Whether an example's sequences may share a row: the backbone, adapter included, gives the same states."""
        return self.takes_positions and takes_trees(self.backbone, self.position_offset)

    @property
    def networks(self) -> list[nn.Module]:
        """What torch.compile is for: nearly all of the work, and nothing that asks for a value in its midst."""
        return [self.backbone]

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.backbone.parameters()).dtype


def base_of(backbone: Any) -> Any:
    """The backbone without the adapter that peft may have put around it."""
    return backbone.get_base_model() if hasattr(backbone, "peft_config") else backbone
