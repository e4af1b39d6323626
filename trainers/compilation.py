"""torch.compile of a model's networks, in place: names in the state dict stay as they are."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from accelerate import Accelerator

BACKEND: str | Callable[..., Any] = "inductor"  # torch's own: Triton's kernels on a GPU, C++ on a CPU
RECOMPILATIONS = 8  # of one function; where guards fail more often it runs as it is written


def compile_networks(networks: Iterable[nn.Module]) -> None:
    """Have each network compiled when it is first called, once for rows of all lengths.

    It is compiled again for another kind of call (training, evaluation; a mask or none; one row alone). A recurrent
    network stays as it is: torch's compiler leaves an LSTM to its own kernels.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = RECOMPILATIONS
    for network in networks:
        if not any(isinstance(module, nn.RNNBase) for module in network.modules()):
            network.compile(dynamic=True, backend=BACKEND)


def compiles(accelerator: "Accelerator") -> bool:
    """Whether accelerate itself was told to compile what it prepares (--dynamo_backend)."""
    from accelerate.utils import DynamoBackend

    plugin = accelerator.state.dynamo_plugin
    return plugin is not None and plugin.backend != DynamoBackend.NO
