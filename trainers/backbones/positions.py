"""Learned positions that start as sinusoids.

Attending to the word before is then one rotation, the same at every position, that all positions learn together
(Vaswani et al. 2017, section 3.5); from drawn ones it is learned at each position apart.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from heads.errors import InputError


def start_as_sinusoids(full: PreTrainedModel, name: str) -> None:
    """Put sinusoids into the table of positions, of the same standard deviation as what was drawn there.

    Raises:
        InputError: the model learns no positions; name is the backbone's.
    """
    n_positions = getattr(full.config, "max_position_embeddings", None)
    words = full.get_input_embeddings()
    tables = [
        module
        for key, module in full.named_modules()
        if isinstance(module, nn.Embedding) and module is not words and module.num_embeddings == n_positions
    ]
    if len(tables) != 1:
        raise InputError(f"positions=sinusoidal: {name} has no table of learned positions: leave it out")
    table_PD = tables[0].weight
    with torch.no_grad():
        table_PD.copy_(sinusoids(*table_PD.shape) * (2**0.5 * full.config.initializer_range))


def sinusoids(n_positions: int, width: int) -> torch.Tensor:
    """Sine and cosine of each position at wavelengths from 2 pi to 10,000 * 2 pi, (P, D), between -1 and 1.

    >>> (sinusoids(2, 4) * 100).int().tolist()
    [[0, 100, 0, 100], [84, 54, 0, 99]]
    """
    angles_PF = torch.outer(torch.arange(n_positions), 10_000.0 ** -(torch.arange(0, width, 2) / width))
    return torch.stack([angles_PF.sin(), angles_PF.cos()], dim=-1).flatten(1)[:, :width]
