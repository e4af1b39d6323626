"""The models that are pretrained, and their objective: the next word, or masked words and the next sentence."""

# B examples, which are sequences here, T tokens, D hidden width

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel

from heads.collate import Batch
from heads.errors import InputError
from heads.language_model import sequence_lm_loss
from heads.masked_lm import IGNORED, MaskedBatch, masked_lm_loss, next_sentence_loss
from trainers.backbones.lm_head import OwnHead, lm_head_of
from trainers.backbones.load import Backbone, check_family, load_backbone, load_tokenizer
from trainers.backbones.padding import needs_mask
from trainers.build import check_ids
from trainers.config import BackboneConfig
from trainers.objectives import Losses


class Words(NamedTuple):
    """What a language model says of a batch.

    loss is each example's mean over the words that are predicted, in nats, n_targets their number, (B,) both;
    next_sentence has BERT's two logits (B, 2), None for a causal model.
    """

    loss: Tensor
    n_targets: Tensor
    next_sentence: Tensor | None = None


class NextWord(nn.Module):
    """A causal language model: every token but a block's first is predicted (GPT-1, equation 1).

    own_head is given where its logits are more than its states times its output weights.
    """

    def __init__(self, full: PreTrainedModel, own_head: OwnHead | None = None) -> None:
        super().__init__()
        self.full, self.own_head = full, own_head
        self.needs_mask = needs_mask(full)

    def forward(self, batch: Batch) -> Words:
        """The loss of each block; the batch is (B, 1, T)."""
        ids_BT, mask_BT = batch.input_ids[:, 0], batch.attention_mask[:, 0]
        full: Any = self.full
        told = mask_BT if self.needs_mask or batch.side == "left" else None
        hidden_BTD = full.base_model(input_ids=ids_BT, attention_mask=told).last_hidden_state
        head = self.own_head or full.get_output_embeddings().weight
        loss_B = sequence_lm_loss(hidden_BTD, ids_BT, mask_BT, head)
        return Words(loss_B, mask_BT.sum(dim=1) - 1)

    @property
    def networks(self) -> list[nn.Module]:
        """What torch.compile is for, as in TaskModel."""
        base: Any = self.full.base_model
        return [base]


class MaskedWords(nn.Module):
    """A bidirectional language model with BERT's two heads, for masked words and for the next sentence."""

    def __init__(self, full: PreTrainedModel) -> None:
        super().__init__()
        self.full = full

    def forward(self, batch: MaskedBatch) -> Words:
        """The loss of each pair's masked words, and whether its sentences follow; the batch is (B, 1, T)."""
        full: Any = self.full
        out = full.base_model(
            input_ids=batch.input_ids[:, 0],
            attention_mask=batch.attention_mask[:, 0],
            token_type_ids=batch.token_type_ids[:, 0],
        )
        targets_BT = batch.targets[:, 0]
        loss_B = masked_lm_loss(out.last_hidden_state, targets_BT, full.cls.predictions)
        follows = getattr(full.cls, "seq_relationship", None)  # a model of masked words alone has none
        next_sentence = None if follows is None else follows(out.pooler_output)
        return Words(loss_B, (targets_BT != IGNORED).sum(dim=1), next_sentence)

    @property
    def networks(self) -> list[nn.Module]:
        """What torch.compile is for, as in TaskModel."""
        base: Any = self.full.base_model
        return [base]


@dataclass(frozen=True)
class Pretraining:
    """The loss of a pretraining example: that of its words, and for BERT that of the next sentence beside it."""

    lm_coef: float = 1.0
    whole_batch: bool = False

    def __call__(self, outputs: Words, batch: Any) -> Losses:
        """The loss of the words as lm, that of the next sentence (0 where there is none) as task."""
        if outputs.next_sentence is None:
            return Losses(outputs.loss.new_zeros(outputs.loss.shape), outputs.loss)
        return Losses(next_sentence_loss(outputs.next_sentence, batch.is_next), outputs.loss)


def open_language_model(config: BackboneConfig) -> tuple[Any, Backbone, NextWord | MaskedWords]:
    """A pretrained language model with its own tokenizer and the loss of its words.

    Raises:
        InputError: it cannot be read, or its words are not predicted as our losses have it.
    """
    tokenizer, backbone = load_tokenizer(config), load_backbone(config, lm=True)
    check_family(config, backbone.base)
    check_ids(tokenizer, backbone, config.name)
    return tokenizer, backbone, words_of(config, backbone, ("predictions",))


def words_of(config: BackboneConfig, backbone: Backbone, heads: Sequence[str]) -> NextWord | MaskedWords:
    """A language model with the loss of its words; heads are those of BERT's that a bidirectional one needs.

    Raises:
        InputError: its words are not predicted as our losses have it.
    """
    if config.family == "causal":
        head = lm_head_of(backbone.full, config.name)
        return NextWord(backbone.full, head if isinstance(head, OwnHead) else None)
    lacking = [name for name in heads if not hasattr(getattr(backbone.full, "cls", None), name)]
    if lacking:
        raise InputError(
            f"backbone {config.name}: masked words and next sentences are read by BERT's heads, and "
            f"{backbone.full.config.model_type} has no cls.{lacking[0]}: type backbone=bert_base or mini_bert"
        )
    return MaskedWords(backbone.full)
