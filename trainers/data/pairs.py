"""Pairs of texts for BERT's pretraining, drawn anew in each epoch (BERT, section 3.1 and appendix A.1).

What an example is in an epoch is a function of (seed, epoch, index) alone: it does not depend on batches, processes
or interruptions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np

from heads.collate import Row
from heads.errors import InputError
from heads.layouts import BertLayout, Ids
from heads.masked_lm import MaskedBatch, MaskedRow, collate_masked, mask_tokens
from trainers.data.batches import Place
from trainers.data.corpus import Blocks, Tokens

MIN_TOKENS = 8  # of what is left at a document's end; less is not used

Stretch = tuple[int, int]  # of the corpus: the first token and the one after the last


class Pair(NamedTuple):
    """Where A and B stand in the corpus, and whether B follows A."""

    a: Stretch
    b: Stretch
    is_next: bool


def cut_spans(starts: Sequence[int], n_tokens: int) -> list[Stretch]:
    """Spans of n_tokens that follow each other inside each document.

    A document's last span is shorter, and is left out if it has fewer than MIN_TOKENS.

    >>> cut_spans([0, 28, 55], 10)
    [(0, 10), (10, 20), (20, 28), (28, 38), (38, 48)]
    """
    least = min(n_tokens, MIN_TOKENS)
    return [
        (first, min(first + n_tokens, stop))
        for start, stop in pairwise(starts)
        for first in range(start, stop - least + 1, n_tokens)
    ]


def draw_pair(starts: np.ndarray, span: Stretch, rng: np.random.Generator) -> Pair:
    """Cut a span into A and B, each of a token or more, and with probability 1/2 take B from another document.

    Whichever B is taken, the other is drawn as well, and limits the length: so the cut's place does not tell the two
    apart, even where documents are short.
    """
    first, stop = span
    other_first, other_stop = _elsewhere(starts, span, rng)
    n_second = 1 + int(rng.integers(min(stop - first - 1, other_stop - other_first)))
    cut = stop - n_second
    if rng.random() < 0.5:
        return Pair((first, cut), (cut, stop), is_next=True)
    b_first = int(rng.integers(other_first, other_stop - n_second + 1))
    return Pair((first, cut), (b_first, b_first + n_second), is_next=False)


def _elsewhere(starts: np.ndarray, span: Stretch, rng: np.random.Generator) -> Stretch:
    """Another document, or one side of the span in the only one; drawn by its tokens."""
    n_tokens = int(starts[-1])
    first, stop = _document(starts, span[0])
    if (first, stop) == (0, n_tokens):
        first, stop = span
    place = int(rng.integers(n_tokens - (stop - first)))
    if place < first:
        other_first, other_stop = _document(starts, place)
        return other_first, min(other_stop, first)
    other_first, other_stop = _document(starts, place + stop - first)
    return max(other_first, stop), other_stop


def _document(starts: np.ndarray, place: int) -> Stretch:
    """The document that a token stands in."""
    after = int(np.searchsorted(starts, place, side="right"))
    return int(starts[after - 1]), int(starts[after])


@dataclass(frozen=True)
class MaskedPairs:
    """What the loop reads for one epoch: [CLS] A [SEP] B [SEP] with masks, and whether B follows A.

    An example is a span of n_ctx - 3 tokens of one document, cut into A and B. Cuts are between any two tokens, not
    at the reference's ends of sentences, and another document is drawn by its tokens, not as one of so many, so that B
    alone does not tell whether it follows. In a corpus of one document another B is from outside the span.

    special_ids are never drawn in place of a token; n_vocab counts them.

    Raises:
        InputError: there is no span, or nothing but one span.
    """

    tokens: Tokens
    n_ctx: int
    cls_id: int
    sep_id: int
    mask_id: int
    special_ids: tuple[int, ...]
    n_vocab: int
    seed: int
    source: str = "the corpus"
    epoch: int = 0

    def __post_init__(self) -> None:
        n_tokens = int(self.tokens.starts[-1])
        if not self.spans or self.spans[0] == (0, n_tokens):
            raise InputError(
                f"{self.source} has too little text, {n_tokens} tokens, to pair up to {self.n_ctx - 3} of them with "
                "others: give it more, or lower n_ctx"
            )

    def __len__(self) -> int:
        return len(self.spans)

    def at(self, epoch: int) -> Self:
        """The same spans with the pairs and masks of another epoch."""
        return replace(self, epoch=epoch)

    @cached_property
    def spans(self) -> list[Stretch]:
        """Each example's span; the same in every epoch."""
        return cut_spans(self.tokens.starts.tolist(), self.n_ctx - 3)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each example, [CLS] and [SEP] included; the same in every epoch."""
        return [stop - first + 3 for first, stop in self.spans]

    def batch(self, places: Sequence[Place], pad_id: int) -> MaskedBatch:
        """The examples at (index, weight) places, padded."""
        return collate_masked([self._row(index, weight) for index, weight in places], pad_id=pad_id)

    def _row(self, index: int, weight: float) -> MaskedRow:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        pair = draw_pair(self.tokens.starts, self.spans[index], rng)
        sep = (self.sep_id,)
        layout = BertLayout((self.cls_id,), sep, sep, sep, segment_b=True, n_ctx=self.n_ctx)
        encoded = layout([], [[Ids(self.tokens.ids[slice(*text)].tolist()) for text in (pair.a, pair.b)]])
        ids = np.array(encoded.branches[0])
        maskable = np.ones(len(ids), bool)
        maskable[[0, encoded.second_from[0] - 1, -1]] = False  # the layout's own tokens
        masked, positions = mask_tokens(
            ids, maskable, rng, mask_id=self.mask_id, n_vocab=self.n_vocab, special_ids=self.special_ids
        )
        row = Row(replace(encoded, branches=[masked.tolist()]), int(pair.is_next), weight)
        return MaskedRow(row, positions, ids[positions])


Text = Blocks | MaskedPairs  # running text, as a causal model reads it or as BERT does


def masked_pairs(blocks: Blocks, tokenizer: Any, n_ctx: int, seed: int, source: str = "the corpus") -> MaskedPairs:
    """The pairs of a text's tokens, with a tokenizer's own [CLS], [SEP] and [MASK]; source names the text."""
    return MaskedPairs(
        tokens=blocks.tokens,
        n_ctx=n_ctx,
        cls_id=tokenizer.cls_token_id,
        sep_id=tokenizer.sep_token_id,
        mask_id=tokenizer.mask_token_id,
        special_ids=tuple(tokenizer.all_special_ids),
        n_vocab=len(tokenizer),
        seed=seed,
        source=source,
    )
