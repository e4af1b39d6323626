"""The auxiliary language-model head: next-token loss, tied to the embeddings (GPT-1 equations 1 and 5)."""

# N sequences, T tokens, D hidden width, V vocabulary, R real targets

import torch
from torch import Tensor
from torch.nn import functional


def sequence_lm_loss(hidden_NTD: Tensor, input_ids_NT: Tensor, mask_NT: Tensor, weight_VD: Tensor) -> Tensor:
    """Mean next-token loss of each sequence, in nats, shape (N,).

    Every real token but the first is a target, delimiter and extract included; the mean is taken within the sequence
    (train.py: sum(lm_losses * mask) / sum(mask)). Logits are computed at real targets only. A sequence of one token
    has no target and a loss of 0.
    """
    target_NT = mask_NT[:, 1:].bool() & mask_NT[:, :-1].bool()
    logits_RV = functional.linear(hidden_NTD[:, :-1][target_NT], weight_VD)
    loss_R = functional.cross_entropy(logits_RV.float(), input_ids_NT[:, 1:][target_NT], reduction="none")
    row_R = torch.nonzero(target_NT)[:, 0]
    total_N = torch.zeros(len(input_ids_NT), device=loss_R.device).index_add(0, row_R, loss_R)
    return total_N / target_NT.sum(dim=1).clamp(min=1)
