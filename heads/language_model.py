"""The auxiliary language-model head: next-token loss, tied to the embeddings (GPT-1 equations 1 and 5)."""

# N sequences, T tokens, D hidden width, V vocabulary, R real targets

import torch
from torch import Tensor

from heads.chunked_loss import mean_cross_entropy


def sequence_lm_loss(hidden_NTD: Tensor, input_ids_NT: Tensor, mask_NT: Tensor, weight_VD: Tensor) -> Tensor:
    """Mean next-token loss of each sequence, in nats, shape (N,).

    Every real token but the first is a target, delimiter and extract included; the mean is taken within the sequence
    (train.py: sum(lm_losses * mask) / sum(mask)). Logits are computed at real targets only. A sequence of one token
    has no target and a loss of 0.
    """
    target_NT = mask_NT[:, 1:].bool() & mask_NT[:, :-1].bool()
    row_R = torch.nonzero(target_NT)[:, 0]
    states_RD, targets_R = hidden_NTD[:, :-1][target_NT], input_ids_NT[:, 1:][target_NT]
    return mean_cross_entropy(states_RD, weight_VD, targets_R, row_R, len(input_ids_NT))
