"""One item of a task, in text."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Example:
    """One item of a task, in text.

    texts holds the given text: ``(sentence,)``, ``(premise, hypothesis)``, ``(article, question)``.
    choices holds the endings or answers to choose among; empty unless the task is multiple choice.
    rest is the text that follows whichever choice is put in; empty unless the choices stand inside a sentence (DPR).
    row says where the item comes from in the user's file, for messages; empty where that is not known.
    label is a class index, the index of the right choice, a score (STS-B, 0 to 5), or None where it is not known.
    """

    guid: str
    texts: tuple[str, ...]
    choices: tuple[str, ...] = ()
    label: int | float | None = None
    rest: str = ""
    row: str = field(default="", compare=False)

    @property
    def has_text(self) -> bool:
        """Whether there is anything to read: a text, or a choice where there are choices.

        >>> Example("qqp-0", ("Why?", "")).has_text, Example("qqp-1", ("", " ")).has_text
        (True, False)
        """
        return any(text.strip() for text in self.choices or self.texts)

    @property
    def name(self) -> str:
        """The item's name in messages."""
        return self.row or f"row {self.guid}"
