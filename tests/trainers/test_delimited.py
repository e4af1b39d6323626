"""CSV and TSV files: delimiters, quoting and encodings are found, and rows that do not fit the header are errors."""

import gzip
import tracemalloc

import pytest

from heads.errors import InputError
from trainers.data.files import read_file
from trainers.data.origins import ORIGIN
from trainers.data.text_files import FileOptions


@pytest.fixture
def read(tmp_path, monkeypatch):
    """The rows of a file in the working folder, without their places; its lines and notes."""
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(content, name="a.csv", **options):
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(content)
        notes = []
        rows = read_file(name, FileOptions(**options, prefix=""), notes).to_list()
        lines = [int(row.pop(ORIGIN).split()[1]) for row in rows]
        return rows, lines, "".join(notes).removeprefix(f"input={name}: ")

    return run


TWO = [{"text": "a, b", "label": "x"}, {"text": 'say "c"', "label": "y"}]
COMMAS = 'text,label\n"a, b",x\n"say ""c""",y\n'

SAME_ROWS = {
    "comma": ("a.csv", COMMAS, ""),
    "capital ending": ("A.CSV", COMMAS, ""),
    "gzip": ("a.csv.gz", gzip.compress(COMMAS.encode()), ""),
    "gzip without the ending": ("a.csv", gzip.compress(COMMAS.encode()), ""),
    "semicolon": ("a.csv", 'text;label\na, b;x\n"say ""c""";y\n', "delimiter semicolon"),
    "bar": ("a.csv", 'text|label\na, b|x\nsay "c"|y\n', "delimiter bar"),
    "tab in .csv": ("a.csv", 'text\tlabel\na, b\tx\nsay "c"\ty\n', "delimiter tab"),
    "comma in .tsv": ("a.tsv", COMMAS, "delimiter comma"),
    "Excel's line": ("a.csv", "sep=;\n" + COMMAS.replace(",", ";").replace("a; b", "a, b"), "delimiter semicolon"),
    "byte order mark": ("a.csv", "\ufeff" + COMMAS, ""),
    "UTF-16": ("a.csv", COMMAS.encode("utf-16"), "encoding utf-16 (byte order mark)"),
    "UTF-32": ("a.csv", COMMAS.encode("utf-32"), "encoding utf-32 (byte order mark)"),
    "CRLF": ("a.csv", COMMAS.replace("\n", "\r\n"), ""),
    "CR": ("a.csv", COMMAS.replace("\n", "\r"), ""),
    "no last line break": ("a.csv", COMMAS[:-1], ""),
    "blanks around names": ("a.csv", COMMAS.replace("text,label", " text ,label  "), ""),
    "trailing comma in the header": ("a.csv", COMMAS.replace("label", "label,"), ""),
    "trailing comma in all lines": ("a.csv", COMMAS.replace("\n", ",\n"), ""),
    "pandas' index": ("a.csv", ',text,label\n0,"a, b",x\n1,"say ""c""",y\n', "column 1 has no name and is ignored"),
    "blank lines": ("a.csv", "\n" + COMMAS.replace("\n", "\n  \n\n"), ""),
    "all in quotes": ("a.tsv", '"text"\t"label"\n"a, b"\t"x"\n"say ""c"""\t"y"\n', "fields in quotes"),
}


@pytest.mark.parametrize(("name", "content", "note"), SAME_ROWS.values(), ids=SAME_ROWS)
def test_common_forms_of_a_table_give_the_same_rows(read, name, content, note):
    rows, _, noted = read(content, name)
    assert (rows, noted) == (TWO, note)


TSV = {
    "stray quotes": ('"great" film\tx\n"b\ty\n', ['"great" film', '"b'], ""),
    "a quotation": ('"I love it."\tx\nb\ty\n', ['"I love it."', "b"], ""),
    "line break in quotes": ('"two\nlines"\tx\nb\ty\n', ["two\nlines", "b"], "fields in quotes"),
    "tab in quotes": ('"a\tb"\tx\nc\ty\n', ["a\tb", "c"], "fields in quotes"),
    "doubled quotes": ('"I ""love"" it."\tx\nb\ty\n', ['I "love" it.', "b"], "fields in quotes"),
}


@pytest.mark.parametrize(("lines", "texts", "note"), TSV.values(), ids=TSV)
def test_the_quoting_of_a_tsv_file_is_that_of_its_content(read, lines, texts, note):
    rows, _, noted = read("text\tlabel\n" + lines, "a.tsv")
    assert ([row["text"] for row in rows], noted) == (texts, note)


def test_settings_say_what_the_content_does_not(read):
    column_in_quotes = 'text\tlabel\n"a"\tx\n"b"\ty\n'
    for quoting, expected in (("none", ['"a"', '"b"']), ("standard", ["a", "b"])):
        assert [row["text"] for row in read(column_in_quotes, "a.tsv", quoting=quoting)[0]] == expected
    assert read('text,label\n"a, b",x\n"say \\"c\\"",y\n', quoting="backslash")[0] == TWO
    assert read("a,b;c\nx,y;z\n", delimiter="semicolon")[0] == [{"a,b": "x,y", "c": "z"}]
    assert read("a,b\tc\nx,y\tz\n", delimiter="\\t")[0] == [{"a,b": "x,y", "c": "z"}]
    assert read("a#b\nx#y\n", delimiter="#")[0] == [{"a": "x", "b": "y"}]
    assert read("text\ncafé\n".encode("latin-1"), encoding="latin-1")[0] == [{"text": "café"}]
    assert read("\ufefftext\ncafé\n", encoding="latin-1")[0] == [{"text": "café"}]  # the byte order mark decides


