"""The training loop, the prediction loop and that of a held-out loss, over Accelerate; the only ones there are."""

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn

from heads.errors import InputError
from trainers.data.batches import Numbers, Place, deal, evaluation_batches
from trainers.data.corpus import Blocks
from trainers.data.pairs import MaskedPairs
from trainers.data.split import Split
from trainers.loader import Loader
from trainers.objectives import Losses
from trainers.parallelism import no_gradients
from trainers.progress import show_progress

# What the loop reads: examples of known lengths, and batches of them as NamedTuples of tensors, among them input_ids,
# n_tokens and weight.
Batches = Split | Blocks | MaskedPairs


@dataclass
class Progress:
    """How far a run is, and what it has counted; all of it is in a checkpoint."""

    epoch: int = 0
    updates_in_epoch: int = 0
    step: int = 0  # updates
    micro_batch_size: int = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0  # of updates alone
    task_loss_in_epoch: float = 0.0  # sum over the epoch's examples so far
    lm_loss_in_epoch: float = 0.0
    examples_in_epoch: int = 0

    def state_dict(self) -> dict[str, Any]:
        """For Accelerate's checkpoint."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From Accelerate's checkpoint."""
        for field in fields(self):
            setattr(self, field.name, state[field.name])


class StepRecord(NamedTuple):
    """What one update did: mean losses over its examples, the learning rate used and the gradient's norm."""

    loss: float
    task_loss: float
    lm_loss: float
    lr: float
    grad_norm: float


class Objective(Protocol):
    """Losses of each example of a batch, and the weight of the second of them."""

    @property
    def lm_coef(self) -> float:
        """The weight of the LM loss beside the task's."""
        ...

    @property
    def whole_batch(self) -> bool:
        """Whether a loss is of the batch and not of its examples."""
        ...

    def __call__(self, outputs: Any, batch: Any) -> Losses:
        """The losses, (B,) each."""
        ...


@dataclass
class Training:
    """Everything that an update changes or needs; model, optimizer and scheduler are prepared by the accelerator."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: Any
    scheduler: Any
    objective: Objective
    max_grad_norm: float
    pad_id: int
    progress: Progress


def train_epoch(training: Training, split: Batches, updates: Sequence[Numbers]) -> Iterator[StepRecord]:
    """Do an epoch's updates from where the progress stands, one for each item taken from the iterator.

    Raises:
        InputError: a loss or gradient is not finite.
    """
    progress = training.progress
    training.model.train()
    with Loader(split, training.pad_id, training.accelerator.device) as load:
        for n in range(progress.updates_in_epoch, len(updates)):
            update = updates[n]
            began = time.perf_counter()
            record = _update(training, split, load, updates[n : n + 2])
            progress.seconds += time.perf_counter() - began
            progress.step += 1
            progress.updates_in_epoch += 1
            progress.examples += len(update)
            progress.task_loss_in_epoch += record.task_loss * len(update)
            progress.lm_loss_in_epoch += record.lm_loss * len(update)
            progress.examples_in_epoch += len(update)
            yield record


def _update(training: Training, split: Batches, load: Loader, updates: Sequence[Numbers]) -> StepRecord:
    """The first of two updates; where memory runs out, again with half the micro-batch, all else as it was.

    The second is what comes next, for the background to load.
    """
    while True:
        try:
            return _attempt(training, split, load, updates)
        except RuntimeError as error:
            progress = training.progress
            if not should_reduce_batch_size(error) or progress.micro_batch_size == 1:
                raise
            if training.accelerator.num_processes > 1 or training.objective.whole_batch:
                raise InputError(
                    f"out of memory with {progress.micro_batch_size} examples at once in each process: "
                    f"set train.micro_batch_size={progress.micro_batch_size // 2}"
                ) from error
            progress.micro_batch_size = -(-progress.micro_batch_size // 2)
            training.accelerator.gradient_state._set_sync_gradients(True)  # or zero_grad does nothing
            training.optimizer.zero_grad()
            training.accelerator.print(f"Out of memory: going on with micro-batches of {progress.micro_batch_size}.")


def _attempt(training: Training, split: Batches, load: Loader, updates: Sequence[Numbers]) -> StepRecord:
    accelerator, progress = training.accelerator, training.progress
    world, update = accelerator.num_processes, updates[0]
    micro_batches, *following = (
        deal(one, split.lengths, rank=accelerator.process_index, world=world, micro=progress.micro_batch_size)
        for one in updates
    )
    load.announce([*micro_batches, *itertools.chain(*following)])
    sums = torch.zeros(4, device=accelerator.device)
    for n, places in enumerate(micro_batches):
        last = n == len(micro_batches) - 1
        # As transformers' Trainer does: DeepSpeed steps in the backward pass after which gradients are in step
        accelerator.gradient_state._set_sync_gradients(last)
        # DDP averages gradients once, in the last micro-batch's backward pass
        with nullcontext() if last or world == 1 else accelerator.no_sync(training.model):
            sums += _backward(training, load(places), scale=world / len(update))
    sums = accelerator.reduce(sums, "sum")
    task_loss, lm_loss = (sums[:2] / len(update)).tolist()
    loss = task_loss + training.objective.lm_coef * lm_loss
    lr = training.scheduler.get_last_lr()[0]  # of the top layer, where layers differ
    clipped: Any = accelerator.clip_grad_norm_(training.model.parameters(), training.max_grad_norm)
    grad_norm = float(clipped)
    if not math.isfinite(loss) or not (math.isfinite(grad_norm) or accelerator.mixed_precision == "fp16"):
        what = f"loss {loss:g}" if not math.isfinite(loss) else f"gradient norm {grad_norm:g}"
        raise InputError(
            f"update {progress.step + 1} has the {what} at learning rate {lr:.2e}: lower optim.lr, lengthen "
            "optim.warmup or use mixed_precision=no"
        )
    training.optimizer.step()
    training.scheduler.step()
    training.optimizer.zero_grad()
    progress.tokens += int(sums[2])
    progress.padded_tokens += int(sums[3])
    return StepRecord(loss, task_loss, lm_loss, lr, grad_norm)


def _backward(training: Training, batch: Any, scale: float) -> torch.Tensor:
    """Add one micro-batch's gradient; returns sums of task loss and LM loss, and its real and padded tokens."""
    losses = training.objective(training.model(batch), batch)
    each_B = (losses.task + training.objective.lm_coef * losses.lm) * batch.weight
    training.accelerator.backward(each_B.sum() * scale)
    sums = [(value * batch.weight).sum() for value in (losses.task, losses.lm, batch.n_tokens)]
    counted = torch.stack([value.detach().float() for value in sums])
    return torch.cat([counted, counted.new_tensor([batch.input_ids.numel()])])


