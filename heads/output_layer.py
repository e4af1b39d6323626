"""The last layer of a head, in float32."""

# B examples, D hidden width, K outputs

import torch
from torch import Tensor, nn
from torch.nn import functional


class OutputLayer(nn.Linear):
    """A linear layer that computes in float32, under autocast and with half-precision weights as well.

    bfloat16 has three significant digits, which would leave a few dozen different scores. After `standardize`, the
    output is on the scale of the labels while the weights stay on a scale of zero mean and unit variance.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_buffer("mean", None)
        self.register_buffer("std", None)

    def standardize(self, mean: float, std: float) -> None:
        """Return ``mean + std * (input @ weight.T + bias)`` from now on; both numbers are saved with the weights."""
        self.mean = torch.tensor(mean, dtype=torch.float32, device=self.weight.device)
        self.std = torch.tensor(std, dtype=torch.float32, device=self.weight.device)

    def forward(self, input: Tensor) -> Tensor:
        """Outputs in float32, shape (B, K)."""
        with torch.autocast(input.device.type, enabled=False):
            output_BK = functional.linear(input.float(), self.weight.float(), self.bias.float())
        if self.mean is None or self.std is None:
            return output_BK
        return self.mean.float() + self.std.float() * output_BK

    def folded(self, name: str, tensor: Tensor) -> Tensor:
        """A weight or bias for a plain linear layer with the same outputs; name is weight or bias.

        >>> layer = OutputLayer(1, 1)
        >>> layer.standardize(3.0, 2.0)
        >>> layer.folded("bias", torch.tensor([0.5])).tolist()
        [4.0]
        """
        if self.mean is None or self.std is None:
            return tensor
        scaled = tensor * self.std.to(tensor)
        return scaled + self.mean.to(tensor) if name == "bias" else scaled


def load_head(head: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a saved head's weights, with the scale of its scores where it has one."""
    layer = head.linear
    if "linear.std" in state and isinstance(layer, OutputLayer):
        layer.standardize(float(state["linear.mean"]), float(state["linear.std"]))
    head.load_state_dict(state)
