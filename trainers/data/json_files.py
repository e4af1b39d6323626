"""JSON and JSON lines as rows: a list of objects, an object of columns, of splits or of one table, or pandas' forms."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from heads.errors import InputError
from trainers.data.origins import name_rows
from trainers.data.text_files import TextFile

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
REMEDY = ": write an object in each line, or rename a file that is one list or object to end in .json"
Record = dict[str, Any]


class Table(NamedTuple):
    """Rows of a JSON document; key is where they were found, empty for the document itself."""

    key: str
    rows: list[Record]


def json_lines(file: TextFile) -> Iterator[tuple[int, Record]]:
    """The object of each line, with the line's number; blank lines are skipped.

    Raises:
        InputError: a line is not a JSON object, once the file is read.
    """
    bad, first, n_bad = list[str](), "", 0
    for number, line in enumerate(file.lines(), 1):
        if not line.strip():
            continue
        problem = None
        try:
            record = json.loads(line.strip(), object_pairs_hook=_object)
            if isinstance(record, dict):
                if not n_bad:
                    yield number, record
            else:
                problem = f"line {number} is {_name(record)}, and each line of this file must be an object"
        except InputError as error:
            problem = f"line {number} {error}"
        except (ValueError, RecursionError) as error:
            problem = f"line {number} is not JSON ({reason(error)})"
        if problem:
            n_bad += 1
            first = first or problem
            bad += [f"line {number}"] if n_bad <= 3 else []
    if n_bad:
        others = f"; {n_bad} such lines: {name_rows(bad, n_bad - len(bad))}" if n_bad > 1 else ""
        remedy = REMEDY if first.startswith("line 1 is") else "" if "twice: " in first else ": correct the line"
        raise InputError(f"{first}{others}{remedy}")


def is_json_lines(file: TextFile) -> bool:
    """Whether a file called .json is one of JSON lines: its first line is an object, and more text follows it."""
    lines = (line for line in file.lines() if line.strip())
    try:
        return isinstance(json.loads(next(lines, "")), dict) and next(lines, None) is not None
    except (ValueError, RecursionError):
        return False


def read_document(file: TextFile, wanted: str) -> dict[str, Table]:
    """The tables of a JSON document by split; a single table gets the name wanted, whatever its key is.

    Raises:
        InputError: it is not JSON, or no table can be found in it.
    """
    try:
        document = json.loads(file.text(), object_pairs_hook=_object)
    except RecursionError as error:
        raise InputError("the file is not JSON (too deeply nested)") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise InputError(f"an object {error}" if str(error).startswith("has the key") else str(error)) from error
        raise InputError(
            f"the file is not JSON ({reason(error)}): correct it there, or write the file again"
        ) from error
    if isinstance(document, dict) and (splits := _splits(document)):
        return splits
    return {wanted: _table(document)}


def _object(pairs: list[tuple[str, Any]]) -> Record:
    """An object; json itself keeps the last of several values of a key, and loses the others.

    Raises:
        InputError: a key stands there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise InputError(f"has the key '{next(key for key in keys if keys.count(key) > 1)}' twice: rename one")
    return found


def reason(error: BaseException) -> str:
    """Why text is not JSON, with the place."""
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        return f"{error.msg}, {line}column {error.colno}"
    return "too deeply nested" if isinstance(error, RecursionError) else str(error).split(";")[0]


def _splits(document: Record) -> dict[str, Table]:
    """The tables of an object whose keys are all names of splits, if it is such."""
    found: dict[str, Table] = {}
    for key, value in document.items():
        name = next((split for split, keys in SPLITS.items() if key.lower() in keys), None)
        if name is None or name in found or not isinstance(value, list | dict) or _is_plain_list(value):
            return {}
        found[name] = Table(key, _table(value).rows)
    return found


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, list) and not all(isinstance(item, dict) for item in value)


def _table(document: Any) -> Table:
    if isinstance(document, list):
        return Table("", _records(document))
    if not isinstance(document, dict):
        raise InputError(f"the file is {_name(document)}: write a list of objects")
    if isinstance(document.get("columns"), list) and isinstance(document.get("data"), list):
        return Table("data", _split_form(document["columns"], document["data"]))
    tables = [key for key, value in document.items() if isinstance(value, list) and _all_objects(value)]
    lists = [key for key, value in document.items() if isinstance(value, list)]
    objects = [key for key, value in document.items() if isinstance(value, dict)]
    if document and len(objects) == len(document):
        return Table("", _indexed(document))
    if len(tables) == 1 and (len(lists) == 1 or len(lists) < len(document)):
        return Table(tables[0], document[tables[0]])
    if len(lists) == len(document) > 0:
        return Table("", _from_columns(document))
    if not lists and not objects and document:
        return Table("", [document])
    raise InputError(
        f"the file is an object with the keys {', '.join(map(str, document))[:200] or '(none)'}, which is no table "
        "and no object of columns: write a list of objects"
    )


def _all_objects(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, dict) for item in value)


def _records(values: list[Any]) -> list[Record]:
    bad = [(number, value) for number, value in enumerate(values, 1) if not isinstance(value, dict)]
    if bad:
        number, value = bad[0]
        rows = [f"row {one}" for one, _ in bad[:3]]
        others = f"; {len(bad)} such rows: {name_rows(rows, len(bad) - len(rows))}" if len(bad) > 1 else ""
        raise InputError(f"row {number} is {_name(value)}, and each row must be an object{others}")
    return values


def _from_columns(columns: dict[str, list[Any]]) -> list[Record]:
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())[:200]
        raise InputError(f"the file is an object of columns with different numbers of values ({listed})")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _split_form(names: list[Any], data: list[Any]) -> list[Record]:
    """The rows of pandas' orient="split"."""
    for number, row in enumerate(data, 1):
        if not isinstance(row, list) or len(row) != len(names):
            raise InputError(f"row {number} of data does not have the {len(names)} values that columns names")
    return [dict(zip(map(str, names), row, strict=True)) for row in data]


def _indexed(document: dict[str, Record]) -> list[Record]:
    """The rows of an object of objects: columns by index (pandas' to_json) or rows by index (orient="index")."""
    inner = list(dict.fromkeys(key for value in document.values() for key in value))
    outer_is_index = all(key.lstrip("-").isdecimal() for key in document)
    inner_is_index = all(key.lstrip("-").isdecimal() for key in inner)
    if outer_is_index == inner_is_index:
        raise InputError(
            "the file is an object of objects, which may be rows or columns: write a list of objects "
            '(pandas: df.to_json(FILE, orient="records"))'
        )
    if outer_is_index:
        return list(document.values())
    return [{column: values.get(index) for column, values in document.items()} for index in inner]


def _name(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
