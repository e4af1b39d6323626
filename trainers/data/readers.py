"""Readers: one record of a source to Examples.

Most tasks map column by column. A reader of its own is for records that must be reshaped: RACE's raw files hold
several questions on one article, Story Cloze four sentences and two endings.
"""

from collections.abc import Callable, Iterable
from typing import Any

from heads.errors import InputError
from heads.example import Example
from trainers.choose import nearest
from trainers.config import TaskConfig
from trainers.data.labels import ToLabel

Record = dict[str, Any]
Reader = Callable[[Record, str, TaskConfig, ToLabel], list[Example]]


def _text(record: Record, column: str, guid: str) -> str:
    value = record[column]
    if value is None or not str(value).strip():
        raise InputError(f"row {guid} has no text in column '{column}': fill it in or leave the row out")
    return str(value)


def _listed(record: Record, column: str, guid: str) -> tuple[str, ...]:
    value = record[column]
    if not isinstance(value, list):
        raise InputError(
            f"row {guid} has no list in column '{column}', but {type(value).__name__}: candidates in one column are a "
            "list (JSON lines, Parquet); candidates in several are task.choices=[choice1,choice2,...]"
        )
    return tuple(map(str, value))


def _choices(example: Example) -> Example:
    """The example, if its candidates are such that one of them can be right."""
    if len(example.choices) < 2:
        raise InputError(f"row {example.guid} has {len(example.choices)} candidate(s): 2 are the least")
    if example.label is not None and example.label >= len(example.choices):
        raise InputError(
            f"row {example.guid} has {len(example.choices)} candidates, and its label is candidate {example.label + 1}"
        )
    return example


def columns(record: Record, guid: str, task: TaskConfig, to_label: ToLabel) -> list[Example]:
    """Column by column, as the task's texts, choices and label say."""
    texts = tuple(_text(record, column, guid) for column in task.texts)
    label = to_label(record.get(task.label), guid)
    if not task.choices:
        return [Example(guid, texts, (), label)]
    if len(task.choices) == 1:
        candidates = _listed(record, task.choices[0], guid)
    else:
        candidates = tuple(_text(record, column, guid) for column in task.choices)
    return [_choices(Example(guid, texts, candidates, label))]


def race(record: Record, guid: str, task: TaskConfig, to_label: ToLabel) -> list[Example]:
    """RACE: one question a row, as on the hub, or the raw files' several questions on one article."""
    if "questions" not in record:
        return [_race_question(record, guid, to_label(record.get(task.label), guid))]
    answers = record.get("answers") or [None] * len(record["questions"])
    asked = zip(record["questions"], record["options"], answers, strict=True)
    return [
        _race_question(record | {"question": question, "options": options}, f"{guid}-{n}", to_label(answer, guid))
        for n, (question, options, answer) in enumerate(asked)
    ]


def _race_question(record: Record, guid: str, label: int | float | None) -> Example:
    texts = (_text(record, "article", guid), _text(record, "question", guid))
    return _choices(Example(guid, texts, _listed(record, "options", guid), label))


# XStoryCloze's columns, and those of the authors' CSV files.
STORY_COLUMNS = [
    [*(f"input_sentence_{n}" for n in (1, 2, 3, 4)), "sentence_quiz1", "sentence_quiz2"],
    [*(f"InputSentence{n}" for n in (1, 2, 3, 4)), "RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"],
]


def story_cloze(record: Record, guid: str, task: TaskConfig, to_label: ToLabel) -> list[Example]:
    """Story Cloze: the four sentences joined by spaces (datasets.py), and two endings."""
    names = STORY_COLUMNS[0] if STORY_COLUMNS[0][0] in record else STORY_COLUMNS[1]
    *story, first, second = (_text(record, name, guid) for name in names)
    answer = record.get(task.label, record.get("AnswerRightEnding"))
    return [_choices(Example(guid, (" ".join(story),), (first, second), to_label(answer, guid)))]


READERS: dict[str, Reader] = {"columns": columns, "race": race, "story_cloze": story_cloze}


def check_columns(task: TaskConfig, found: Iterable[str], where: str, labelled: bool) -> None:
    """Make sure that the reader finds its columns before a row is read.

    Raises:
        InputError: a column is missing; the message names the nearest and the setting that changes it.
    """
    found = list(found)
    if task.reader == "race":
        wanted = {"article": "", ("questions" if "questions" in found else "question"): "", "options": ""}
    elif task.reader == "story_cloze":
        wanted = dict.fromkeys(STORY_COLUMNS[1] if STORY_COLUMNS[1][0] in found else STORY_COLUMNS[0], "")
    else:
        wanted = dict.fromkeys(task.texts, "task.texts") | dict.fromkeys(task.choices, "task.choices")
        if labelled:
            wanted[task.label] = "task.label"
    for column, key in wanted.items():
        if column not in found:
            raise InputError(
                f"{where} has no column '{column}'.{nearest(column, found)} It has: {', '.join(found)}"
                + (f" ({key} names the column)" if key else "")
            )
