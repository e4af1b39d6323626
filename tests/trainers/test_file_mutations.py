"""Two hundred damaged files, read in one process: each gives rows, or an InputError of one line.

    .venv/bin/python -m pytest -q -m slow tests/trainers/test_file_mutations.py

A mutation follows from the seed, the file and its number alone, so that a failure is repeated by its name.
"""

import gzip
import json
import random

import pandas as pd
import pytest

from heads.errors import InputError
from trainers.config import FilesConfig
from trainers.data.examples import read_examples
from trainers.data.records import load_records

SEED, N = 17, 20  # mutations of each of ten files

ROWS = [
    {
        "text": f'Row {n} says "hello", then\nleaves; naïve café 日本 😀',
        "label": ["good", "bad"][n % 2],
        "n": n,
        "x": n / 2,
    }
    for n in range(40)
]
FLAT = [row | {"text": row["text"].replace("\n", " ")} for row in ROWS]


def good_files(folder):
    """Ten files that are read without an error."""
    frame, flat = pd.DataFrame(ROWS), pd.DataFrame(FLAT)
    frame.to_csv(folder / "comma.csv", index=False)
    frame.to_csv(folder / "index.csv", sep=";")
    frame.to_csv(folder / "packed.csv.gz", index=False)
    (folder / "utf16.csv").write_bytes(frame.to_csv(index=False).encode("utf-16"))
    frame.to_csv(folder / "quoted.tsv", sep="\t", index=False)
    lines = ["\t".join(map(str, row.values())) for row in FLAT]
    (folder / "plain.tsv").write_text("\n".join(["\t".join(FLAT[0]), *lines]) + "\n", encoding="utf-8")
    flat.to_json(folder / "lines.jsonl", orient="records", lines=True, force_ascii=False)
    (folder / "document.json").write_text(json.dumps({"version": 1, "data": ROWS}, indent=1), encoding="utf-8")
    frame.to_parquet(folder / "table.parquet")
    frame.to_excel(folder / "book.xlsx", index=False)
    return sorted(path for path in folder.iterdir() if path.is_file())


PIECES = [
    *(
        b",",
        b";",
        b"\t",
        b"|",
        b'"',
        b'""',
        b"'",
        b"\\",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(
        b"\xff\xfe",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"null",
        b"NaN",
        b"-1",
        b"1e999",
        b"9" * 400,
        b"\\ud800",
        b" ",
        b"\xc3",
    ),
    *(b"\x1a", b"\xe2\x80\xa8", b"\x85", b"=cmd()", b"sep=;\n", b"text,label\n", b"PAR1", b"PK\x03\x04", b"\x1f\x8b"),
]


def mutate(content, draw):
    """A file's bytes with one or two changes."""
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(len(content) + 1)
        to = min(len(content), at + draw.choice([1, 1, 2, 20]))
        lines = content.split(b"\n")
        line = draw.randrange(len(lines))
        content = draw.choice(
            [
                content[:at] + draw.choice(PIECES) + content[at:],
                content[:at] + draw.choice(PIECES) + content[to:],
                content[:at] + content[to:],
                content[:at] + bytes(draw.randrange(256) for _ in range(to - at)) + content[to:],
                content[:at],
                content[at:],
                content[:to] + content[at:],
                draw.choice(PIECES) + content,
                content.replace(*draw.sample(PIECES, 2)),
                b"\n".join([*lines[:line], *lines[line + 1 :]]),
                b"\n".join([*lines[:line], lines[line], *lines[line:]]),
                b"\n".join(draw.sample(lines, len(lines))),
                content.upper(),
            ]
        )
    return content


@pytest.fixture
def outcome(compose, tmp_path, monkeypatch):
    """The error of a file, or None if it is read."""
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    task = compose("task=single", "task.labels=[good,bad]").task
    data = compose("task=single").data

    def run(path):
        data.files = FilesConfig(train=str(path))
        try:
            for name, rows in load_records(task, data).splits.items():
                assert sum(1 for _ in read_examples(name, rows, task, task.labels)) > 0
        except InputError as error:
            return str(error)
        return None

    return run


@pytest.mark.slow
def test_a_damaged_file_gives_rows_or_one_line(tmp_path, outcome):
    (tmp_path / "good").mkdir()
    files = good_files(tmp_path / "good")
    assert len(files) == 10
    assert [outcome(path) for path in files] == [None] * 10
    (tmp_path / "bad").mkdir()
    n_read, failures = 0, []
    for path in files:
        packed = path.suffix == ".gz"
        content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        for n in range(N):
            draw = random.Random(f"{SEED} {path.name} {n}")
            bad = mutate(content, draw)
            if packed:
                bad = gzip.compress(bad) if n % 2 else mutate(path.read_bytes(), draw)
            file = tmp_path / "bad" / f"{n}-{path.name}"
            file.write_bytes(bad)
            try:
                error = outcome(file)
            except Exception as fault:  # noqa: BLE001
                failures.append(f"{n} of {path.name}: {fault!r}")
                continue
            n_read += error is None
            if error is not None and not (len(error.splitlines()) == 1 and 10 < len(error) < 800):
                failures.append(f"{n} of {path.name}: {error!r}")
    assert not failures
    assert 20 < n_read < 180
