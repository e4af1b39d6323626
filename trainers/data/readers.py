"""Readers: one record of a source to Examples.

Most tasks map column by column. A reader of its own is for records that must be reshaped: RACE's raw files hold
several questions on one article, Story Cloze four sentences and two endings, DPR a sentence with a pronoun to replace.
"""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from heads.errors import InputError
from heads.example import Example
from trainers.choose import choose, nearest
from trainers.config import TaskConfig
from trainers.data.column_types import check_types
from trainers.data.labels import ToLabel
from trainers.data.origins import ORIGIN, row_name, visible

if TYPE_CHECKING:
    from datasets import Dataset

Record = dict[str, Any]
Reader = Callable[[Record, str, TaskConfig, ToLabel], list[Example]]


def _text(record: Record, column: str) -> str:
    """A text; an empty one is valid beside others (Example.has_text)."""
    value = record[column]
    return "" if value is None else str(value)


def _required_text(record: Record, column: str, guid: str) -> str:
    text = _text(record, column)
    if not text.strip():
        raise InputError(f"{row_name(record, guid)} has no text in column '{column}': fill it in or leave the row out")
    return text


def _listed(record: Record, column: str, guid: str) -> tuple[str, ...]:
    value = record[column]
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InputError(
            f"{row_name(record, guid)} has no list in column '{column}', but {type(value).__name__}: candidates in "
            "one column are a list (JSON lines, Parquet); candidates in several are task.choices=[choice1,choice2,...]"
        )
    return tuple("" if one is None else str(one) for one in value)


def _choices(example: Example) -> Example:
    """The example, if its candidates are such that one of them can be right."""
    if not example.has_text:
        return example
    if len(example.choices) < 2:
        raise InputError(f"{example.name} has {len(example.choices)} candidate(s): 2 are the least")
    if example.label is not None and example.label >= len(example.choices):
        raise InputError(
            f"{example.name} has {len(example.choices)} candidates, and its label is candidate {example.label + 1}"
        )
    return example


def columns(record: Record, guid: str, task: TaskConfig, to_label: ToLabel) -> list[Example]:
    """Column by column, as the task's texts, choices and label say."""
    texts = tuple(_text(record, column) for column in task.texts)
    row = row_name(record, guid)
    label = to_label(record.get(task.label), row)
    if not task.choices:
        return [Example(guid, texts, (), label, row=row)]
    if len(task.choices) == 1:
        candidates = _listed(record, task.choices[0], guid)
    else:
        candidates = tuple(_text(record, column) for column in task.choices)
    return [_choices(Example(guid, texts, candidates, label, row=row))]


def race(record: Record, guid: str, task: TaskConfig, to_label: ToLabel) -> list[Example]:
    """RACE: one question a row, as on the hub, or the raw files' several questions on one article."""
    if "questions" not in record:
        return [_race_question(record, guid, to_label(record.get(task.label), row_name(record, guid)))]
    answers = record.get("answers") or [None] * len(record["questions"])
    asked = zip(record["questions"], record["options"], answers, strict=True)
    return [
        _race_question(
            record | {"question": question, "options": options}, f"{guid}-{n}", to_label(answer, row_name(record, guid))
        )
        for n, (question, options, answer) in enumerate(asked)
    ]


def _race_question(record: Record, guid: str, label: int | float | None) -> Example:
    texts = (_text(record, "article"), _text(record, "question"))
    return _choices(Example(guid, texts, _listed(record, "options", guid), label, row=row_name(record, guid)))


# XStoryCloze's columns, and those of the authors' CSV files.
STORY_COLUMNS = [
    [*(f"input_sentence_{n}" for n in (1, 2, 3, 4)), "sentence_quiz1", "sentence_quiz2"],
    [*(f"InputSentence{n}" for n in (1, 2, 3, 4)), "RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"],
]


