"""The models that are pretrained, and their objectives: the next word, or masked words and the next sentence."""

# B examples, N = B sequences, T tokens, D hidden width

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from heads.collate import Batch
from heads.language_model import sequence_lm_loss
from heads.masked_lm import MaskedBatch, masked_lm_loss, next_sentence_loss
from trainers.model import Outputs
from trainers.objectives import Losses


class NextWord(nn.Module):
    """A causal language model whose loss is L1, GPT-1's equation 1; logits has no meaning and is the loss as well."""

    def __init__(self, full: PreTrainedModel) -> None:
        super().__init__()
        self.full = full

    def forward(self, batch: Batch, lm: bool = True) -> Outputs:
        """The mean loss of each block, in nats a token, (B, 1)."""
        ids_NT, mask_NT = batch.input_ids[:, 0], batch.attention_mask[:, 0]
        full: Any = self.full
        hidden_NTD = full.base_model(input_ids=ids_NT, attention_mask=mask_NT).last_hidden_state
        loss_B1 = sequence_lm_loss(hidden_NTD, ids_NT, mask_NT, full.get_output_embeddings().weight)[:, None]
        return Outputs(loss_B1, loss_B1)

    @staticmethod
    def n_targets(batch: Batch) -> Tensor:
        """Tokens of each block that are predicted, (B,): all but the first."""
        return batch.attention_mask[:, 0].sum(dim=1) - 1


class MaskedWords(nn.Module):
    """A bidirectional language model with BERT's two heads; logits (B, 2) are those of the next sentence."""

    def __init__(self, full: PreTrainedModel) -> None:
        super().__init__()
        self.full = full

    def forward(self, batch: MaskedBatch, lm: bool = True) -> Outputs:
        """The mean masked-LM loss of each pair, in nats a mask, (B, 1), and the next sentence's logits."""
        full: Any = self.full
        out = full.base_model(
            input_ids=batch.input_ids[:, 0],
            attention_mask=batch.attention_mask[:, 0],
            token_type_ids=batch.token_type_ids[:, 0],
        )
        loss_B = masked_lm_loss(out.last_hidden_state, batch.targets[:, 0], full.cls.predictions)
        return Outputs(full.cls.seq_relationship(out.pooler_output), loss_B[:, None])

    @staticmethod
    def n_targets(batch: MaskedBatch) -> Tensor:
        """Masks of each pair, (B,)."""
        return (batch.targets[:, 0] != -100).sum(dim=1)


@dataclass(frozen=True)
class Pretraining:
    """The loss of a pretraining example: its words', and for BERT the next sentence's beside it."""

    masked: bool
    lm_coef: float = 1.0
    whole_batch: bool = False

    def __call__(self, outputs: Outputs, batch: Any) -> Losses:
        """The loss of the words as lm, that of the next sentence (0 where there is none) as task."""
        assert outputs.lm_loss is not None
        lm_B = outputs.lm_loss[:, 0]
        next_B = next_sentence_loss(outputs.logits, batch.is_next) if self.masked else lm_B.new_zeros(lm_B.shape)
        return Losses(next_B, lm_B)
