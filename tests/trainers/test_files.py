"""Files of other formats than CSV, files by pattern, and what is said of files that are not what their names say."""

import bz2
import datetime
import gzip
import json
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from heads.errors import InputError
from trainers.config import DataConfig, FilesConfig
from trainers.data.column_types import check_types
from trainers.data.files import prepare_files, read_file, read_files, rows_in_memory
from trainers.data.labels import score_reader
from trainers.data.origins import ORIGIN
from trainers.data.records import load_records
from trainers.data.text_files import FileOptions
from trainers.overrides import quote_path

ROWS = [{"text": "a", "label": 1}, {"text": "b", "label": 2}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working folder and cache."""
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def written(name, content):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def rows_of(name, notes=None):
    return read_file(name, notes=notes).remove_columns(ORIGIN).to_list()


def dumped(value):
    return json.dumps(value)


SAME_ROWS = {
    "lines": ("a.jsonl", LINES, ""),
    "ndjson": ("a.ndjson", LINES, ""),
    "gzip": ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0), ""),
    "bzip2": ("a.ndjson.bz2", bz2.compress(LINES.encode()), ""),
    "blank lines": ("a.jsonl", LINES.replace("\n", "\r\n\r\n"), ""),
    "lines in .json": ("a.json", LINES, ""),
    "byte order mark": ("a.json", "\ufeff" + dumped(ROWS), ""),
    "UTF-16": ("a.jsonl", LINES.encode("utf-16"), "encoding utf-16 (byte order mark)"),
    "list": ("a.JSON", json.dumps(ROWS, indent=2), ""),
    "columns": ("a.json", dumped({"text": ["a", "b"], "label": [1, 2]}), ""),
    "below a key": ("a.json", dumped({"data": ROWS}), "rows of the key 'data'"),
    "below a key, with a version": ("a.json", dumped({"version": "1", "data": ROWS}), "rows of the key 'data'"),
    "pandas' columns": ("a.json", pd.DataFrame(ROWS).to_json(), ""),
    "pandas' index": ("a.json", pd.DataFrame(ROWS).to_json(orient="index"), ""),
    "pandas' split": ("a.json", pd.DataFrame(ROWS).to_json(orient="split"), "rows of the key 'data'"),
    "pandas' table": ("a.json", dumped({"schema": {"fields": []}, "data": ROWS}), "rows of the key 'data'"),
}


@pytest.mark.parametrize(("name", "content", "note"), SAME_ROWS.values(), ids=SAME_ROWS)
def test_common_forms_of_json_give_the_same_rows(name, content, note):
    notes = []
    assert rows_of(written(name, content), notes) == ROWS
    assert "".join(notes).removeprefix(f"input={name}: ") == note


def test_an_object_of_splits_gives_the_splits_that_have_no_file():
    splits = {"train": ROWS, "dev": ROWS[:1], "test": ROWS[1:]}
    file = written("all.json", dumped(splits))
    assert {name: len(rows) for name, rows in read_files({"train": file}).items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }
    other = written("dev.jsonl", LINES)
    assert len(read_files({"train": file, "validation": other})["validation"]) == 2
    assert len(read_files({"train": other, "validation": file})["validation"]) == 1
    with pytest.raises(InputError, match=r"^input=all.json has the splits train, validation, test, and not input:"):
        read_file(file)


MIXED = {
    "numbers and words": ([1, "one", 2.5, True, None], ["1", "one", "2.5", "true", None]),
    "whole numbers and fractions": ([1, 2.5], [1.0, 2.5]),
    "whole numbers with a gap": ([1, None, float("nan")], [1, None, None]),
    "truth values": ([True, False], [True, False]),
    "a number without bounds": ([1, 10**30], ["1", "1" + "0" * 30]),
    "lists of both": ([["a", 1], []], [["a", "1"], []]),
    "half an emoji": (["\ud83d", "b"], ["\ufffd", "b"]),
}


@pytest.mark.parametrize(("values", "expected"), MIXED.values(), ids=MIXED)
def test_mixed_values_of_json_become_one_type(values, expected):
    file = written("a.jsonl", "".join(dumped({"text": value}) + "\n" for value in values))
    assert [row["text"] for row in rows_of(file)] == expected


def test_a_key_that_only_later_rows_have_is_a_column():
    file = written("a.jsonl", '{"text": "a"}\n' * 1500 + '{"text": "b", "label": 1}\n')
    rows = read_file(file)
    assert (rows[0]["label"], rows[-1]["label"], rows[-1][ORIGIN]) == (None, 1, "line 1501 of a.jsonl")


WRONG = {
    "not JSON": ("a.jsonl", '{"text": "a", "label"\n', r"line 1 is not JSON \(Expecting ':'.*\): write an"),
    "many lines": ("a.jsonl", LINES + "[1]\n{\n3\n\n4\n", r"line 3 is a list, .*; 4 such lines: lines 3, 4, 5 and 1 m"),
    "broken document": ("a.json", '[{"a": 1},\n{"b" 2}]', r"is not JSON \(Expecting ':' delimiter, line 2, column 6"),
    "no objects": ("a.json", '[1, "a"]', r"row 1 is a number, and .* an object; 2 such rows: rows 1 and 2$"),
    "no rows": ("a.json", "[]", r"the file has no rows with columns$"),
    "unlike columns": ("a.json", dumped({"a": [1], "b": [1, 2]}), r"different numbers of values \(a 1, b 2\)$"),
    "object of objects": ("a.json", dumped({"a": {"b": 1}}), r"which may be rows or columns: .*orient=\"records\""),
    "nested without end": ("a.json", '{"a":' + "[" * 100_000, r"the file is not JSON \(too deeply nested\)$"),
    "CSV": ("a.json", "text,label\na,b\n", r"begins with 'text,label\\na,b\\n': a CSV file's name ends in .csv$"),
    "damaged Parquet": ("a.parquet", b"PAR1" + b"\0" * 50, r" cannot be read \("),
    "damaged workbook": ("a.xlsx", b"PK\x03\x04" + b"a" * 50, r"the file is not an Excel workbook .* or is damaged"),
    "old workbook": ("a.xlsx", b"\xd0\xcf\x11\xe0" + b"a" * 50, r"old Excel workbook \(.xls\): save it as .xlsx"),
    "unknown ending": ("a.txt", "a", r"ending is not one of .csv, .tsv, .*\.xlsx \(or one of these and .gz"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(name, content, said):
    with pytest.raises(InputError, match=rf"^input={name}.*{said}") as error:
        read_file(written(name, content))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there():
    written("train.csv", "text\na\n")
    for name, said in {
        "train2.csv": r"there is no such file. Did you mean 'train.csv'\?$",
        ".": r"is a folder: give a file, or a pattern such as ./\*.csv$",
        "part-*.csv": r"no file matches the pattern: check the folder and the ending$",
        "/dev/null/a.csv": r"there is no such file$",
        f"{'a' * 300}.csv": r"cannot be read \(File name too long\)$",
    }.items():
        with pytest.raises(InputError, match=said):
            read_file(name)


def test_typed_rows_are_like_those_of_a_file():
    rows = rows_in_memory([{"text": "a", "label": 1}, {"text": 2, "label": "x"}, {"text": "c"}], "the input")
    assert (rows["text"], rows["label"], rows[2][ORIGIN]) == (["a", "2", "c"], ["1", "x", None], "line 3 of the input")
    with pytest.raises(
        InputError, match=r"^column 'text' of input holds text in line 1 of the input and lists in line 2"
    ):
        check_types(
            rows_in_memory([{"text": "a"}, {"text": []}], "the input").features, {"text": "task.texts"}, None, "input"
        )


def test_a_file_without_permission(monkeypatch, compose):
    written("a.csv", "text,label\na,x\n")
    config = compose("task=single")
    config.data.files = FilesConfig(train="a.csv")

    def refuse(file):
        raise PermissionError(13, "Permission denied", file)

    monkeypatch.setattr("trainers.data.files.file_hash", refuse)
    for read in (lambda: read_file("a.csv"), lambda: load_records(config.task, config.data)):
        with pytest.raises(InputError, match=r"a.csv cannot be read \(Permission denied\)$"):
            read()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoding": "utf9"}, r"^data.encoding=utf9: there is no such encoding; common are utf-8, utf-16 and cp1252$"),
        ({"encoding": "hex"}, r"^data.encoding=hex: there is no such encoding"),
        ({"quoting": "standart"}, r"quoting.*Did you mean 'standard'\?"),
        ({"delimiter": "xyz"}, r"^data.delimiter is comma, semicolon, tab, bar or one character, got xyz$"),
        ({"encoding": "cp1252"}, r"are of your own files: give data.files.train too$"),
    ],
)
def test_the_settings_of_files_are_checked(settings, said):
    with pytest.raises(InputError, match=said):
        DataConfig(**settings)


# Parquet and spreadsheets


def test_parquet_columns_become_text_where_they_can():
    table = pa.table(
        {
            "text": pa.array([b"\xc3\xa9t\xc3\xa9", b"b"], pa.binary()),
            "large": pa.array([b"a", None], pa.large_binary()),
            "fixed": pa.array([b"ab", b"cd"], pa.binary(2)),
            "category": pa.array(["x", "y"]).dictionary_encode(),
            "bytes": pa.array([b"\xff", b"a"], pa.binary()),
        }
    )
    pq.write_table(table, "a.parquet")
    rows = read_file("a.parquet")
    assert rows[0] == {
        "text": "été", "large": "a", "fixed": "ab", "category": "x", "bytes": b"\xff", ORIGIN: "row 1 of a.parquet"
    }  # fmt: skip
    assert rows[1][ORIGIN] == "row 2 of a.parquet"


def test_class_names_in_a_parquet_file_are_kept():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"text": ["a"], "label": [1]}, features=features).to_parquet("a.parquet")
    assert read_file("a.parquet").features["label"] == features["label"]


def test_a_parquet_file_is_read_in_parts(monkeypatch):
    pq.write_table(pa.table({"text": ["a"] * 2500}), "a.parquet", row_group_size=1250)
    asked = []
    read = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, **how: asked.append(how["batch_size"]) or read(self, **how)
    )
    assert len(read_file("a.parquet")) == 2500
    assert asked == [1000]


def test_a_workbook_is_read_as_its_first_sheet():
    frame = pd.DataFrame({"text": ["a", None, "007"], "label": [1, 2, 3], "mixed": [1, "x", 2.5]})
    with pd.ExcelWriter("a.xlsx") as book:
        frame.to_excel(book, sheet_name="rows")
        frame.to_excel(book, sheet_name="other")
    notes = []
    rows = read_file("a.xlsx", notes=notes)
    assert rows[2] == {"text": "007", "label": 3, "mixed": "2.5", ORIGIN: "row 4 of a.xlsx"}
    assert rows["text"][1] is None
    assert notes == [
        "input=a.xlsx: sheet 'rows', the first of 2; column 1 has no name and is ignored; "
        "column 'mixed' mixes types and is read as text"
    ]


def test_a_workbook_without_its_library(monkeypatch):
    pd.DataFrame(ROWS).to_excel("a.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"needs openpyxl: pip install -e .\[xlsx\], or save the sheet as CSV$"):
        read_file("a.xlsx")


UNREADABLE = {
    "dates": ([datetime.date(2020, 1, 1)], r"dates \(date32\)"),
    "times": ([datetime.datetime(2020, 1, 1)], r"dates or times \(timestamp\[us\]\)"),
    "bytes": ([b"\xff"], r"bytes that are not UTF-8 text \(binary\)"),
    "objects": ([{"a": 1}], r"objects \(a\)"),
    "lists": ([["a"]], r"lists"),
}


@pytest.mark.parametrize(("values", "said"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("key", ["task.texts", "task.label"])
def test_a_column_that_is_no_text_is_refused_by_name_and_type(values, said, key):
    pq.write_table(pa.table({"column": values}), "a.parquet")
    features = read_file("a.parquet").features
    with pytest.raises(InputError, match=rf"^column 'column' of it holds {said}, and .*with {key}$"):
        check_types(features, {"column": key}, None, "it")


def test_lists_of_candidates_are_read_and_other_lists_are_not():
    file = written("a.jsonl", dumped({"plain": ["a", "b"], "nested": [["a"]], "objects": [{"a": 1}]}) + "\n")
    features = read_file(file).features
    check_types(features, {"plain": "task.choices"}, "plain", "it")
    for column, said in {"nested": "lists of lists", "objects": "lists of objects or of mixed values"}.items():
        with pytest.raises(InputError, match=rf"holds {said},"):
            check_types(features, {column: "task.choices"}, column, "it")


def test_a_label_column_of_lists_and_text_names_a_row_of_each():
    file = written("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": ["x"]}\n')
    features = read_file(file).features
    with pytest.raises(InputError, match=r"holds text in line 1 of a.jsonl and lists in line 2 of a.jsonl, and"):
        check_types(features, {"label": "task.label"}, None, "the train split")


# several files, the home folder, and the cache


def test_a_pattern_is_all_files_that_match(compose):
    written("part-1.csv", "text,label\na,x\nb,y\n")
    written("part-2.csv", "label,text\nx,c\n")
    rows = read_file("part-*.csv")
    assert rows["text"] == ["a", "b", "c"]
    assert rows[ORIGIN] == ["line 2 of part-1.csv", "line 3 of part-1.csv", "line 2 of part-2.csv"]
    written("part-3.csv", "text\nd\n")
    with pytest.raises(InputError, match=r"part-3.csv has no column 'label', and part-1.csv has one: give files with"):
        read_file("part-*.csv")
    written("l-1.jsonl", '{"text": "a", "label": 1}\n')
    written("l-2.jsonl", '{"text": "b", "label": "x"}\n')
    assert read_file("l-*.jsonl")["label"] == ["1", "x"]


def test_a_name_with_the_signs_of_a_pattern_may_be_a_file():
    assert rows_of(written("a[1].csv", "text\na\n")) == [{"text": "a"}]


def test_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    written("a.csv", "text\na\n")
    assert rows_of("~/a.csv") == [{"text": "a"}]
    assert quote_path("data.delimiter=;") == "data.delimiter=';'"
    assert quote_path("data.files.train=~/a.csv") == f"data.files.train='{folder}/a.csv'"


def test_records_have_the_files_hashes_and_notes(compose):
    written("part-1.csv", "text;label\na;x\nb;y\n")
    written("part-2.csv", "text;label\nc;x\nd;y\n")
    config = compose("task=single")
    config.data.files = FilesConfig(train="part-*.csv")
    first = load_records(config.task, config.data)
    assert first.notes == ["data.files.train=part-*.csv: delimiter semicolon"]
    assert list(first.files) == ["train"]
    again = load_records(config.task, config.data)
    assert (again.notes, again.files, again.content) == (first.notes, first.files, first.content)
    written("part-2.csv", "text;label\nc;x\ne;y\n")
    changed = load_records(config.task, config.data)
    assert changed.files != first.files
    assert changed.content != first.content


def test_a_file_is_read_once(monkeypatch):
    file = written("a.csv", "text,label\na,x\n")
    first = prepare_files({"train": file}, FileOptions())
    monkeypatch.setattr("trainers.data.files._write", lambda *args: pytest.fail("read again"))
    assert prepare_files({"train": file}, FileOptions()) == first


def test_parquet_files_of_a_pattern_may_have_their_columns_in_another_order():
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), "part-1.parquet")
    pq.write_table(pa.table({"label": [2], "text": ["b"]}), "part-2.parquet")
    never_null = pa.schema([pa.field("text", pa.string(), nullable=False), pa.field("label", pa.int64())])
    pq.write_table(pa.table({"text": ["c"], "label": [3]}, schema=never_null), "part-3.parquet")
    assert [(row["text"], row["label"]) for row in rows_of("part-*.parquet")] == [("a", 1), ("b", 2), ("c", 3)]


def test_a_parquet_column_that_datasets_has_no_type_for_is_no_text():
    pairs = pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64()))
    tags = pa.ListArray.from_arrays([0, 1, 2], pa.array(["x", "y"]).dictionary_encode())
    pq.write_table(pa.table({"text": ["a", "b"], "pairs": pairs, "tags": tags}), "a.parquet")
    rows = read_file("a.parquet")
    assert (rows["text"][:], rows["tags"][:], rows["pairs"][1]) == (["a", "b"], [["x"], ["y"]], None)
    with pytest.raises(InputError, match=r"column 'pairs' of x holds values of type map<string, int64 .*>, and a text"):
        check_types(rows.features, {"pairs": "task.texts"}, None, "x")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.csv",
            "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
            "a.csv is a Git LFS pointer .* lfs pull",
        ),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a Git LFS pointer"),
        (
            "a.csv",
            "<!DOCTYPE html>\n<html><title>404, not found</title></html>\n",
            "is a web page, .*download the file",
        ),
        (
            "a.csv.gz",
            gzip.compress(b"a.csv".ljust(257, b"\0") + b"ustar\x0000", mtime=0),
            "is a tar archive: unpack it",
        ),
        (
            "a.parquet",
            "text,label\na,x\n",
            "the file is not a Parquet file, although its name says so: copy it again, or rename",
        ),
        ("a.xlsx", "text,label\na,x\n", "the file is not an Excel workbook, although its name says so"),
        ("a.jsonl", dumped(ROWS), "line 1 is a list, .*rename a file that is one list or object to end in .json$"),
        ("a.jsonl", '{"text": "a"}\n{"text" "b"}\n', r"line 2 is not JSON \(.*\): correct the line$"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "line 1 has the key 'text' twice: rename one$"),
        ("a.json", '[{"text": "a", "text": "b"}]', "an object has the key 'text' twice: rename one$"),
        ("a.json", '[{"text": "a"},\n]', r"not JSON \(.*line \d, column \d\): correct it there"),
    ],
)
def test_what_a_file_is_instead_is_said_with_a_remedy(name, content, said):
    with pytest.raises(InputError, match=said) as caught:
        read_file(written(name, content))
    assert "\n" not in str(caught.value)


def test_a_whole_number_that_is_too_long_for_a_float_stays_as_it_is():
    written("a.jsonl", '{"id": 9007199254740993}\n{"id": 0.5}\n')
    notes = []
    assert rows_of("a.jsonl", notes) == [{"id": "9007199254740993"}, {"id": "0.5"}]
    assert notes == ["input=a.jsonl: column 'id' mixes types and is read as text"]


def test_a_missing_header_is_said(compose):
    written("a.csv", "great film,1\nbad film,0\n")
    config = compose("task=single")
    config.data.files = FilesConfig(train="a.csv")
    with pytest.raises(InputError, match=r"no column 'text'.*the first line of the file must be its header"):
        load_records(config.task, config.data)


@pytest.mark.parametrize(
    ("value", "said"),
    [("3,5", "not a number: write it as digits with a decimal point"), ("1_0", "number: "), ("7%", "signs of percent")],
)
def test_a_score_is_written_with_a_point(value, said):
    with pytest.raises(InputError, match=said):
        score_reader(None)(value, "row 1")
