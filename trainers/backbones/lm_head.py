"""From a language model's hidden states to its logits: a product with one matrix, or the model's own code."""

# R states (rows), D hidden width, V vocabulary

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from heads.errors import InputError
from trainers.backbones.tree import REFUSALS

LARGE = 100.0  # scale of the states at which a cap such as Gemma 2's (30) changes the logits, for any weights


class OwnHead:
    """A model's logits from given hidden states, by the model's own code: prediction head, bias, scale, cap.

    For one call, a module that returns the given states takes the place of the model's network; output_type is what
    the network returns. parameters are those of the head that are not the network's as well, by state_name.
    """

    def __init__(self, full: PreTrainedModel, output_type: type) -> None:
        whole: Any = full
        self.output_type = output_type
        self.full, self.prefix = whole, whole.base_model_prefix
        inside = {id(parameter) for parameter in whole.base_model.parameters()}
        self.parameters = {state_name(name): one for name, one in whole.named_parameters() if id(one) not in inside}

    def __call__(self, states_RD: Tensor) -> Tensor:
        """Logits, shape (R, V)."""
        network = getattr(self.full, self.prefix)
        self.full._modules[self.prefix] = _Given(self.output_type(last_hidden_state=states_RD[None]))
        try:
            ids_1R = torch.zeros(1, len(states_RD), dtype=torch.int64, device=states_RD.device)
            return self.full(input_ids=ids_1R, use_cache=False).logits[0]
        finally:
            self.full._modules[self.prefix] = network


def state_name(name: str) -> str:
    """What a parameter of a head is called in a task model's state, where a name has no dots.

    >>> state_name("decoder.bias")
    'decoder__bias'
    """
    return name.replace(".", "__")


class _Given(nn.Module):
    """A network whose output is given."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.output


def lm_head_of(full: PreTrainedModel, name: str) -> Tensor | OwnHead:
    """The matrix whose product with the states is the logits, or the model's own head where they are more than that.

    Which ones are is written nowhere, so the model itself is asked, with small and with large states.

    Raises:
        InputError: neither gives the model's logits, so that an LM loss would not be the model's own.
    """
    whole: Any = full
    training = whole.training
    whole.eval()
    try:
        with torch.no_grad():
            return _find(whole, name)
    finally:
        whole.train(training)


def _find(full: Any, name: str) -> Tensor | OwnHead:
    weight = _output_weight(full)
    ids = torch.tensor([[1, 2, 3]], device=weight.device)
    output = full.base_model(input_ids=ids)
    own, states_RD = OwnHead(full, type(output)), output.last_hidden_state[0]
    expected_RV = full(input_ids=ids)[0][0]
    try:
        is_own = _same(own(states_RD), expected_RV)
    except REFUSALS:
        is_own = False
    if not is_own:
        # Without the model's own head, nothing shows what large states would give
        if states_RD.shape[1] == weight.shape[1] and _same(states_RD @ weight.T, expected_RV):
            return weight
        raise InputError(
            f"backbone {name}: the logits of {full.config.model_type} cannot be computed from its states, so it has no "
            "LM loss here: set objective.lm_coef=0, or type another backbone="
        )
    if states_RD.shape[1] != weight.shape[1]:
        return own
    largest = float((states_RD @ weight.T).abs().max())
    probes = [states_RD * factor for factor in (0.0, 1.0, LARGE / max(largest, 1e-6))]
    return weight if all(_same(own(probe), probe @ weight.T) for probe in probes) else own


def _output_weight(full: Any) -> Tensor:
    return (full.get_output_embeddings() or full.get_input_embeddings()).weight


def _same(found_RV: Tensor, expected_RV: Tensor) -> bool:
    return found_RV.shape == expected_RV.shape and torch.allclose(found_RV, expected_RV, rtol=1e-4, atol=1e-4)
