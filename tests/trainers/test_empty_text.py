"""Empty texts: valid beside others, left out and counted where a row has none, null predictions in their place."""

import io
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from accelerate import Accelerator
from datasets import Dataset

from heads.errors import InputError
from heads.example import Example
from trainers.backbones.load import load_tokenizer, n_positions
from trainers.build import lay_foundation
from trainers.config import FilesConfig
from trainers.data.encode import encode_records, encode_split
from trainers.data.examples import draw_examples
from trainers.data.readers import READERS
from trainers.data.records import Records, fingerprints, load_records
from trainers.data.tokenizers import padding_id
from trainers.predict import read_lines
from trainers.results import read_logits
from trainers.zero_shot.answers import Asker
from trainers.zero_shot.method import load_scored_model
from trainers.zero_shot.scoring import Scorer

LABELS = ["not_duplicate", "duplicate"]


@pytest.fixture(scope="module")
def configured(compose):
    return cache(lambda task, backbone="tiny": compose(f"task={task}", f"backbone={backbone}"))


@pytest.fixture(scope="module")
def foundation(configured):
    return cache(lambda backbone: lay_foundation(configured("sst2", backbone)))


@pytest.fixture
def encoded(configured, foundation):
    """The data of tables, {split: {column: values}}, under a task."""

    def run(task, backbone="tiny", **tables):
        config = configured(task, backbone)
        splits = {name: Dataset.from_dict(rows) for name, rows in tables.items()}
        records = Records("memory", lambda: splits, fingerprints(splits))
        return encode_records(records, config.task, foundation(backbone).encoder(config))

    return run


def guids(split):
    return [guid for guid, _ in split.named()]


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_an_empty_question_is_encoded_and_two_are_left_out(encoded, foundation, backbone):
    rows = {"question1": ["Why?", "", None, " "], "question2": ["", "How?", "Who?", None], "label": [*LABELS, *LABELS]}
    data = encoded("qqp", backbone, train=rows, validation=rows)
    assert data.n_empty == {"train": 1, "validation": 1}
    assert guids(data.splits["train"]) == ["train-0", "train-1", "train-2"]
    (first,) = data.splits["train"].rows([(0, 1.0)])
    ids = [[*first.encoded.prefix, *branch] for branch in first.encoded.branches]
    tokenizer = foundation(backbone).tokenizer
    text = tokenizer("Why?", add_special_tokens=False)["input_ids"]
    if backbone == "tiny":
        start, delimiter, extract = ids[0][0], ids[0][-2], ids[0][-1]
        assert ids == [[start, *text, delimiter, extract], [start, delimiter, *text, extract]]
    else:
        assert ids == [[tokenizer.cls_token_id, *text, tokenizer.sep_token_id, tokenizer.sep_token_id]]
    assert data.warnings[0] == "1 train row has no text and is left out: row train-3"
    assert data.warnings[1] == "1 validation row has no text and is left out: row validation-3"


@pytest.mark.parametrize("task", ["race_high", "choice"])
@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_an_empty_option_is_encoded(encoded, task, backbone):
    options = [["so", "", "it", "is"], ["", None, "", " "], ["", "", "a", "a"]]
    rows = {"article": ["An article.", "Another.", ""], "question": ["Why?", "Who?", ""], "options": options}
    rows |= {"answer": ["B", "A", "C"]}
    if task == "choice":
        columns = {f"choice{n + 1}": [row[n] for row in options] for n in range(4)}
        rows = {"context": rows["article"], "label": [1, 0, 3], **columns}
    data = encoded(task, backbone, train=rows)
    assert data.n_empty == {"train": 1}
    assert guids(data.splits["train"]) == ["train-0", "train-2"]
    encoded_rows = [row.encoded for row in data.splits["train"].rows([(0, 1.0), (1, 1.0)])]
    assert [len(one.branches) for one in encoded_rows] == [4, 4]
    assert all(branch for one in encoded_rows for branch in one.branches)


def test_no_row_with_text_is_an_error(encoded):
    with pytest.raises(InputError, match="no train row of single has text"):
        encoded("single", train={"text": ["", " "], "label": ["a", "b"]})


def test_on_empty_error_names_the_rows_of_the_file(configured, tmp_path):
    lines = ["text,label", *(f"text {i},{'ab'[i % 2]}" for i in range(8)), ",a", ",b", ",a", ",b"]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    config = configured("single")
    data = replace(config.data, files=FilesConfig(train=str(tmp_path / "train.csv")))
    assert len(load_records(config.task, data).splits["train"]) == 10
    with pytest.raises(InputError, match=r"^lines 10, 11, 12 and 1 more of .*train.csv have no text: .*on_empty=drop"):
        load_records(config.task, replace(data, on_empty="error"))