def held_out_loss(
    accelerator: Accelerator, model: nn.Module, text: Batches, indices: Sequence[int], *, pad_id: int, max_tokens: int
) -> tuple[float, int]:
    """The sum of these examples' word losses, in nats, and the words that were predicted; the same on every process."""
    training = model.training
    model.eval()
    batches = evaluation_batches([text.lengths[i] for i in indices], 1, max_tokens)
    sums = torch.zeros(2, device=accelerator.device, dtype=torch.float64)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    n_mine = len(mine)
    if n_mine < -(-len(batches) // accelerator.num_processes):
        mine = [*mine, batches[0]]  # a forward pass is a collective act: every process makes as many
    places = ([(indices[i], 1.0) for i in one] for one in mine)
    with accelerator.autocast():  # around all batches: weights are then made bfloat16 once
        for n, batch in enumerate(_each(text, places, pad_id, accelerator.device)):
            with no_gradients(accelerator):
                words = model(batch)
            if n < n_mine:
                sums += torch.stack([(words.loss.double() * words.n_targets).sum(), words.n_targets.sum().double()])
    total: Any = accelerator.reduce(sums, "sum")
    nats, n_targets = total.tolist()
    model.train(training)
    return nats, round(n_targets)


def _each(source: Batches, batches: Iterable[list[Place]], pad_id: int, device: torch.device) -> Iterator[Any]:
    """The batches of these places, one after the other."""
    with Loader(source, pad_id, device) as load:
        for places, following in itertools.pairwise(itertools.chain(batches, [None])):
            assert places is not None
            load.announce([places] if following is None else [places, following])
            yield load(places)


def predict(
    accelerator: Accelerator, model: nn.Module, split: Split, *, pad_id: int, max_tokens: int, desc: str | None = None
) -> np.ndarray:
    """Logits of every example, in the split's order, float32 (N, K), the same on every process.

    Each example has one row, whatever the number of processes. Candidates that an example lacks are minus infinity.
    """
    model.eval()
    batches = evaluation_batches(split.lengths, split.n_rows, max_tokens, packed=split.packed)
    world = accelerator.num_processes
    mine = batches[accelerator.process_index :: world]
    if len(mine) < -(-len(batches) // world):
        mine = [*mine, batches[0]]  # a forward pass is a collective act: every process makes as many
    found: list[tuple[np.ndarray, np.ndarray]] = []
    total = sum(map(len, mine))
    bar = show_progress(total, desc, "ex", disable=not accelerator.is_main_process or desc is None)
    places = ([(i, 1.0) for i in indices] for indices in mine)
    with accelerator.autocast():  # around all batches: weights are then made bfloat16 once
        for indices, batch in zip(mine, _each(split, places, pad_id, accelerator.device), strict=True):
            with no_gradients(accelerator):
                logits = model(batch, lm=False).logits.float().cpu().numpy()
            found.append((indices, logits))
            bar.update(len(indices))
    bar.close()
    gathered = gather_object(found)
    width = max(logits.shape[1] for _, logits in gathered)
    whole = np.full((len(split), width), -np.inf, dtype=np.float32)
    for indices, logits in gathered:
        whole[indices, : logits.shape[1]] = logits
    return whole
