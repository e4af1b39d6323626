"""Tokenizers: a backbone's own, and the layout that its special tokens make."""

import shutil
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.errors import InputError
from heads.layouts import BertLayout, Gpt1Layout, TextLayout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIALS = ("_start_", "_delimiter_", "_classify_")  # GPT-1's names for its start, delimiter and extract tokens


def encode_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens; a text that spells one ("[SEP]") is read as plain text.

    A fast tokenizer shares the texts out among its own threads; a tokenizer without a fast version reads one by one.

    Raises:
        InputError: a text has a word that is not in the vocabulary, which has no token for unknown words.
    """
    if not tokenizer.is_fast:
        plain: Any = tokenizer
        return [plain.convert_tokens_to_ids(plain.tokenize(text, split_special_tokens=True)) for text in texts]
    backend: Any = tokenizer.backend_tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    # As transformers' own call does, which then spends twice the time on what nobody reads: offsets, masks, tokens
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    try:
        return [encoded.ids for encoded in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
    except Exception as error:  # the Rust library raises plain Exceptions
        raise InputError(f"the tokenizer of {tokenizer.name_or_path} cannot encode a text: {error}") from error


def tokenizer_content(tokenizer: Any) -> Any:
    """What token ids depend on, besides the text: a fast tokenizer's own file, or all that a slow tokenizer saves."""
    if tokenizer.is_fast:
        return tokenizer.backend_tokenizer.to_str()
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(tokenizer, Path(folder))
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        hashes = {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}
    return [type(tokenizer).__name__, hashes, version("transformers")]


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer as transformers does, with the vocabulary files that a slow tokenizer was read from.

    transformers 5.23 leaves out the counts of BERTweet's merges, and then reads every word as single characters.
    """
    tokenizer.save_pretrained(folder)
    if tokenizer.is_fast:
        return
    for key, name in tokenizer.vocab_files_names.items():
        source = Path(getattr(tokenizer, key, None) or "")
        if source.is_file():
            shutil.copyfile(source, folder / name)


def padding_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """An id to pad with; any would do, since masks come from lengths."""
    found = tokenizer.pad_token_id
    return found if isinstance(found, int) else 0


def keep_words(tokenizer: Any) -> None:
    """Make a GPT-1 tokenizer take cleaned text word by word, as spaCy has split it ("do n't"; a line break is a word).

    Its own pre-tokenizer would split "n't" again. Other tokenizers stay as they are.
    """
    from tokenizers import normalizers, pre_tokenizers

    if not tokenizer.is_fast:
        return
    backend = tokenizer.backend_tokenizer
    if getattr(backend.model, "end_of_word_suffix", None) == "</w>":
        backend.normalizer = normalizers.Sequence([])
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")


def add_gpt1_specials(tokenizer: Any) -> list[int]:
    """Ids of start, delimiter and extract, added to the tokenizer where it does not have them yet."""
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS], special_tokens=True)
    return [tokenizer.convert_tokens_to_ids(name) for name in SPECIALS]


def bert_layout(tokenizer: "PreTrainedTokenizerBase", n_ctx: int) -> BertLayout:
    """BERT's layout with the special tokens that this tokenizer itself puts around one text and around a pair.

    Raises:
        InputError: the tokenizer puts nothing before a text, so that there is no [CLS] to read.
    """
    one: Any = tokenizer("a", return_special_tokens_mask=True)
    pair: Any = tokenizer("a", "b", return_special_tokens_mask=True, return_token_type_ids=True)
    runs = special_runs(pair["input_ids"], pair["special_tokens_mask"])
    first = special_runs(one["input_ids"], one["special_tokens_mask"])
    if len(runs) != 3 or not runs[0] or not runs[2]:
        raise InputError(
            f"head=cls needs a tokenizer that writes [CLS] A [SEP] B [SEP], and {tokenizer.name_or_path} does not: "
            "use head=gpt1"
        )
    return BertLayout(
        opening=runs[0],
        between=runs[1],
        closing=runs[2],
        closing_one=first[-1],
        segment_b=bool(max(pair["token_type_ids"])),
        n_ctx=n_ctx,
    )


def text_layout(tokenizer: "PreTrainedTokenizerBase", n_ctx: int) -> TextLayout:
    """A text between the special tokens that this tokenizer itself puts around one.

    Raises:
        InputError: the tokenizer puts nothing behind a text, so that an answer has no end.
    """
    one: Any = tokenizer("a", return_special_tokens_mask=True)
    runs = special_runs(one["input_ids"], one["special_tokens_mask"])
    if len(runs) != 2 or not runs[1]:
        raise InputError(
            f"objective=text_to_text needs a tokenizer that ends a text with a special token, and "
            f"{tokenizer.name_or_path} does not: type another backbone="
        )
    return TextLayout(runs[0], runs[1], n_ctx)


def special_runs(ids: Sequence[int], special: Sequence[int]) -> list[tuple[int, ...]]:
    """The special tokens before, between and after the texts."""
    runs: list[list[int]] = [[]]
    for n, (token, is_special) in enumerate(zip(ids, special, strict=True)):
        if is_special:
            runs[-1].append(token)
        elif n == 0 or special[n - 1]:
            runs.append([])
    return [tuple(run) for run in runs]


def gpt1_layout(specials: Sequence[int], n_ctx: int) -> Gpt1Layout:
    """GPT-1's layout with the ids of its three special tokens."""
    start, delimiter, extract = specials
    return Gpt1Layout(start, delimiter, extract, n_ctx)
