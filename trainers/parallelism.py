"""Accelerate's ways of spreading a run over several processes: which are supported, and what each needs.

A mode that would train another model than one process does, or fail after the training, is refused at the start.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from heads.errors import InputError
from trainers.config import FinetuneConfig, PretrainConfig, RunConfig

UNSUPPORTED = (DistributedType.MEGATRON_LM, DistributedType.XLA)


def check_parallelism(accelerator: Accelerator, config: RunConfig) -> None:
    """Make sure that the run gives the same model in this mode as in one process.

    Raises:
        InputError: it does not; the message names a mode that does.
    """
    if accelerator.distributed_type in UNSUPPORTED:
        raise InputError(f"{accelerator.distributed_type.value} is not supported: use multi-GPU (DDP), or FSDP 2")
    if getattr(accelerator, "parallelism_config", None) is not None:
        raise InputError("tensor and context parallelism are not supported: use multi-GPU (DDP), or FSDP 2")
    deepspeed: Any = accelerator.state.deepspeed_plugin
    if deepspeed is not None and deepspeed.zero_stage == 3:
        raise InputError(
            "DeepSpeed's ZeRO stage 3 is not supported: set zero_stage: 2 in accelerate's configuration, or use FSDP "
            "with fsdp_version: 2"
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        _check_fsdp(accelerator.state.fsdp_plugin, config)


def _check_fsdp(plugin: Any, config: RunConfig) -> None:
    if plugin.fsdp_version == 1:
        raise InputError(
            "FSDP version 1 is not supported (it can end with an untrained model): set fsdp_version: 2 in accelerate's "
            "configuration"
        )
    if isinstance(config, FinetuneConfig) and config.peft.method != "none":
        rows = config.head.name == "gpt1"  # the three new tokens' embeddings are trained beside the adapter
        if rows or config.peft.method == "prefix":
            what = f"peft={config.peft.method}" + (" with head=gpt1" if rows else "")
            raise InputError(f"{what} cannot be saved under FSDP: use multi-GPU (DDP)")
    if isinstance(config, PretrainConfig) and config.curve.tasks:
        raise InputError("curve.tasks cannot be scored under FSDP: leave it out, or use multi-GPU (DDP)")


def check_own_head(accelerator: Accelerator, model: nn.Module) -> None:
    """Make sure that an LM head of the model's own code is not in shards, which that code would not gather.

    Raises:
        InputError: it is.
    """
    if accelerator.distributed_type == DistributedType.FSDP and getattr(model, "own_head", None) is not None:
        raise InputError(
            "under FSDP the LM loss of this backbone cannot be computed, since its logits are more than its states "
            "times its output weights: use multi-GPU (DDP), or for a task objective.lm_coef=0"
        )


def configure_deepspeed(accelerator: Accelerator, micro_batch_size: int, max_grad_norm: float) -> None:
    """Give DeepSpeed this run's batch size and clipping, in place of its configuration's.

    The training loop divides an update into micro-batches itself, so DeepSpeed must not accumulate gradients as well.
    """
    plugin: Any = accelerator.state.deepspeed_plugin
    if plugin is None:
        return
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": micro_batch_size,  # it asks a DataLoader for this, and we have none
        "train_batch_size": micro_batch_size * accelerator.num_processes,  # a previous run of this process has set it
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
    }
    plugin.gradient_accumulation_steps, plugin.gradient_clipping = 1, max_grad_norm


def no_gradients(accelerator: Accelerator) -> AbstractContextManager[None]:
    """Inference mode; under FSDP 2 no_grad, since its gathered parameters are used for training afterwards."""
    return torch.no_grad() if accelerator.distributed_type == DistributedType.FSDP else torch.inference_mode()
