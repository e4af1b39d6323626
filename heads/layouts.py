"""Layouts: which special tokens stand where, and how a sequence that is too long is cut.

A layout turns the token ids of an example's segments into an Encoded. Structure (which texts, in which order) and
layout are two things: four structures and two layouts make every input transformation of GPT-1 and BERT.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from heads.errors import InputError

# What is kept of a text that is too long, as Sun et al. 2019 (How to fine-tune BERT, section 5.3.1) name it.
TRUNCATIONS = ("head", "tail", "both")


class Ids(NamedTuple):
    """A segment in token ids: text, then tail, which is never cut."""

    text: Sequence[int]
    tail: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example in token ids: C sequences, each the prefix followed by its branch.

    extract_position and second_from have one entry for each sequence, counted from the sequence's first token:
    the token whose state a head reads, and the first token of BERT's segment B (the length where there is none).
    n_cut is the number of text tokens that did not fit. n_text is the number of text tokens before truncation, and
    n_unknown how many of them stand for text that the vocabulary does not have.
    """

    prefix: list[int]
    branches: list[list[int]]
    extract_position: list[int]
    second_from: list[int]
    n_cut: int = 0
    n_text: int = field(default=0, repr=False, compare=False)
    n_unknown: int = field(default=0, repr=False, compare=False)

    @property
    def tree_length(self) -> int:
        """Tokens of a row that all sequences share."""
        return len(self.prefix) + sum(map(len, self.branches))


def longest_first(lengths: Sequence[int], budget: int) -> list[int]:
    """Shorten the longest length, one token at a time, until the sum fits (run_classifier.py, _truncate_seq_pair).

    Of two equal lengths the later one is shortened, as in the reference.

    >>> longest_first([7, 4], 8), longest_first([5, 5], 9), longest_first([2, 3], 9)
    ([4, 4], [5, 4], [2, 3])
    """
    kept = list(lengths)
    while sum(kept) > budget:
        longest = max(range(len(kept)), key=lambda i: (kept[i], i))
        kept[longest] -= 1
    return kept