def test_a_broken_quote_in_a_tsv_file_of_quoted_fields_is_an_error(read):
    lines = [f'"text {n}"\tx\n' for n in range(9)]
    with pytest.raises(
        InputError, match=r"line 11 has text after a closing quote: .*quoting=none reads quotes as text"
    ):
        read("".join(["text\tlabel\n", *lines, '"text" 10\tx\n']), "a.tsv")


def test_quotes_of_a_csv_file_that_cannot_be_standard_are_text(read):
    rows, _, noted = read('text,label\n"great" film,x\n"b,y\n')
    assert ([row["text"] for row in rows], noted) == (['"great" film', '"b'], "quotes are read as text")


def test_rows_have_the_number_of_their_first_line(read):
    rows, lines, _ = read('text,label\na,x\n\n"b\nc\n\nd",y\n"e",z\n')
    assert [row["text"] for row in rows] == ["a", "b\nc\n\nd", "e"]
    assert lines == [2, 4, 8]
    assert read("sep=,\ntext,label\na,x\n")[1] == [3]


def test_values_stay_text_and_an_empty_field_is_missing(read):
    rows, _, _ = read('a,b,c\n007,1.50,TRUE\nNA,,""\n')
    assert rows == [{"a": "007", "b": "1.50", "c": "TRUE"}, {"a": "NA", "b": None, "c": None}]


WRONG = {
    "too many fields": (
        "text,label\na,b,c\n",
        r"line 2 has 3 fields, and the header has 2 \(text, label\): put",
    ),
    "too few": ("text,label\na,x\nb\n", r"line 3 has 1 field, and the header has 2 \(text, label\): "),
    "many rows": (
        "text,label\na\n\nb\nc,x\nd\ne\nf\n",
        r"line 2 has 1 .*; 5 such rows: lines 2, 4, 6 and 2 more: ",
    ),
    "after a line break in quotes": ('text,label\n"a\nb",x\nc,d,e\n', r"line 4 has 3 fields"),
    "more than an unnamed column": (
        "text,label,\na, b,x\n",
        r"line 2 has 3 fields, of which the last is in a col",
    ),
    "a trailing comma in some rows": ("text,label,\na,x,\nb,y\n", r"line 3 has 2 fields, and the first row has 3"),
    "a broken quote among quoted fields": ('text,label\n"a",x\n"b" c,y\n', r"line 3 has text after a closing quote: "),
    "open quote": ('text,label\na,x\n"b\n', r"line 3 opens a quote that is never closed: .*quoting=none"),
    "twice": ("text,label,text\na,x,b\n", r"the header has the column 'text' twice \(columns 1, 3\): rename one$"),
    "no names": (",\na,b\n", r"the header, which is the first line, has no column names$"),
    "only a header": ("text,label\n", r"the file has no rows$"),
    "nothing": ("", r"the file is empty$"),
    "only a byte order mark": ("\ufeff", r"the file is empty$"),
    "blank": ("\n\n", r"the file is empty$"),
    "NUL": ("text,label\na\0,x\n", r"line 2 has a NUL character"),
    "not UTF-8": (b"text,label\na,x\ncaf\xe9,y\n", r"line 3 is not UTF-8 \(byte 0xe9\): .*encoding=, such as cp1252"),
    "UTF-16 without a mark": (
        "text,label\na,x\n".encode("utf-16-le"),
        r"UTF-16 without .*: set encoding=utf-16-le$",
    ),
    "two delimiters": (
        "a,b;c\nx,y;z\n",
        r"separated by comma or semicolon: set delimiter=comma \(or semico",
    ),
    "JSON": ('{"text": "a"}\n', r"the content is JSON: rename the file to end in .jsonl"),
    "Parquet": (b"PAR1 and more", r"a.csv is a Parquet file: rename it"),
    "damaged gzip": (gzip.compress(COMMAS.encode())[:30], r"is truncated or damaged .*: copy it again$"),
    "reserved name": (f"{ORIGIN}\na\n", r"a name that is reserved: rename it$"),
}


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(read, content, said):
    with pytest.raises(InputError, match=r"^input=a\.csv.*" + said) as error:
        read(content)
    assert "\n" not in str(error.value)


def test_a_tsv_column_that_is_all_in_quotes_is_ambiguous(read):
    with pytest.raises(InputError, match=r"all fields of column 'text' are in quotes: set quoting=standard .*none"):
        read('text\tlabel\n"a"\tx\n"b"\ty\n', "a.tsv")


def test_a_field_may_be_longer_than_the_limit_of_csv(read):
    assert read(f"text,label\n{'x' * 200_000},a\n")[0] == [{"text": "x" * 200_000, "label": "a"}]


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    peaks = []
    for n in (2_000, 20_000):
        monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / str(n)))
        (tmp_path / "a.csv").write_text("text,label\n" + f"{'a sentence ' * 20},x\n" * n)
        tracemalloc.start()
        read_file(str(tmp_path / "a.csv"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 2**20


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('text,label\n"he said \\"hi\\", ok",a\n"b, c",b\n', r'set \S*quoting=backslash, which reads \\" as a quote$'),
        ('text, label\n"a, b", "x"\n"c, d", "y"\n', "all fields of column 'label' have a space before their quotes"),
        ('label, text\n"x", "a, b"\n"y", "c, d"\n', "delete the spaces between a comma and a quote$"),
        ("# from a survey\ntext,label\na,x\n", "if the header is not the first line, delete the lines above it"),
    ],
)
def test_the_remedy_is_that_of_the_fault(read, content, said):
    with pytest.raises(InputError, match=said) as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_a_name_has_no_second_byte_order_mark(read):
    assert read("\ufeff\ufefftext,label\u200b\na,x\n")[0] == [{"text": "a", "label": "x"}]