def story_cloze(record: Record, guid: str, task: TaskConfig, to_label: ToLabel) -> list[Example]:
    """Story Cloze: the four sentences joined by spaces (datasets.py), and two endings."""
    names = STORY_COLUMNS[0] if STORY_COLUMNS[0][0] in record else STORY_COLUMNS[1]
    *story, first, second = (_text(record, name) for name in names)
    answer = record.get(task.label, record.get("AnswerRightEnding"))
    row = row_name(record, guid)
    return [
        _choices(
            Example(
                guid,
                (" ".join(sentence for sentence in story if sentence),),
                (first, second),
                to_label(answer, row),
                row=row,
            )
        )
    ]


CONNECTIVES = {"cause": "because", "effect": "so"}


def copa(record: Record, guid: str, task: TaskConfig, to_label: ToLabel) -> list[Example]:
    """COPA: the premise without its full stop, "because" or "so", and two clauses that could follow."""
    row = row_name(record, guid)
    connective = choose(CONNECTIVES, _required_text(record, "question", guid), what="question", where=row)
    premise = _text(record, "premise").strip().removesuffix(".")
    clauses = tuple(_clause(_text(record, name)) for name in ("choice1", "choice2"))
    return [_choices(Example(guid, (premise, connective), clauses, to_label(record.get(task.label), row), row=row))]


def _clause(sentence: str) -> str:
    """A sentence as it goes on after "because"; COPA's people have no names, so a first word is seldom a name.

    >>> _clause("The sun was rising."), _clause("I'm late."), _clause("TV bores me.")
    ('the sun was rising.', "I'm late.", 'TV bores me.')
    """
    sentence = sentence.strip()
    keeps_its_capital = re.match(r"I\b|\w+[A-Z]", sentence)
    return sentence if keeps_its_capital else sentence[:1].lower() + sentence[1:]


# WSC273's columns have the pronoun's place, DPR's do not.
PRONOUN_COLUMNS = [["text", "pronoun", "pronoun_loc", "options"], ["sentence", "pronoun", "candidates"]]


def pronoun(record: Record, guid: str, task: TaskConfig, to_label: ToLabel) -> list[Example]:
    """DPR and WSC273: the text before a pronoun, two candidates as they read in its place, and the rest of the text.

    WSC273 says where the pronoun stands. In DPR it is the first whole word of that spelling behind both candidates'
    first mention: in 37 of the 1,316 train rows it occurs more than once, and there this is the one that the label is
    about. Where none is behind both, it is the first of all.
    """
    located = "pronoun_loc" in record
    names = PRONOUN_COLUMNS[0] if located else PRONOUN_COLUMNS[1]
    sentence, word = (_required_text(record, name, guid) for name in names[:2])
    candidates = _listed(record, names[-1], guid)
    at = record["pronoun_loc"] if located else _find(sentence, word, candidates)
    if at is None or sentence[at : at + len(word)].lower() != word.lower():
        where = f"at place {at} of" if located else "a word of"
        raise InputError(
            f"{row_name(record, guid)}: the pronoun '{word}' is not {where} '{sentence}': mend the row or leave it out"
        )
    written, rest = sentence[at : at + len(word)], sentence[at + len(word) :]
    choices = tuple(_in_place(candidate, written, rest) for candidate in candidates)
    row = row_name(record, guid)
    label = to_label(record.get(task.label), row)
    return [_choices(Example(guid, (sentence[:at].rstrip(),), choices, label, rest, row))]


def _words(text: str, words: str) -> list[re.Match[str]]:
    return list(re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE))


def _find(sentence: str, word: str, candidates: tuple[str, ...]) -> int | None:
    """Where the pronoun stands in a DPR sentence.

    >>> _find("They told Ann that she thought she won.", "she", ("They", "Ann"))
    19
    """
    found = [match.start() for match in _words(sentence, word)]
    mentions = [match.end() for candidate in candidates for match in _words(sentence, candidate)[:1]]
    behind = [at for at in found if at >= max(mentions, default=0)]
    return next(iter(behind or found), None)


