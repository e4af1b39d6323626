"""The head for one sequence, of one text or an ordered pair: K logits (K = 1 is regression)."""

# B examples, C sequences per example, D hidden width, K labels

from torch import Tensor, nn

from heads.output_layer import OutputLayer


class ClassificationHead(nn.Module):
    """Dropout and a linear layer on the one sequence's state: GPT-1 equation 3, BERT section 4.1."""

    def __init__(self, n_embd: int, n_labels: int, clf_pdrop: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(clf_pdrop)
        self.linear = OutputLayer(n_embd, n_labels)

    def forward(self, extract_BCD: Tensor, sequence_mask_BC: Tensor) -> Tensor:
        """Logits, shape (B, K)."""
        if extract_BCD.shape[1] != 1:
            raise ValueError(f"ClassificationHead reads one sequence for each example, got {extract_BCD.shape[1]}")
        return self.linear(self.dropout(extract_BCD[:, 0]))
