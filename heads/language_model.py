"""The auxiliary language-model head: next-token loss, tied to the embeddings (GPT-1 equations 1 and 5)."""

# B examples, C sequences of each, N sequences, T tokens, D hidden width, V vocabulary, R real targets,
# E pairs of a target and a sequence that it counts in

import torch
from torch import Tensor

from heads.own_head_loss import LmHead, mean_lm_loss


def sequence_lm_loss(hidden_NTD: Tensor, input_ids_NT: Tensor, mask_NT: Tensor, head: LmHead) -> Tensor:
    """Mean next-token loss of each sequence, in nats, shape (N,).

    Every real token but the first is a target, delimiter and extract included; the mean is taken within the sequence
    (train.py: sum(lm_losses * mask) / sum(mask)). Logits are computed at real targets only. A sequence of one token
    has no target and a loss of 0.
    """
    target_NT = mask_NT[:, 1:].bool() & mask_NT[:, :-1].bool()
    row_R = torch.nonzero(target_NT)[:, 0]
    states_RD, targets_R = hidden_NTD[:, :-1][target_NT], input_ids_NT[:, 1:][target_NT]
    return mean_lm_loss(states_RD, head, targets_R, row_R, len(input_ids_NT))


def tree_lm_loss(
    hidden_BTD: Tensor, input_ids_BT: Tensor, branch_BT: Tensor, present_BC: Tensor, head: LmHead
) -> Tensor:
    """What sequence_lm_loss gives for each sequence of a tree (heads/tree.py), shape (B, C); 0 where one is absent.

    A target in the prefix counts in every sequence and is computed once. What predicts a branch's first token is the
    prefix's last state.
    """
    before_BT = _token_before(branch_BT)
    b_R, t_R = torch.nonzero(before_BT >= 0, as_tuple=True)
    branch_R = branch_BT[b_R, t_R]
    n_sequences = present_BC.shape[1]
    own_RC = branch_R[:, None] == torch.arange(1, n_sequences + 1, device=branch_R.device)
    counts_RC = (own_RC | (branch_R == 0)[:, None]) & present_BC[b_R].bool()
    row_E, c_E = torch.nonzero(counts_RC, as_tuple=True)
    states_RD = hidden_BTD.flatten(0, 1).index_select(0, b_R * hidden_BTD.shape[1] + before_BT[b_R, t_R])
    sequence_E = b_R[row_E] * n_sequences + c_E
    loss = mean_lm_loss(states_RD, head, input_ids_BT[b_R, t_R], sequence_E, present_BC.numel(), row_E)
    return loss.view(present_BC.shape)


def packed_lm_loss(
    hidden_ND: Tensor,
    input_ids_N: Tensor,
    lengths_S: Tensor,
    extract_BC: Tensor,
    present_BC: Tensor,
    head: LmHead,
) -> Tensor:
    """What sequence_lm_loss gives for each sequence of a packed row, shape (B, C); 0 where one is absent.

    lengths are the sequences', in the row's order; extract says for each of an example's a place that is its own.
    """
    n_sequences = len(lengths_S)
    sequence_N = torch.repeat_interleave(torch.arange(n_sequences, device=lengths_S.device), lengths_S)
    target_R = torch.nonzero(sequence_N[1:] == sequence_N[:-1])[:, 0] + 1
    states_RD, targets_R = hidden_ND.index_select(0, target_R - 1), input_ids_N[target_R]
    loss_S = mean_lm_loss(states_RD, head, targets_R, sequence_N[target_R], n_sequences)
    return loss_S[sequence_N[extract_BC]] * present_BC


def _token_before(branch_BT: Tensor) -> Tensor:
    """Where the token is that comes before each one in its sequence; -1 where there is none.

    >>> _token_before(torch.tensor([[0, 0, 1, 1, 2, -1], [-1, 0, 1, 2, 3, 3]])).tolist()
    [[-1, 0, 1, 2, 1, -1], [-1, -1, 1, 1, 1, 4]]
    """
    at_T = torch.arange(branch_BT.shape[1], device=branch_BT.device)
    prefix_end_B1 = torch.where(branch_BT == 0, at_T, -1).amax(dim=1, keepdim=True)
    goes_on_BT = branch_BT == branch_BT.roll(1, dims=1)
    goes_on_BT[:, 0] = False
    before_BT = torch.where(goes_on_BT, at_T - 1, prefix_end_B1)
    starts_BT = (branch_BT == 0) & ~goes_on_BT
    return before_BT.masked_fill(starts_BT | (branch_BT < 0), -1)
