"""check=true prints what a run would train on, trains nothing and leaves no folder."""

import pytest

from heads.errors import InputError
from trainers.check import check
from trainers.config import FinetuneConfig
from trainers.overrides import check_overrides

pytestmark = pytest.mark.usefixtures("own_cache")


def checked(compose, capsys, tmp_path, *settings):
    before = {path.name for path in tmp_path.iterdir()}
    check(compose(*settings, "backbone=tiny", "check=true", f"run_dir={tmp_path / 'run'}"))
    assert {path.name for path in tmp_path.iterdir()} - before <= {"cache"}
    return capsys.readouterr().out.splitlines()


def cells(lines, name):
    return next(line for line in lines if line.startswith(name)).removeprefix(name).split()


def test_rows_labels_lengths_and_examples_of_a_classification(compose, capsys, tmp_path, write_rows):
    rows = [{"text": f"word {i}", "label": "ab"[i % 2]} for i in range(10)] + [{"text": "no label"}]
    train = write_rows(tmp_path / "train.jsonl", rows)
    long = write_rows(tmp_path / "dev.jsonl", [{"text": "word " * 300, "label": "a"}, {"text": "word", "label": "b"}])
    given = (f"data.files.train={train}", f"data.files.validation={long}", "head.n_ctx=32")
    lines = checked(compose, capsys, tmp_path, "task=single", *given, "train.epochs=2", "train.batch_size=4")
    assert "; 6 updates of 4 examples" in lines[0]
    assert cells(lines, "rows ") == ["10", "2"]
    assert cells(lines, "label a") == ["5", "1"]
    assert cells(lines, "max") == [*cells(lines, "max")[:1], "32"]
    assert cells(lines, "truncated rows") == ["0", "(0.0", "%)", "1", "(50.0", "%)"]
    assert "train rows without a label, which are left out: 1" in lines
    examples = [i for i, line in enumerate(lines) if line.startswith("example ")]
    assert len(examples) == 3
    assert lines[examples[0]].endswith("label a:")
    assert "_start_" in lines[examples[0] + 1]
    assert lines[examples[0] + 1].replace("|", "").count("word") == 1
    assert lines[-1].startswith("Nothing was trained")


def test_scores_have_quantiles_and_each_choice_a_line(compose, capsys, tmp_path, write_rows):
    rows = [{"text1": "one", "text2": "two", "label": 10 * i} for i in range(5)]
    given = (
        f"data.files.train={write_rows(tmp_path / 'a.jsonl', rows)}",
        f"data.files.validation={tmp_path / 'a.jsonl'}",
    )
    lines = checked(compose, capsys, tmp_path, "task=regression", *given)
    assert cells(lines, "score, median") == ["20", "20"]
    lines = checked(compose, capsys, tmp_path, "task=choice", "data=sample")
    first = next(i for i, line in enumerate(lines) if line.startswith("example "))
    assert lines[first + 2].startswith("  "), "a line for each choice"


def test_warnings_are_listed(compose, capsys, tmp_path, write_rows):
    rows = [{"text": f"word {i}", "label": "ab"[i == 0]} for i in range(40)]
    file = write_rows(tmp_path / "train.jsonl", rows)
    given = (f"data.files.train={file}", f"data.files.validation={file}")
    lines = checked(compose, capsys, tmp_path, "task=single", *given)
    assert [line for line in lines if line.startswith("warning: ") and "validation" in line]


def test_what_is_wrong_is_the_error_of_the_run(compose, tmp_path, write_rows):
    file = write_rows(tmp_path / "train.jsonl", [{"texts": "a", "label": "b"}] * 20)
    config = compose("task=single", f"data.files.train={file}", "backbone=tiny", "check=true")
    with pytest.raises(InputError, match="texts"):
        check(config)


@pytest.mark.parametrize(
    ("recipe", "multirun", "said"), [("finetune", True, "leave out -m"), ("zero_shot", False, "recipes/finetune.py")]
)
def test_it_is_refused_where_it_is_not_read(recipe, multirun, said):
    typed = ["task=single", "backbone=tiny", "check=true"]
    with pytest.raises(InputError, match=said):
        check_overrides(typed, recipe, FinetuneConfig, multirun=multirun)
    check_overrides(typed, "finetune", FinetuneConfig)
