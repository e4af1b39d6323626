"""Prompts in token ids: the boundary between a prompt and what is scored lies in the text, not between tokens.

A prompt with its candidate is tokenised as one text. A token is scored where it holds a scored character, so that a
vocabulary that merges across the boundary is read as it would be in running text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from heads.candidates import Candidates, Masked, share_prefix
from heads.errors import InputError
from heads.example import Example
from heads.prompts import Filled, Template, candidates, field_values
from trainers.data.chat import ChatFrame, chat_frame
from trainers.data.tokenizers import special_runs

Tokens: TypeAlias = list[tuple[list[int], list[tuple[int, int]]]]  # ids and offsets of each text

T = TypeVar("T", Candidates, Masked)


class Spans(NamedTuple):
    """A filled prompt in token ids, special tokens included; its scored tokens are first to last - 1."""

    ids: list[int]
    first: int
    last: int


class Prompted(NamedTuple, Generic[T]):
    """An example ready to be scored: its candidates, the characters of each, and whether its texts were cut."""

    candidates: T
    chars: list[int]
    cut: bool


@dataclass(frozen=True)
class Prompter:
    """Examples to token ids, for one template and tokenizer.

    names are the task's names of an example's texts; words the label words in the labels' order, empty where the
    examples bring candidates of their own. n_ctx is the longest sequence in tokens: the longest texts are cut to fit.
    """

    tokenizer: Any
    n_ctx: int
    template: Template
    names: Sequence[str]
    words: Sequence[str]
    chat: bool = False
    truncation: str = "head"

    def causal(self, examples: Sequence[Example]) -> list[Prompted[Candidates]]:
        """Examples for a causal model.

        Raises:
            InputError: a prompt is too long without its texts, or a scored text is one token that nothing predicts.
        """
        return [
            Prompted(self._share(spans, example), [len(_scored_text(one)) for one in filled], cut)
            for example, filled, spans, cut in self._fitted(examples, self._before)
        ]

    def masked(self, examples: Sequence[Example]) -> list[Prompted[Masked]]:
        """Examples for a masked LM: each scored token is masked in its turn, the others stay (Salazar et al. 2020).

        A label word of one piece is so read at one mask, and candidates of one piece share their row.

        Raises:
            InputError: a prompt is too long without its texts.
        """
        return [
            Prompted(self._mask(spans, example), [len(_scored_text(one)) for one in filled], cut)
            for example, filled, spans, cut in self._fitted(examples, self._around)
        ]

    def unconditional(self, example: Example) -> Candidates | None:
        """The candidates after the template's last words alone; None where that has no meaning, or no token to score.

        See heads/prompts.py.
        """
        answers = candidates(example, self.template, self.words)
        filled = [None if self.chat or answer is None else self.template.unconditional(answer) for answer in answers]
        if any(one is None for one in filled):
            return None
        spans = self._tokenise([one for one in filled if one is not None], self._before)
        return self._share(spans, example) if all(1 <= one.first < one.last for one in spans) else None

    def _fill(self, example: Example) -> list[Filled]:
        fields = field_values(example, self.names, self.words)
        if not self.chat:
            answers = candidates(example, self.template, self.words)
            return [self.template.fill(fields, answer) for answer in answers]
        message = self.template.fill(fields, None).text
        asked = f"{self._frame.before}{message}{self._frame.after}"
        # After a plain marker ([/INST]) an answer begins with a space; after white space or a special token it does not
        markers = (*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab())
        marked = asked[-1:].isspace() or asked.endswith(markers)
        gap = "" if marked else " "
        answers = candidates(example, Template(f"{self.template.pattern}{{answer}}"), self.words)
        return [Filled(f"{asked}{gap}{answer}", len(asked), len(f"{asked}{gap}{answer}")) for answer in answers]

    def _fitted(
        self, examples: Sequence[Example], around: tuple[list[int], list[int]]
    ) -> list[tuple[Example, list[Filled], list[Spans], bool]]:
        """Each example with its prompts, tokenised all at once; then those that are too long again, cut."""
        filled = [self._fill(example) for example in examples]
        spans = iter(self._tokenise([one for each in filled for one in each], around))
        found = []
        for example, each in zip(examples, filled, strict=True):
            mine, kept, cut = [next(spans) for _ in each], example, False
            if not found:
                self._check_words(each, mine)
            while (over := max(len(one.ids) for one in mine) - self.n_ctx) > 0:
                kept, cut = self._cut(kept, over), True
                each = self._fill(kept)
                mine = self._tokenise(each, around)
            found.append((kept, each, mine, cut))
        return found

    def _check_words(self, filled: Sequence[Filled], spans: Sequence[Spans]) -> None:
        """Make sure, on one example's prompts, that the tokenizer knows the label words and tells them apart.

        Raises:
            InputError: two are the same tokens, or one has an unknown token.
        """
        if len(filled) < len(self.words) or not self.words:
            return
        first: dict[tuple[int, ...], str] = {}
        for word, one in zip(self.words, spans, strict=True):
            if (ids := tuple(one.ids)) in first:
                raise InputError(
                    f"the label words '{first[ids]}' and '{word}' are the same tokens for this tokenizer, so no score "
                    "tells them apart: give the labels other words (task.prompts)"
                )
            first[ids] = word
            unknown = self.tokenizer.unk_token_id in one.ids[one.first : one.last]
            if unknown and self.template.scored == "answer":
                raise InputError(
                    f"the tokenizer does not know the label word '{word}' (it has an unknown token): give the label "
                    "another word (task.prompts)"
                )

    def _cut(self, example: Example, over: int) -> Example:
        """The example with its longest text cut, by that many tokens or its share of them."""
        offsets = [each for _, each in self._encode(list(example.texts))]
        sizes = [len(each) for each in offsets]
        longest = max(range(len(sizes)), key=sizes.__getitem__)
        if sizes[longest] < 2:
            raise InputError(
                f"{example.name}: the prompt {self.template.pattern!r} and its candidates alone are longer than "
                f"the {self.n_ctx} tokens that fit: use a shorter template"
            )
        # Down to the next longest, then each an equal share of what is left to cut
        ahead = sizes[longest] - max([size for i, size in enumerate(sizes) if i != longest], default=0)
        drop = over if over <= ahead else min(ahead + -(-(over - ahead) // len(sizes)), sizes[longest] - 1)
        kept = self._shortened(example.texts[longest], offsets[longest], sizes[longest] - drop)
        return replace(example, texts=(*example.texts[:longest], kept, *example.texts[longest + 1 :]))

    def _shortened(self, text: str, offsets: Sequence[tuple[int, int]], n: int) -> str:
        """The n tokens of a text that truncation keeps."""
        first = {"head": n, "tail": 0, "both": n - n // 2}[self.truncation]
        left, right = offsets[first][0], offsets[len(offsets) - (n - first) - 1][1]
        if self.truncation == "head":
            # Tokens of one character begin at the same place, and a text that is cut has to become shorter
            return text[: min(left, len(text) - 1)]
        return (text[:left] + text[max(right, left + 1) :]).lstrip()

    def _encode(self, texts: list[str], *, markers: bool = False) -> Tokens:
        """Token ids and offsets of each text. A special token that a text spells is plain text, unless markers."""
        found = self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=not markers,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        return list(zip(found["input_ids"], found["offset_mapping"], strict=True))

    def _encode_chat(self, filled: Filled) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and offsets of a chat whose message spells a special token, which is plain text there."""
        opening, end = len(self._frame.before), filled.start - len(self._frame.after)
        ids, offsets = [], []
        for start, part, markers in (
            (0, filled.text[:opening], True),
            (opening, filled.text[opening:end], False),
            (end, filled.text[end:], True),
        ):
            ((part_ids, part_offsets),) = self._encode([part], markers=markers)
            ids += part_ids
            offsets += [(start + a, start + b) for a, b in part_offsets]
        return ids, offsets

    def _tokenise(self, filled: Sequence[Filled], around: tuple[list[int], list[int]]) -> list[Spans]:
        encoded = self._encode([one.text for one in filled], markers=self.chat)
        if self.chat:
            for n, one in enumerate(filled):
                message = one.text[len(self._frame.before) : one.start - len(self._frame.after)]
                if any(marker in message for marker in self._markers):
                    encoded[n] = self._encode_chat(one)
        return [self._spans(one, ids, offsets, around) for one, (ids, offsets) in zip(filled, encoded, strict=True)]

    def _spans(
        self, filled: Filled, ids: list[int], offsets: list[tuple[int, int]], around: tuple[list[int], list[int]]
    ) -> Spans:
        opening, closing = around
        scored = [t for t, (a, b) in enumerate(offsets) if b > filled.start and a < filled.end and b > a]
        first = len(opening) + (scored[0] if scored else 0)
        last = len(opening) + (scored[-1] + 1 if scored else 0)
        return Spans([*opening, *ids, *closing], first, last)

    def _share(self, spans: list[Spans], example: Example) -> Candidates:
        bounds = [(max(one.first, 1), one.last) for one in spans]
        if any(first >= last for first, last in bounds):
            raise InputError(
                f"{example.name}: a text that is to be scored has no token that another predicts: it is empty, or "
                "one token with nothing before it"
            )
        if self.chat and len({one.ids[first] for one, (first, _) in zip(spans, bounds, strict=True)}) == len(spans):
            bounds = [(first, first + 1) for first, _ in bounds]  # the first answer token tells them apart
        return share_prefix([one.ids for one in spans], bounds)

    def _mask(self, spans: list[Spans], example: Example) -> Masked:
        if any(one.first >= one.last for one in spans):
            raise InputError(f"{example.name}: a text that is to be scored has no token")
        rows: dict[tuple[int, ...], int] = {}
        reads = []
        for c, (ids, first, last) in enumerate(spans):
            for t in range(first, last):
                row = (*ids[:t], self.tokenizer.mask_token_id, *ids[t + 1 :])
                reads.append((rows.setdefault(row, len(rows)), t, ids[t], c))
        return Masked(tuple(rows), tuple(reads))

    @cached_property
    def _frame(self) -> ChatFrame:
        return chat_frame(self.tokenizer)

    @cached_property
    def _markers(self) -> list[str]:
        """The texts that the tokenizer reads as special tokens."""
        return [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer itself puts before and after a text."""
        found = self.tokenizer("a", return_special_tokens_mask=True)
        runs = special_runs(found["input_ids"], found["special_tokens_mask"])
        return list(runs[0]), list(runs[-1]) if len(runs) > 1 else []

    @cached_property
    def _before(self) -> tuple[list[int], list[int]]:
        """What it puts before a text; a text that goes on has no end. A chat template writes its own."""
        return ([], []) if self.chat else (self._around[0], [])


def _scored_text(filled: Filled) -> str:
    return filled.text[filled.start : filled.end].strip()
