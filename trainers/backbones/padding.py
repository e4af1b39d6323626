"""Whether a network must be told which of a row's last tokens are padding."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

AGREE = 1e-4  # share of the states' norm by which rounding may part them


def needs_mask(network: nn.Module) -> bool:
    """Whether tokens get other states without a mask than with one, on a small input that is padded on the right.

    A causal network's do not, since no token sees what comes after it, and without a mask its attention takes the
    faster path. The network itself is asked: some causal ones read their positions from the mask.
    """
    first = next(network.parameters(), None)
    if first is None:
        return True
    ids_NT = torch.tensor([[1, 2, 3, 4, 5, 6], [6, 5, 4, 0, 0, 0]], device=first.device)
    mask_NT = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], device=first.device)

    def ask(**mask: Any) -> Tensor:
        return network(input_ids=ids_NT, **mask)[0][mask_NT.bool()].float()

    training = network.training
    network.eval()
    try:
        with torch.no_grad(), torch.autocast(first.device.type, enabled=False):
            told, untold = ask(attention_mask=mask_NT), ask()
    except (TypeError, ValueError, RuntimeError):  # it cannot do without a mask
        return True
    finally:
        network.train(training)
    return not float((told - untold).norm()) <= AGREE * float(told.norm())


def pad_short_inputs(network: nn.Module) -> None:
    """Let CANINE read sequences that are shorter than its downsampling rate, which transformers fails on."""
    shortest = getattr(getattr(network, "config", None), "downsampling_rate", 1)
    if shortest > 1:
        network.register_forward_pre_hook(_pad_to(shortest), with_kwargs=True)


def _pad_to(shortest: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
    def lengthen(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        lacking = shortest - given["input_ids"].shape[-1]
        if lacking <= 0:
            return None
        if given.get("attention_mask") is None:
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        per_token = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        return args, given | {key: pad(given[key], (0, lacking)) for key in per_token if given.get(key) is not None}

    return lengthen
