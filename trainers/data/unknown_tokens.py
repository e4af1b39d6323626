"""Unknown tokens: whether a tokenizer has a vocabulary at all, and how much of a text it does not know."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.errors import InputError
from trainers.data.tokenizers import encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Parts of the Universal Declaration of Human Rights, and amino acids: a vocabulary has one of these scripts.
ORDINARY_TEXTS = (
    "All human beings are born free and equal in dignity and rights.",
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ",
    "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "人人生而自由，在尊严和权利上一律平等。",
    "すべての人間は、生まれながらにして自由である。",
    "모든 인간은 태어날 때부터 자유로우며 동등하다.",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता है।",
    "כל בני האדם נולדו בני חורין ושווים בערכם.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน",
    "মানুষ স্বাধীন অবস্থায় সমান মর্যাদা নিয়ে জন্মগ্রহণ করে।",
    "மனிதர்கள் சுதந்திரமாகவே பிறக்கின்றனர்.",
    "የሰው ልጅ ሁሉ ሲወለድ ነጻ ነው።",
    "ყველა ადამიანი იბადება თავისუფალი.",
    "Բոլոր մարդիկ ծնվում են ազատ.",
)

MUCH_UNKNOWN = 0.05  # share of a split's tokens above which there is a warning

# Names under which transformers looks for a vocabulary.
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "tekken.json"),
    *("spiece.model", "spm.model", "sentencepiece.bpe.model", "sentencepiece.model"),
)


def unknown_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Ids that the tokenizer writes for what its vocabulary lacks; empty if nothing can be unknown to it."""
    found: list[Any] = [tokenizer.unk_token_id]
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # the Rust tokenizer may have an unknown token that its Python wrapper does not name
        named = getattr(backend.model, "unk_token", None)
        found.append(backend.token_to_id(named) if named else None)
        if not any(isinstance(i, int) for i in found) and type(backend.model).__name__ == "Unigram":
            found.append(json.loads(backend.to_str())["model"]["unk_id"])
    return {i for i in found if isinstance(i, int)}


def count_unknown(ids: Iterable[Sequence[int]], unknown: set[int]) -> tuple[int, int]:
    """Number of unknown tokens, and of all tokens; a text that has no token counts as one unknown token.

    >>> count_unknown([[5, 0, 6], []], {0})
    (2, 4)
    """
    n_unknown, n_tokens = 0, 0
    for each in ids:
        n_unknown += sum(each.count(i) for i in unknown) if each else 1
        n_tokens += max(len(each), 1)
    return n_unknown, n_tokens


def knows_text(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer knows more than half of the tokens of ordinary text in any of the world's main scripts."""
    unknown = unknown_ids(tokenizer)

    def knows(text: str) -> bool:
        try:
            n_unknown, n_tokens = count_unknown(encode_texts(tokenizer, [text]), unknown)
        except InputError:  # a vocabulary without an unknown token, of another script
            return False
        return 2 * n_unknown < n_tokens

    return any(map(knows, ORDINARY_TEXTS))


def check_vocabulary(tokenizer: "PreTrainedTokenizerBase", source: str, where: str) -> None:
    """Make sure that a tokenizer has a vocabulary: transformers makes an empty tokenizer of a folder without its files.

    source is the folder or hub id; where names it in a message.

    Raises:
        InputError: ordinary text encodes to nothing, or mostly to unknown tokens; the message names the missing files.
    """
    if knows_text(tokenizer):
        return
    names = list(dict.fromkeys(getattr(tokenizer, "vocab_files_names", {}).values()))
    missing = missing_files(source, names)
    lacking = f" (missing: {', '.join(missing)})" if missing else ""
    remedy = "copy the tokenizer files of the same model there" if Path(source).is_dir() else "type another backbone="
    raise InputError(
        f"{where} has no usable tokenizer{lacking}: its {type(tokenizer).__name__} has {len(tokenizer)} tokens and "
        f"encodes ordinary text to nothing or to unknown tokens: {remedy}"
    )


def warnings_of_unknown(shares: Mapping[str, float]) -> list[str]:
    """A warning of one line if much of a split's text, by its share of unknown tokens, is not in the vocabulary.

    >>> warnings_of_unknown({"train": 0.753, "validation": 0.01})
    ['75 % of the tokens of train are unknown to the tokenizer: choose a backbone for that language or script']
    """
    much = [f"{100 * share:.0f} % of the tokens of {name}" for name, share in shares.items() if share > MUCH_UNKNOWN]
    remedy = "are unknown to the tokenizer: choose a backbone for that language or script"
    return [f"{' and '.join(much)} {remedy}"] if much else []


def missing_files(source: str, names: Sequence[str] = TOKENIZER_FILES) -> list[str]:
    """The tokenizer files that a local folder lacks, if it has none of them; empty for a hub id."""
    folder = Path(source)
    return [] if not folder.is_dir() or any((folder / name).is_file() for name in names) else list(names)