def keep(tokens: Sequence[int], n: int, truncation: str = "head") -> list[int]:
    """The n tokens that truncation keeps of a text: its head, its tail, or both, half of them each.

    >>> [keep([1, 2, 3, 4, 5, 6], 3, side) for side in TRUNCATIONS]
    [[1, 2, 3], [4, 5, 6], [1, 2, 6]]
    """
    if n >= len(tokens):
        return list(tokens)
    first = {"head": n, "tail": 0, "both": n - n // 2}[truncation]
    return [*tokens[:first], *tokens[len(tokens) - (n - first) :]]


def _cut_prefix(
    prefix: Sequence[Ids], branches: Sequence[Sequence[Ids]], room: int, truncation: str
) -> tuple[list[Ids], int]:
    """Cut the prefix to what the longest branch leaves of room text tokens, the same for every branch."""
    fixed = max(sum(len(_flat(s)) for s in branch) for branch in branches) + sum(len(s.tail) for s in prefix)
    if fixed > room:
        raise InputError(
            f"question and answer alone take {fixed} tokens where {room} fit, and neither may be cut: "
            "raise head.n_ctx or shorten the longest choice"
        )
    kept = longest_first([len(s.text) for s in prefix], room - fixed)
    cut = [s._replace(text=keep(s.text, n, truncation)) for s, n in zip(prefix, kept, strict=True)]
    return cut, sum(len(s.text) for s in prefix) - sum(kept)


def _beside_tails(branch: Sequence[Ids], room: int) -> int:
    """What a branch's tails leave of room text tokens."""
    tails = sum(len(s.tail) for s in branch)
    if tails > room:
        raise InputError(
            f"the text that may not be cut takes {tails} tokens where {room} fit: raise head.n_ctx or shorten it"
        )
    return room - tails


def _cut_branch(branch: Sequence[Ids], kept: Sequence[int], truncation: str) -> tuple[list[Ids], int]:
    """Cut each text of a branch to the number of tokens kept."""
    n_cut = sum(len(s.text) for s in branch) - sum(kept)
    if n_cut == 0:  # as almost always
        return list(branch), 0
    return [s._replace(text=keep(s.text, n, truncation)) for s, n in zip(branch, kept, strict=True)], n_cut


def _flat(segment: Ids) -> list[int]:
    return [*segment.text, *segment.tail]


@dataclass(frozen=True)
class Gpt1Layout:
    """[start] segment ([delimiter] segment)* [extract], as transform_roc in openai/finetune-transformer-lm train.py.

    >>> layout = Gpt1Layout(start=1, delimiter=2, extract=3, n_ctx=512)
    >>> layout([], [[Ids([5, 6]), Ids([7])]])
    Encoded(prefix=[], branches=[[1, 5, 6, 2, 7, 3]], extract_position=[5], second_from=[6], n_cut=0)
    >>> layout([Ids([5, 6])], [[Ids([7])], [Ids([8, 9])]])
    Encoded(prefix=[1, 5, 6, 2], branches=[[7, 3], [8, 9, 3]], extract_position=[5, 6], second_from=[6, 7], n_cut=0)
    """

    start: int
    delimiter: int
    extract: int
    n_ctx: int
    truncation: str = "head"

    def __call__(self, prefix: Sequence[Ids], branches: Sequence[Sequence[Ids]]) -> Encoded:
        """Lay out one example; see the class."""
        n_segments = len(prefix) + len(branches[0])
        head, n_cut = [], 0
        if prefix:
            prefix, n_cut = _cut_prefix(prefix, branches, self.n_ctx - n_segments - 1, self.truncation)
            head = [self.start, *(t for segment in prefix for t in [*_flat(segment), self.delimiter])]
        tails = []
        for branch in branches:
            if not prefix:
                # datasets.py: each of k texts gets n_ctx // k - 2 tokens, whatever the other's length
                share = _beside_tails(branch, self.n_ctx - 2 * n_segments) // n_segments
                branch, cut = _cut_branch(branch, [min(len(s.text), share) for s in branch], self.truncation)
                n_cut += cut
            tail = [t for segment in branch for t in [*_flat(segment), self.delimiter]]
            tails.append([*([] if prefix else [self.start]), *tail[:-1], self.extract])
        ends = [len(head) + len(tail) for tail in tails]
        return Encoded(head, tails, [end - 1 for end in ends], ends, n_cut)


@dataclass(frozen=True)
class TextLayout:
    """The segments one after the other, between what the tokenizer puts around a text; the longest is cut first.

    >>> layout = TextLayout(opening=(), closing=(1,), n_ctx=5)
    >>> layout([], [[Ids([5, 6, 7, 8]), Ids([9])]])
    Encoded(prefix=[], branches=[[5, 6, 7, 9, 1]], extract_position=[4], second_from=[5], n_cut=1)
    """

    opening: tuple[int, ...]
    closing: tuple[int, ...]
    n_ctx: int
    truncation: str = "head"

    def __call__(self, prefix: Sequence[Ids], branches: Sequence[Sequence[Ids]]) -> Encoded:
        """Lay out one example, which is one sequence; see the class."""
        (branch,) = branches
        room = self.n_ctx - len(self.opening) - len(self.closing)
        branch, n_cut = _cut_branch(branch, longest_first([len(s.text) for s in branch], room), self.truncation)
        ids = [*self.opening, *(token for segment in branch for token in segment.text), *self.closing]
        return Encoded([], [ids], [len(ids) - 1], [len(ids)], n_cut)


@dataclass(frozen=True)
class BertLayout:
    """[CLS] A [SEP] or [CLS] A [SEP] B [SEP], with whatever the backbone's own tokenizer puts in those places.

    opening, between and closing are the tokens before A, between A and B, and at the end (RoBERTa: ``<s>``,
    ``</s></s>``, ``</s>``); closing_one ends a single text. segment_b is whether the tokenizer gives B its own
    token_type_id. The head reads the first token.

    >>> sep = (102,)
    >>> layout = BertLayout((101,), between=sep, closing=sep, closing_one=sep, segment_b=True, n_ctx=512)
    >>> layout([], [[Ids([5, 6]), Ids([7])]])
    Encoded(prefix=[], branches=[[101, 5, 6, 102, 7, 102]], extract_position=[0], second_from=[4], n_cut=0)
    """

    opening: tuple[int, ...]
    between: tuple[int, ...]
    closing: tuple[int, ...]
    closing_one: tuple[int, ...]
    segment_b: bool
    n_ctx: int
    truncation: str = "head"

    def __call__(self, prefix: Sequence[Ids], branches: Sequence[Sequence[Ids]]) -> Encoded:
        """Lay out one example; see the class."""
        n_segments = len(prefix) + len(branches[0])
        if n_segments > 2:
            raise ValueError(f"BERT's layout takes one or two segments, got {n_segments}")
        pair = n_segments == 2
        n_special = len(self.opening) + (len(self.between) + len(self.closing) if pair else len(self.closing_one))
        room, head, n_cut = self.n_ctx - n_special, [], 0
        if prefix:
            prefix, n_cut = _cut_prefix(prefix, branches, room, self.truncation)
            head = [*self.opening, *_flat(prefix[0]), *self.between]
        tails, second_from = [], []
        for branch in branches:
            if prefix:
                b_from, tail = len(head), [*_flat(branch[0]), *self.closing]
            else:
                kept = longest_first([len(s.text) for s in branch], _beside_tails(branch, room))
                branch, cut = _cut_branch(branch, kept, self.truncation)
                n_cut += cut
                first = [*self.opening, *_flat(branch[0]), *(self.between if pair else self.closing_one)]
                b_from, tail = len(first), [*first, *([*_flat(branch[1]), *self.closing] if pair else [])]
            tails.append(tail)
            second_from.append(b_from if self.segment_b and pair else len(head) + len(tail))
        return Encoded(head, tails, [0] * len(tails), second_from, n_cut)
