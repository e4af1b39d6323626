"""The config of a corpus: running text that a language model is trained on."""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from trainers.config.need import need

ENDINGS = (".txt", ".gz", ".xz")
LEAST_VOCABULARY = 300  # a byte-level vocabulary begins with 256 single bytes


@dataclass
class CorpusConfig:
    """Running text, from files or from a data set of the hub; conf/corpus/*.yaml."""

    name: str = MISSING
    files: list[str] = field(default_factory=list)  # of the training text: .txt, .gz or .xz, UTF-8
    valid_files: list[str] = field(default_factory=list)  # held out: never trained on
    hub: str | None = None  # data set id on the Hugging Face hub, or a folder; a row is a document, read as a stream
    hub_config: str | None = None  # its configuration there
    hub_split: str = "train"
    hub_valid_split: str | None = "validation"  # held out, where there are no valid_files
    hub_column: str = "text"
    # Share of files that is held out, at their end, where there are no valid_files; null refuses to train without any.
    valid_fraction: float | None = None
    separator: str = "<|endoftext|>"  # a line of its own that ends a document; "" is a blank line
    vocab_size: int = 8000  # pieces of the tokenizer that is trained on the text
    max_tokens: int | None = None  # the training text ends after so many tokens; null is all of it
    cache: str | None = None  # folder of token files; null is $ABLATUNE_CACHE, else ~/.cache/ablatune

    def __post_init__(self) -> None:
        """One source, readable endings, numbers in range."""
        need(
            bool(self.files) or self.hub is not None,
            "the corpus has no text: type corpus.files=[books.txt], corpus.hub=OWNER/NAME or corpus=sample",
        )
        need(
            not self.files or self.hub is None,
            f"corpus.files and corpus.hub={self.hub} both say where the training text is: give one of them",
        )
        for key in ("files", "valid_files"):
            for file in getattr(self, key):
                ending = Path(file).suffix
                need(ending in ENDINGS, f"corpus.{key} has {file}: the ending is not one of {', '.join(ENDINGS)}")
        need(
            self.valid_fraction is None or 0 < self.valid_fraction < 1,
            f"corpus.valid_fraction is a share of the text, in (0, 1), got {self.valid_fraction}",
        )
        training = {Path(file).resolve() for file in self.files}
        both = sorted(file for file in self.valid_files if Path(file).resolve() in training)
        need(not both, f"corpus.files and corpus.valid_files both have {', '.join(both)}: train on it or hold it out")
        need(
            self.hub is None or bool(self.valid_files) or self.hub_split != self.hub_valid_split,
            f"corpus.hub_split and corpus.hub_valid_split are both {self.hub_split}: train on it or hold it out",
        )
        need(
            self.separator == self.separator.strip() and "\n" not in self.separator,
            f"corpus.separator is what a whole line says, without blanks around it, got {self.separator!r}",
        )
        need(
            self.vocab_size >= LEAST_VOCABULARY,
            f"corpus.vocab_size is at least {LEAST_VOCABULARY} pieces, got {self.vocab_size}",
        )
        need(self.max_tokens is None or self.max_tokens >= 1, f"corpus.max_tokens is at least 1, got {self.max_tokens}")

    @property
    def is_cut(self) -> bool:
        """Whether the held-out text is the end of the files, and not a text of its own."""
        return bool(self.files) and not self.valid_files and self.valid_fraction is not None
