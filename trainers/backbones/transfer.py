"""Layer transfer: which parts of a pretrained backbone are kept, trained anew, frozen (GPT-1 section 5, figure 2).

Layer 0 is the embeddings, layer k the k-th block, layer n_layer + 1 whatever stands above the blocks.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from heads.errors import InputError


def n_layers(base: PreTrainedModel) -> int:
    """Blocks of the backbone."""
    return base.config.num_hidden_layers


def layer_of(base: PreTrainedModel) -> Callable[[str], int]:
    """A function from the name of one of base's parameters to its layer.

    Embedding tables, and all that stands before the blocks, are layer 0.

    Raises:
        InputError: the backbone does not keep its blocks in a list (ALBERT's share one block's weights).
    """
    n = n_layers(base)
    lists = [name for name, m in base.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n]
    if not lists:
        raise InputError(
            f"{type(base).__name__} has no list of {n_layers(base)} blocks: leave out n_transfer, n_frozen, "
            "n_trained, n_reinit and optim.layer_decay"
        )
    blocks = min(lists, key=len)
    tables = {name for name, module in base.named_modules() if isinstance(module, nn.Embedding)}
    names = [name for name, _ in base.named_parameters()]
    first = next(i for i, name in enumerate(names) if name.startswith(f"{blocks}."))
    before = set(names[:first])
    # DeBERTa registers its relative embeddings, and the norm over them, after the blocks that read them
    late = {table.rpartition(".")[0] for table in tables if f"{table}.weight" not in before} - {""}

    def layer(name: str) -> int:
        if name.startswith(f"{blocks}."):
            return int(name[len(blocks) + 1 :].split(".")[0]) + 1
        module = name.rpartition(".")[0]
        below = module in tables or module.rpartition(".")[0] in late or name in before
        return 0 if below else n_layers(base) + 1

    return layer


def check_count(key: str, value: int | None, base: PreTrainedModel, name: str) -> None:
    """Make sure that a number of blocks is one that the backbone has.

    Raises:
        InputError: it has fewer.
    """
    if value is not None and value > n_layers(base):
        raise InputError(f"{key}={value}, and {name} has {n_layers(base)} blocks: give at most {n_layers(base)}")


def keep_layers(full: PreTrainedModel, n_transfer: int, fresh: PreTrainedModel) -> list[str]:
    """Keep the embeddings and the first n_transfer blocks; take the rest from fresh. Returns what was taken.

    -1 keeps nothing, 0 the embeddings, k the embeddings and k blocks (train.py, --n_transfer). What stands above the
    blocks (final norm, pooler, an LM head of its own) is kept only when every block is.
    """
    base: Any = full.base_model
    if n_transfer == n_layers(base):
        return []
    layer = layer_of(base)
    prefix = "" if full is base else f"{full.base_model_prefix}."
    ours, source = dict(full.named_parameters()), dict(fresh.named_parameters())
    inside = {name: name.removeprefix(prefix) for name in ours if name.startswith(prefix)}
    taken = [name for name in ours if name not in inside or layer(inside[name]) > n_transfer]
    with torch.no_grad():
        for name in taken:
            ours[name].copy_(source[name])
    return taken


def freeze(base: PreTrainedModel, n_frozen: int | None) -> None:
    """Stop training the embeddings and the first n_frozen blocks; None trains everything."""
    if n_frozen is None:
        return
    layer = layer_of(base)
    for name, parameter in base.named_parameters():
        if layer(name) <= n_frozen:
            parameter.requires_grad_(False)


def add_embeddings(full: PreTrainedModel, ids: list[int], n_tokens: int, name: str) -> None:
    """Give new token ids rows of their own, drawn from N(0, 0.02) (train.py: randn * 0.02).

    Raises:
        InputError: the tokenizer has more tokens than the model has embeddings, or the model has no table of them.
    """
    try:
        table: Any = full.get_input_embeddings()
    except NotImplementedError as error:
        raise InputError(f"head=gpt1 adds tokens, and {name} has no table of embeddings: use head=cls") from error
    if n_tokens - len(ids) > table.weight.shape[0]:
        raise InputError(
            f"{name}: its tokenizer has {n_tokens - len(ids)} tokens and its model {table.weight.shape[0]} embeddings: "
            "they are not of one model"
        )
    if n_tokens > table.weight.shape[0]:
        full.resize_token_embeddings(n_tokens, mean_resizing=False)
    tables: list[Any] = [full.get_input_embeddings(), full.get_output_embeddings()]
    for weight in {id(one.weight): one.weight for one in tables if one is not None}.values():
        with torch.no_grad():
            weight[ids] = torch.randn(len(ids), weight.shape[1]) * 0.02
