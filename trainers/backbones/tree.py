"""Rows that several sequences share (heads/tree.py): the mask as transformers' models take it, and which models do."""

# N rows, T tokens, X logits or hidden width

import sys
from typing import Any

import torch
from torch import Tensor, nn

from heads.tree import lay_trees, split_common, tree_mask

# How far from its states in rows of their own a tree's may be, as a share of how far they are where branches see one
# another: rounding alone.
AGREE = {torch.float32: 0.01, torch.bfloat16: 0.5, torch.float16: 0.5}


# What models raise that do not take what they are asked to: no such argument, a mask or cache of another kind, shapes
# that do not fit.
REFUSALS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, AssertionError)


def pair_bias(allowed_NTT: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask over pairs as transformers' models take it as it is: what is added to attention's scores, (N, 1, T, T)."""
    bias_NTT = torch.zeros(allowed_NTT.shape, dtype=dtype, device=allowed_NTT.device)
    return bias_NTT.masked_fill(~allowed_NTT, torch.finfo(dtype).min)[:, None]


def window(config: Any) -> int:
    """The least window of local attention that a model has, by any of the names that configs give it.

    A mask of ours takes the place of the model's, so a row that is longer would lose it.
    """
    text = config.get_text_config()
    names = ("sliding_window", "window_size", "attention_chunk_size", "local_attention")
    return min([value for name in names if isinstance(value := getattr(text, name, None), int)], default=sys.maxsize)


def takes_trees(network: nn.Module, position_offset: int) -> bool:
    """Whether a causal network gives a tree's tokens what it gives them in rows of their own, on a small input.

    The network itself is asked, and called as a transformers model is, with position_ids: which ones take a mask over
    pairs is written nowhere. What is compared is the first thing that it returns, logits or hidden states.
    """
    sequences = [[1, 2, 3, 4, 5], [1, 2, 3, 6, 7, 8]]
    trees = lay_trees([split_common(sequences)], pad_id=0)
    weight = next(network.parameters())

    def ask(ids: Any, positions: Any, mask: Tensor) -> Tensor:
        ids_1T, positions_1T = (torch.as_tensor(one, device=weight.device) for one in (ids, positions))
        mask = mask.to(weight.device)
        return network(input_ids=ids_1T, attention_mask=mask, position_ids=positions_1T + position_offset)[0][0].float()

    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            each = [ask([one], [[*range(len(one))]], torch.ones(1, len(one), dtype=torch.int64)) for one in sequences]
            apart_TX = torch.cat(each)
            tree = trees.input_ids, trees.position_ids
            blind_TX = ask(*tree, torch.ones(trees.branch.shape, dtype=torch.int64))
            together_TX = ask(*tree, pair_bias(tree_mask(torch.from_numpy(trees.branch)), weight.dtype))
    except REFUSALS:
        return False
    finally:
        network.train(training)
    places = [trees.place(0, c, at) for c, one in enumerate(sequences) for at in range(len(one))]
    off, off_blind = (float((found_TX[places] - apart_TX).norm()) for found_TX in (together_TX, blind_TX))
    return off <= AGREE[weight.dtype] * off_blind
