"""Parameter-efficient fine-tuning: peft's methods around a backbone."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from heads.errors import InputError
from trainers.config import PeftConfig

# peft has no entry for GPT-1: its attention and feed-forward projections are named as GPT-2's.
GPT1_IA3 = {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"]}


def _lora(config: PeftConfig, base: PreTrainedModel, new_tokens: list[int]) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules or "all-linear",
        use_dora=config.method == "dora",
        trainable_token_indices=new_tokens or None,
        exclude_modules=["pooler.dense"] if getattr(base, "pooler", None) is not None else None,
        fan_in_fan_out=_is_conv1d(base),
    )


def _ia3(config: PeftConfig, base: PreTrainedModel, new_tokens: list[int]) -> Any:
    from peft import IA3Config

    modules: dict[str, Any] = GPT1_IA3 if base.config.model_type == "openai-gpt" else {}
    if config.target_modules:
        modules = {"target_modules": config.target_modules, "feedforward_modules": []}
    return IA3Config(**modules, fan_in_fan_out=_is_conv1d(base))


def _is_conv1d(base: PreTrainedModel) -> bool:
    """Whether the projections are stored input first, as GPT-1's and GPT-2's are."""
    return any(isinstance(module, Conv1D) for module in base.modules())


def _prefix(config: PeftConfig, base: PreTrainedModel, new_tokens: list[int]) -> Any:
    from peft import PrefixTuningConfig

    if not _has_cache(base):
        raise InputError(
            f"peft=prefix gives keys and values to the backbone's cache, and {base.config.model_type} has none: "
            "use peft=lora or peft=ia3"
        )
    return PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=config.n_virtual_tokens)


def _has_cache(base: PreTrainedModel) -> bool:
    return "past_key_values" in inspect.signature(type(base).forward).parameters


def _is_recurrent(base: PreTrainedModel) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in base.modules())


def _ln_tuning(config: PeftConfig, base: PreTrainedModel, new_tokens: list[int]) -> Any:
    from peft import LNTuningConfig

    names = [name for name, module in base.named_modules() if type(module).__name__.endswith("Norm")]
    return LNTuningConfig(target_modules=config.target_modules or names)


ADAPTERS: dict[str, Callable[[PeftConfig, PreTrainedModel, list[int]], Any]] = {
    "lora": _lora,
    "dora": _lora,
    "ia3": _ia3,
    "prefix": _prefix,
    "ln_tuning": _ln_tuning,
}


def fitting(base: PreTrainedModel, family: str) -> list[str]:
    """The methods that a backbone of that family takes as it is."""
    if _is_recurrent(base):
        return ["ln_tuning"]
    takes_prefix = family == "causal" and _has_cache(base)
    return [name for name in ADAPTERS if name != "prefix" or takes_prefix]


def add_adapter(config: PeftConfig, base: PreTrainedModel, new_tokens: list[int]) -> Any:
    """Put an adapter around base, whose own weights stop training.

    new_tokens are the ids of embeddings that were drawn anew: LoRA and DoRA train those rows too.

    Raises:
        InputError: the backbone cannot take the method, or has none of the target modules.
    """
    from peft import get_peft_model

    # LoRA would be put on the projection behind the LSTM and on nothing else, without a word
    on_weights = config.method != "ln_tuning" and not config.target_modules
    if on_weights and _is_recurrent(base):
        raise InputError(
            f"peft={config.method}: peft has no adapters for the LSTM of {base.config.model_type}: use peft=none, or "
            "name the linear layers around it by peft.target_modules=[...]"
        )
    try:
        with _quiet():
            return get_peft_model(base, ADAPTERS[config.method](config, base, new_tokens))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"peft={config.method} does not fit {base.config.model_type} as it is: name its modules by "
            f"peft.target_modules=[...] ({reason})"
        ) from error


def load_adapter(folder: Path, base: PreTrainedModel) -> Any:
    """Put the adapter that a run has saved around base."""
    from peft import PeftModel

    with _quiet():
        return PeftModel.from_pretrained(base, str(folder))


def merge_adapter_folder(full: PreTrainedModel, folder: Path, where: str) -> None:
    """Merge an adapter that peft has saved into its base model; where names the folder in a message.

    Raises:
        InputError: the adapter cannot be read, does not fit the model, or is of a kind that cannot be merged.
    """
    from peft import PeftConfig as Settings
    from peft import PeftModel
    from peft.utils import load_peft_weights

    try:
        _check_mergeable(Settings.from_pretrained(str(folder)), where)
        names = [name.removeprefix("base_model.model.") for name in load_peft_weights(str(folder), device="cpu")]
        prefix = f"{full.base_model_prefix}."
        on_full = full is full.base_model or any(name.startswith(prefix) for name in names)
        with _quiet(), warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")
            PeftModel.from_pretrained(full if on_full else full.base_model, str(folder)).merge_and_unload()
    except InputError:
        raise
    except Exception as error:  # a damaged file, a module that is not there, a size that differs
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{where}: the adapter does not fit its base model ({reason}): give a merged model") from error


def merge_adapter(wrapped: Any, where: str) -> PreTrainedModel:
    """The backbone with its adapter merged into the weights.

    Raises:
        InputError: the adapter is of a kind that cannot be merged, such as prefix tuning.
    """
    _check_mergeable(wrapped.active_peft_config, where)
    return wrapped.merge_and_unload()


def _check_mergeable(settings: Any, where: str) -> None:
    if settings.is_prompt_learning:
        kind = settings.peft_type.lower().replace("_", " ")
        raise InputError(
            f"{where}: an adapter of {kind} adds to the input of each layer and cannot be merged into the weights: "
            "start from a model without an adapter, or with lora, dora, ia3 or ln_tuning"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings that are none, such as of a name that transformers will change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Unsupported layer type", UserWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)  # peft then corrects it
        yield