def test_zero_shot_scores_the_rows_that_fine_tuning_scores(configured):
    rows = Dataset.from_dict({"text": ["a", "", "b", None, "c"], "label": ["x", "y", "y", "x", "x"]})
    task = configured("single").task
    examples, places, n = draw_examples("validation", rows, task, ["x", "y"], most=None, seed=0, labelled=False)
    assert ([one.guid for one in examples], places, n) == (
        ["validation-0", "validation-2", "validation-4"],
        [0, 1, 2],
        3,
    )
    examples, places, n = draw_examples(
        "validation", rows, configured("single").task, ["x", "y"], most=2, seed=0, labelled=False
    )
    assert (len(examples), n) == (2, 3)
    assert [one.guid for one in examples] == [f"validation-{2 * place}" for place in places]


@pytest.mark.parametrize("on_disk", [False, True])
def test_predictions_are_as_many_as_rows(configured, foundation, on_disk, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    config = configured("single")
    rows = {"text": ["", "first", " ", "second", None], "label": ["y", "x", None, "y", None]}
    rows = Dataset.from_dict(rows)
    if on_disk:
        rows.to_parquet(str(tmp_path / "rows.parquet"))
        rows = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "datasets"))
    for _ in range(2):  # the second time from the cache
        split = encode_split("input", rows, config.task, foundation("tiny").encoder(config), ["x", "y"])
        assert len(split) == 2
    predictions = read_logits(config, split, np.array([[2.0, 1.0], [0.0, 3.0]], np.float32))
    lines = [json.loads(line) for line in predictions.lines(["x", "y"])]
    assert [line["guid"] for line in lines] == [f"input-{i}" for i in range(5)]
    assert [line["index"] for line in lines] == list(range(5))
    assert [line["prediction"] for line in lines] == [None, "x", None, "y", None]
    assert [line["label"] for line in lines] == ["y", "x", None, "y", None]
    assert [line.get("reason") for line in lines] == ["no text", None, "no text", None, "no text"]


def test_blank_lines_are_rows_without_text_but_for_those_between_json(configured):
    task = configured("single").task
    assert read_lines(io.StringIO("one\n\n  \ntwo\n"), task) == [{"text": t} for t in ("one", "", "", "two")]
    assert read_lines(io.StringIO('{"text": "one"}\n\n{"text": ""}\n\n'), task) == [{"text": "one"}, {"text": ""}]
    assert read_lines(io.StringIO("\n"), task) == [{"text": ""}]
    with pytest.raises(InputError, match="no lines"):
        read_lines(io.StringIO(""), task)


@pytest.mark.parametrize(
    ("task", "record", "expected"),
    [
        ("wic", {"sentence1": "a bank", "sentence2": None, "word": "bank", "label": "True"}, ("a bank", "", "bank")),
        ("boolq", {"passage": "", "question": "is it", "label": "True"}, ("", "is it")),
        ("copa", {"premise": "", "choice1": "A.", "choice2": "", "question": "cause", "label": 0}, ("", "because")),
        (
            "story_cloze",
            {f"input_sentence_{n}": "" if n == 2 else f"{n}." for n in (1, 2, 3, 4)}
            | {"sentence_quiz1": "so", "sentence_quiz2": "", "answer_right_ending": 1},
            ("1. 3. 4.",),
        ),
    ],
)
def test_every_reader_reads_an_empty_text(configured, task, record, expected):
    about = configured(task).task
    (example,) = READERS[about.reader](record, "train-0", about, lambda value, row: 0)
    assert isinstance(example, Example)
    assert (example.texts, example.has_text) == (expected, True)


def test_an_empty_option_is_never_chosen_without_training_and_changes_no_other_score(configured, pretrained):
    config = configured("choice")
    config = replace(config, backbone=replace(config.backbone, path=str(pretrained)))
    accelerator = Accelerator()
    tokenizer, model = load_tokenizer(config.backbone), load_scored_model(config, accelerator)
    scorer = Scorer(model, padding_id(tokenizer), layout="auto")
    asker = Asker(accelerator, scorer, tokenizer, n_positions(model.base_model), "likelihood", config.task, 1000)
    prompt = config.task.prompts.likelihood[0]
    examples = [
        Example("a", ("a text",), ("so", "", "it is", " ")),
        Example("b", ("another",), ("and", "of", "the", "is")),
    ]
    filled = [replace(examples[0], choices=("so", "it is")), examples[1]]
    scores, expected = asker.scores(prompt, examples, None)[0], asker.scores(prompt, filled, None)[0]
    assert scores.keys() == expected.keys() >= {"sum", "token_mean", "char_mean"}
    for name, found in scores.items():
        np.testing.assert_array_equal(np.isneginf(found[0]), [False, True, False, True])
        np.testing.assert_allclose(found[0, [0, 2]], expected[name][0, :2])
        np.testing.assert_allclose(found[1], expected[name][1])
