"""Readout: which hidden state a head reads."""

# N rows, S sequences in a row, T tokens, D hidden width

import torch
from torch import Tensor


def extract_state(hidden_NTD: Tensor, position_NS: Tensor) -> Tensor:
    """The state at each sequence's extract position, shape (N, S, D): GPT-1's extract token, BERT's [CLS].

    >>> hidden = torch.arange(12.0).reshape(2, 3, 2)
    >>> extract_state(hidden, torch.tensor([[2], [0]])).tolist()
    [[[4.0, 5.0]], [[6.0, 7.0]]]
    """
    row_N1 = torch.arange(len(hidden_NTD), device=hidden_NTD.device)[:, None]
    return hidden_NTD[row_N1, position_NS]
