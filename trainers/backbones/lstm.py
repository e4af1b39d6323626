"""GPT-1's ablation backbone, an LSTM in the Transformer's place, as models that transformers saves and loads.

Radford et al. 2018, section 5: "a single layer 2048 unit LSTM using the same framework". The heads, the input
transformations and the tied LM softmax are GPT's. Importing this file lets the Auto classes open a saved one.
"""

# N sequences, T tokens, D hidden width (of embeddings and states), U units of the LSTM, V vocabulary

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from heads.errors import InputError
from trainers.backbones.lstm_backward import lstm_states


class LstmConfig(PretrainedConfig):
    """Sizes, dropouts and starting values.

    hidden_size is the width of embeddings and of the states that heads read; n_units that of the LSTM between them (a
    projection leads back, so that the softmax can be tied). layer_norm says whether a block ends in a norm, as GPT's
    do. An LSTM has no positions: max_position_embeddings is the length that sequences are cut to, as GPT's would be,
    and shapes no weight.
    """

    model_type = "ablatune_lstm"
    attribute_map = {"num_hidden_layers": "n_layer"}  # noqa: RUF012  (as every config of transformers has it)

    vocab_size: int = 40478
    max_position_embeddings: int = 512
    hidden_size: int = 768
    n_units: int = 2048
    n_layer: int = 1
    layer_norm: bool = True
    embd_pdrop: float | int = 0.1
    resid_pdrop: float | int = 0.1
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True


class LstmBlock(nn.Module):
    """One layer: the LSTM, the projection of its units to the width of the embeddings, and a norm."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.hidden_size, config.n_units, batch_first=True)
        self.lstm.register_state_dict_post_hook(_apart)
        self.projection = nn.Linear(config.n_units, config.hidden_size)
        self.drop = nn.Dropout(config.resid_pdrop)
        # The paper does not speak of one. Without it states are as small as N(0, 0.02) makes them: heads learn late and
        # in jumps where GPT's learn smoothly, and the language model learns slowly below a learning rate of 1e-2
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-5) if config.layer_norm else nn.Identity()

    def forward(self, hidden_NTD: Tensor) -> Tensor:
        """The states after each token, (N, T, D), from a zero state."""
        return self.norm(self.drop(self.projection(lstm_states(self.lstm, hidden_NTD))))


class LstmModel(PreTrainedModel):
    """Token ids to hidden states; the blocks are a list, as layer transfer wants them."""

    config_class = LstmConfig
    base_model_prefix = "model"

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.blocks = nn.ModuleList(LstmBlock(config) for _ in range(config.n_layer))
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutput:
        """The states (N, T, D); a token of the mask (N, T) that is 0 is passed over, wherever it stands.

        Raises:
            InputError: the mask is not one of tokens.
        """
        order_NT = None if attention_mask is None else _real_first(attention_mask)
        if order_NT is not None:
            input_ids = input_ids.gather(1, order_NT)
        hidden_NTD = self.drop(self.embed_tokens(input_ids))
        for block in self.blocks:
            hidden_NTD = block(hidden_NTD)
        if order_NT is not None:
            place_NT = order_NT.argsort(dim=1)
            hidden_NTD = hidden_NTD.gather(1, place_NT[..., None].expand_as(hidden_NTD))
        return BaseModelOutput(last_hidden_state=hidden_NTD)  # pyright: ignore[reportArgumentType]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LSTM):
            _draw(module)
        else:
            super()._init_weights(module)  # N(0, initializer_range) and zero


class LstmForCausalLM(PreTrainedModel, GenerationMixin):
    """The model with an LM softmax, tied to the embeddings."""

    config_class = LstmConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.model = LstmModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, return_dict: bool = True
    ) -> CausalLMOutput:
        """Logits (N, T, V) of the next token; return_dict is what generate() asks for, and changes nothing."""
        hidden_NTD = self.model(input_ids, attention_mask).last_hidden_state
        return CausalLMOutput(logits=self.lm_head(hidden_NTD))

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """What generate() gives forward: all tokens so far, since no states are kept between two of them."""
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask")}


def _real_first(mask: Tensor) -> Tensor:
    """An order of each row's tokens, (N, T), that has the real ones first and leaves them in theirs.

    Raises:
        InputError: it is not a mask of tokens.
    """
    if mask.dim() != 2:
        raise InputError(
            f"attention_mask has shape {tuple(mask.shape)}, and an LSTM reads tokens one after the other: give a mask "
            "of tokens (N, T)"
        )
    return (mask == 0).int().argsort(dim=1, stable=True)


def _draw(lstm: Any) -> None:
    """Starting values of an LSTM's weights and biases."""
    # torch's own weights: N(0, 0.02) and orthogonal recurrent ones came within 0.05 nats of them (384 units, no norm,
    # 600 updates of 1,024 tokens of books)
    bound = lstm.hidden_size**-0.5
    for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0):
        initialization.uniform_(weight, -bound, bound)
    # A cell remembers before it has learned what to forget: Jozefowicz et al. 2015, An Empirical Exploration of
    # Recurrent Network Architectures. torch adds up two biases, so that one alone holds the 1.
    forget_1 = torch.zeros_like(lstm.bias_ih_l0)
    forget_1[lstm.hidden_size : 2 * lstm.hidden_size] = 1.0  # the gates' order is input, forget, cell, output
    initialization.copy_(lstm.bias_ih_l0, forget_1)
    initialization.zeros_(lstm.bias_hh_l0)


def _apart(lstm: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Give each of the LSTM's tensors in a state dict memory of its own.

    On a GPU they are parts of one buffer (cuDNN's), which safetensors' writers take for copies of one tensor: all but
    the first would be left out of a checkpoint.
    """
    for name in [f"{prefix}{name}" for name, _ in lstm.named_parameters()]:
        tensor = state[name]
        # state_dict(keep_vars=True) gives the parameters themselves, which must stay what they are
        if not isinstance(tensor, nn.Parameter) and tensor.untyped_storage().nbytes() > tensor.nbytes:
            state[name] = tensor.clone()


AutoConfig.register(LstmConfig.model_type, LstmConfig)
AutoModel.register(LstmConfig, LstmModel)
AutoModelForCausalLM.register(LstmConfig, LstmForCausalLM)
