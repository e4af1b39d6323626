"""The model that answers in words: an encoder-decoder and the words of each label (Raffel et al. 2020, section 2.4)."""

# B examples, C targets of each (its own, or all K), K labels, U words of a target, V vocabulary

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from heads.collate import Batch
from heads.masked_lm import IGNORED
from heads.text_to_text import LEVELS
from trainers.model import Outputs, base_of


class TextToTextModel(nn.Module):
    """An encoder-decoder that is trained to write a label's words, and is asked how likely each label's are.

    targets has each label's words in token ids, special tokens included; low is the score of the first where they are
    levels of a score.
    """

    def __init__(self, backbone: PreTrainedModel, targets: Sequence[Sequence[int]], low: float | None) -> None:
        super().__init__()
        self.backbone, self.low = backbone, low
        longest = max(map(len, targets))
        table = [[*ids, *[IGNORED] * (longest - len(ids))] for ids in targets]
        self.register_buffer("targets", torch.tensor(table), persistent=False)

    def forward(self, batch: Batch, lm: bool = True) -> Outputs:
        """With lm, of each example's own target, (B, 1): the log-probability, and the mean loss of its words.

        Without, of every label's, (B, K). The encoder reads an example once; the batch is (B, 1, T).
        """
        full: Any = base_of(self.backbone)
        mask_BT = batch.attention_mask[:, 0]
        states = full.get_encoder()(input_ids=batch.input_ids[:, 0], attention_mask=mask_BT)
        targets_KU: Any = self.targets
        if lm:
            targets = [targets_KU[self._index(batch.labels)]]
        else:
            targets = [target_U.expand(len(mask_BT), -1) for target_U in targets_KU]
        with nullcontext() if lm else _in_float32(full.get_output_embeddings()):
            nats_BC = torch.stack([_nats(full, states, mask_BT, target_BU) for target_BU in targets], dim=1)
        words_BC = torch.stack([(target_BU != IGNORED).sum(dim=1) for target_BU in targets], dim=1)
        return Outputs(-nats_BC, nats_BC / words_BC)

    @property
    def networks(self) -> list[nn.Module]:
        """What torch.compile is for, as in TaskModel."""
        full: Any = base_of(self.backbone)
        return [full.get_encoder(), full.get_decoder()]

    def _index(self, labels_B: Tensor) -> Tensor:
        """The row of targets that each label has; a score's is that of the nearest level."""
        return labels_B if self.low is None else ((labels_B - self.low) * LEVELS).round().long()


def _nats(full: Any, states: Any, mask_BT: Tensor, target_BU: Tensor) -> Tensor:
    """Each target's loss, summed over its words, (B,)."""
    inputs_BU = full.prepare_decoder_input_ids_from_labels(labels=target_BU)
    logits_BUV = full(encoder_outputs=states, attention_mask=mask_BT, decoder_input_ids=inputs_BU).logits
    losses = functional.cross_entropy(
        logits_BUV.flatten(0, 1).float(), target_BU.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view(target_BU.shape).sum(dim=1)


@contextmanager
def _in_float32(layer: Any) -> Iterator[None]:
    """Compute a linear layer in float32 within, under autocast too: bfloat16 logits have three significant digits."""

    def forward(states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            bias = None if layer.bias is None else layer.bias.float()
            return functional.linear(states.float(), layer.weight.float(), bias)

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
