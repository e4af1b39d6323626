"""The head for a pair without an order: the two orders' states are added (GPT-1, section 3.3)."""

# B examples, C sequences per example, D hidden width, K labels

from torch import Tensor, nn

from heads.output_layer import OutputLayer


class SimilarityHead(nn.Module):
    """Add the states of both orders, then dropout and a linear layer."""

    def __init__(self, n_embd: int, n_labels: int, clf_pdrop: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(clf_pdrop)
        self.linear = OutputLayer(n_embd, n_labels)

    def forward(self, extract_BCD: Tensor, sequence_mask_BC: Tensor) -> Tensor:
        """Logits, shape (B, K)."""
        if extract_BCD.shape[1] != 2:
            raise ValueError(f"SimilarityHead reads the two orders of a pair, got {extract_BCD.shape[1]} sequences")
        return self.linear(self.dropout(extract_BCD.sum(dim=1)))
