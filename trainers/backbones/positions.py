"""Learned positions that start as sinusoids.

Attending to the word before is then one rotation, the same at every position, which all positions learn together
(Vaswani et al. 2017, section 3.5); from drawn ones each position learns it apart.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from heads.errors import InputError


def start_as_sinusoids(full: PreTrainedModel, name: str) -> None:
    """Put sinusoids into the table of positions, of the same root mean square as what is drawn there.

    Raises:
        InputError: the model learns no positions; name is the backbone's.
    """
    limit, words = getattr(full.config, "max_position_embeddings", -1), full.get_input_embeddings()
    tables = [m for m in full.modules() if isinstance(m, nn.Embedding) and m is not words]
    table = next((m for m in tables if limit <= m.num_embeddings <= limit + 2), None)  # OPT has two before the first
    if limit < 0 or table is None:
        raise InputError(f"positions=sinusoidal: {name} has no table of learned positions: leave it out")
    with torch.no_grad():
        table.weight.copy_(sinusoids(*table.weight.shape) * (2**0.5 * full.config.initializer_range))


def sinusoids(n_positions: int, width: int) -> torch.Tensor:
    """Sine and cosine of each position at wavelengths from 2 pi to 10,000 * 2 pi, (P, D), between -1 and 1.

    >>> (sinusoids(2, 4) * 100).int().tolist()
    [[0, 100, 0, 100], [84, 54, 0, 99]]
    """
    angles_PF = torch.outer(torch.arange(n_positions), 10_000.0 ** -(torch.arange(0, width, 2) / width))
    return torch.stack([angles_PF.sin(), angles_PF.cos()], dim=-1).flatten(1)[:, :width]