POSSESSIVES = frozenset(("my", "your", "his", "its", "our", "their"))
DETERMINERS = POSSESSIVES | frozenset(
    ("a", "an", "the", "this", "that", "these", "those", "her", "some", "any", "many", "several", "most", "all", "both")
)
# "took her to the door" against "took her coat": her is an object before these, a stop or the end.
AFTER_AN_OBJECT = re.compile(
    r"\s*($|[.,;:!?)]|(a|about|after|again|an|and|as|at|away|because|but|by|during|for|from|he|if|in|into|it|on|or|she"
    r"|since|so|than|that|the|they|to|too|until|when|while|with)\b)",
    re.IGNORECASE,
)


def _in_place(candidate: str, written: str, rest: str) -> str:
    """A candidate as it reads in the pronoun's place: its first letter, and 's where the pronoun is a possessive.

    written is the pronoun as the text has it, so that its capital says whether a sentence begins there. Within one,
    a determiner gets a small letter; any other capital stays, because it may be a name's.

    >>> _in_place("The trophy", "it", " is large."), _in_place("the trophy", "It", " is large.")
    ('the trophy', 'The trophy')
    >>> _in_place("Ann", "her", " coat."), _in_place("Ann", "her", " to the door.")
    ("Ann's", 'Ann')
    """
    first = candidate.split(" ")[0]
    if written[0].isupper():
        candidate = candidate[:1].upper() + candidate[1:] if first.islower() else candidate
    elif first.lower() in DETERMINERS:
        candidate = candidate[:1].lower() + candidate[1:]
    word = written.lower()
    if word in POSSESSIVES or (word == "her" and not AFTER_AN_OBJECT.match(rest)):
        candidate += "'" if word == "their" and candidate.endswith("s") else "'s"
    return candidate


READERS: dict[str, Reader] = {
    "columns": columns,
    "race": race,
    "story_cloze": story_cloze,
    "copa": copa,
    "pronoun": pronoun,
}


def _header_hint(rows: "Dataset", wanted: Iterable[str]) -> str:
    """What to say where a CSV or TSV file has none of the wanted columns."""
    if ORIGIN not in rows.column_names or any(column in rows.column_names for column in wanted) or not len(rows):
        return ""
    is_table = any(ending in rows[0][ORIGIN].lower() for ending in (".csv", ".tsv"))
    return "; the first line of the file must be its header" if is_table else ""


def check_columns(task: TaskConfig, rows: "Dataset", where: str, labelled: bool) -> None:
    """Make sure that the reader finds its columns, and can read their types, before a row is read.

    Raises:
        InputError: a column is missing, or holds what is no text and no label; the message names the setting.
    """
    found = visible(rows.column_names)
    wanted: dict[str, str]
    if task.reader == "race":
        wanted = {"article": "", ("questions" if "questions" in found else "question"): "", "options": ""}
    elif task.reader == "story_cloze":
        wanted = dict.fromkeys(STORY_COLUMNS[1] if STORY_COLUMNS[1][0] in found else STORY_COLUMNS[0], "")
    elif task.reader == "copa":
        wanted = dict.fromkeys(("premise", "choice1", "choice2", "question"), "")
    elif task.reader == "pronoun":
        wanted = dict.fromkeys(PRONOUN_COLUMNS[0] if "pronoun_loc" in found else PRONOUN_COLUMNS[1], "")
    else:
        wanted = dict.fromkeys(task.texts, "task.texts") | dict.fromkeys(task.choices, "task.choices")
    if labelled and task.reader not in ("race", "story_cloze"):  # whose label has another column in the raw files
        wanted[task.label] = "task.label"
    for column, key in wanted.items():
        if column not in found:
            raise InputError(
                f"{where} has no column '{column}'.{nearest(column, found)} It has: {', '.join(found)}"
                + (f" ({key} names the column{_header_hint(rows, wanted)})" if key else "")
            )
    list_column = task.choices[0] if len(task.choices) == 1 else None
    check_types(rows.features, {c: k for c, k in wanted.items() if k} | {task.label: "task.label"}, list_column, where)
