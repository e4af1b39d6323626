"""BERT's two pretraining tasks: masked LM and next-sentence prediction (BERT, section 3.1 and appendix A.1)."""

# B examples, N sequences, T tokens, D hidden width, V vocabulary, R positions that are read

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from heads.chunked_loss import mean_cross_entropy
from heads.collate import Row, collate

IGNORED = -100  # the target of a position that predicts nothing, as in transformers


class MaskedBatch(NamedTuple):
    """B pairs of texts, ready for BERT's pretraining; the names are those of heads.collate.Batch where it has one.

    input_ids, attention_mask, token_type_ids, position_ids and targets are (B, 1, T); targets has the true id where
    one is predicted and IGNORED elsewhere. is_next (B,) is 1 where B follows A; sequence_mask is (B, 1), of ones;
    weight (B,) is 0 for an example that only fills a place.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    targets: Tensor
    is_next: Tensor
    sequence_mask: Tensor
    weight: Tensor

    @property
    def n_tokens(self) -> Tensor:
        """Tokens of each pair, (B,)."""
        return self.attention_mask.sum((1, 2))


class MaskedRow(NamedTuple):
    """A masked pair: the row (its label is 1 where B follows A), the positions that are predicted and their true ids.

    Positions count from the sequence's first token.
    """

    row: Row
    positions: np.ndarray
    true_ids: np.ndarray


def mask_tokens(
    ids: np.ndarray,
    maskable: np.ndarray,
    rng: np.random.Generator,
    *,
    mask_id: int,
    n_vocab: int,
    special_ids: Collection[int],
    share: float = 0.15,
) -> tuple[np.ndarray, np.ndarray]:
    """Masked ids, and the positions that are to be predicted, in order (create_pretraining_data.py).

    Of the tokens where maskable is true, share is chosen, and one at the least; the reference takes the share of all
    tokens, [CLS] and [SEP] included. Of those chosen 80 % become mask_id, 10 % a random piece, 10 % stay. Tokens are
    chosen, not whole words. A random piece is any of n_vocab that is not special (the reference draws those too).

    >>> ids, maskable = np.array([2, 7, 8, 9, 3]), np.array([False, True, True, True, False])
    >>> masked, chosen = mask_tokens(
    ...     ids, maskable, np.random.default_rng(0), mask_id=4, n_vocab=10, special_ids=[2, 3, 4]
    ... )
    >>> masked.tolist(), chosen.tolist()
    ([2, 7, 8, 4, 3], [3])
    """
    candidates = np.flatnonzero(maskable)
    n_chosen = max(1, round(len(candidates) * share))
    chosen = np.sort(rng.permutation(candidates)[:n_chosen])
    specials = sorted(set(special_ids))
    pieces = rng.integers(n_vocab - len(specials), size=n_chosen)
    for special in specials:  # from the k-th piece that is not special to its id
        pieces += pieces >= special
    fate = rng.random(n_chosen)
    masked = ids.copy()
    masked[chosen] = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, pieces, ids[chosen]))
    return masked, chosen


def collate_masked(rows: Sequence[MaskedRow], *, pad_id: int) -> MaskedBatch:
    """Pad masked pairs, on the right, to the longest among them."""
    batch = collate([masked.row for masked in rows], pad_id=pad_id)
    targets = np.full(tuple(batch.input_ids.shape), IGNORED, np.int64)
    for target_T, masked in zip(targets[:, 0], rows, strict=True):
        target_T[masked.positions] = masked.true_ids
    return MaskedBatch(
        batch.input_ids,
        batch.attention_mask,
        batch.token_type_ids,
        batch.position_ids,
        torch.from_numpy(targets),
        is_next=batch.labels,
        sequence_mask=batch.sequence_mask,
        weight=batch.weight,
    )


def masked_lm_loss(hidden_NTD: Tensor, targets_NT: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean loss over each sequence's targets, in nats, shape (N,); 0 for a sequence without one.

    head turns states (R, D) into logits (R, V) and sees only those that are read: `cls.predictions` of transformers'
    BertForPreTraining. Where it is a transform and a decoder, as BERT's is, all logits are never there at once.
    """
    target_NT = targets_NT != IGNORED
    states_RD, targets_R = hidden_NTD[target_NT], targets_NT[target_NT]
    row_R = torch.nonzero(target_NT)[:, 0]
    parts = dict(head.named_children()) if isinstance(head, nn.Module) else {}
    if parts.keys() == {"transform", "decoder"} and type(decoder := parts["decoder"]) is nn.Linear:
        states_RD = parts["transform"](states_RD)
        return mean_cross_entropy(states_RD, decoder.weight, targets_R, row_R, len(targets_NT), bias_V=decoder.bias)
    loss_R = functional.cross_entropy(head(states_RD).float(), targets_R, reduction="none")
    total_N = torch.zeros(len(targets_NT), device=loss_R.device).index_add(0, row_R, loss_R)
    return total_N / target_NT.sum(dim=1).clamp(min=1)


def next_sentence_loss(logits_N2: Tensor, is_next_N: Tensor) -> Tensor:
    """Loss of "B follows A" for each pair, in nats, shape (N,).

    The first logit is for "follows", as in transformers and the reference, whose label is 1 for a random B.

    >>> next_sentence_loss(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([1, 0]))
    tensor([0.1269, 2.1269])
    """
    return functional.cross_entropy(logits_N2.float(), 1 - is_next_N, reduction="none")
