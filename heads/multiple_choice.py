"""The head for multiple choice: one score for each candidate, to be normalised over the candidates."""

# B examples, C candidates, D hidden width

import torch
from torch import Tensor, nn

from heads.output_layer import OutputLayer


class MultipleChoiceHead(nn.Module):
    """A linear layer to one score for each candidate.

    The candidates of an example share one dropout mask, as in train.py's clf (noise_shape [batch, 1, width]), so that
    dropout never favours one of them.
    """

    def __init__(self, n_embd: int, n_labels: int, clf_pdrop: float) -> None:
        super().__init__()
        self.clf_pdrop = clf_pdrop
        self.linear = OutputLayer(n_embd, 1)

    def forward(self, extract_BCD: Tensor, sequence_mask_BC: Tensor) -> Tensor:
        """Logits, shape (B, C); minus infinity where an example has fewer candidates."""
        mask_B1D = torch.ones_like(extract_BCD[:, :1])
        mask_B1D = nn.functional.dropout(mask_B1D, self.clf_pdrop, self.training)
        logits_BC = self.linear(extract_BCD * mask_B1D).squeeze(-1)
        return logits_BC.masked_fill(sequence_mask_BC == 0, float("-inf"))
