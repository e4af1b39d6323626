"""What a language model writes after pieces of the held-out text."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import GenerationConfig, PreTrainedModel

from trainers.config import ContinuationsConfig
from trainers.data.corpus import Blocks
from trainers.data.tokenizers import padding_id
from trainers.parallelism import no_gradients


@dataclass(frozen=True)
class Piece:
    """A piece of held-out text in token ids: what the model is shown, and how the text itself goes on."""

    prompt: list[int]
    rest: list[int]


def draw_pieces(held_out: Blocks, config: ContinuationsConfig, seed: int) -> list[Piece]:
    """The beginnings of blocks drawn by seed; of the longest ones, where too few are longer than a prompt."""
    order = np.random.default_rng(seed).permutation(len(held_out))
    wanted = config.prompt_tokens + 1
    lengths = np.minimum(np.asarray(held_out.lengths)[order], wanted)
    chosen = order[np.argsort(-lengths, kind="stable")][: config.number]
    pieces = []
    for i in chosen.tolist():
        first, length = held_out.firsts[i], held_out.lengths[i]
        at = min(config.prompt_tokens, length - 1)
        ids = held_out.tokens.ids[first : first + min(length, at + config.max_new_tokens)].tolist()
        pieces.append(Piece(ids[:at], ids[at:]))
    return pieces


def write_continuations(
    accelerator: Accelerator,
    full: Any,
    tokenizer: Any,
    pieces: Sequence[Piece],
    config: ContinuationsConfig,
    seed: int,
) -> list[str]:
    """A sampled continuation of each piece's prompt; seeds torch, so that the same model writes the same again."""
    sampling = GenerationConfig(
        do_sample=True,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=0,
        use_cache=takes_cache(full),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=padding_id(tokenizer),
    )
    set_seed(seed)
    training = full.training
    full.eval()
    texts = []
    for piece in pieces:
        ids = torch.tensor([piece.prompt], device=accelerator.device)
        with accelerator.autocast(), no_gradients(accelerator):
            written = full.generate(ids, attention_mask=torch.ones_like(ids), generation_config=sampling)
        texts.append(tokenizer.decode(written[0, len(piece.prompt) :], skip_special_tokens=True))
    full.train(training)
    return texts


def takes_cache(full: PreTrainedModel) -> bool:
    """Whether a model keeps keys and values from one token to the next; GPT-1 and the LSTM do not."""
    return "past_key_values" in inspect.signature(full.base_model.forward).parameters
