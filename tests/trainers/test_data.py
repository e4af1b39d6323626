"""From a source's rows to encoded examples, and from those to updates, micro-batches and batches of evaluation."""

import csv
import json
import os
import shutil
from dataclasses import replace
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from heads.errors import InputError
from heads.example import Example
from heads.layouts import Gpt1Layout
from heads.structures import STRUCTURES
from trainers.build import lay_foundation
from trainers.config import FilesConfig
from trainers.data import encode, hub, records
from trainers.data.batches import MOST_PADDING, PACKED_TOKENS, WINDOW, deal, epoch_updates, evaluation_batches
from trainers.data.encode import encode_records, encode_split
from trainers.data.readers import READERS
from trainers.data.records import SAMPLE, Records, fingerprints, load_records, load_split
from trainers.data.tokenizers import SPECIALS, encode_texts

TASKS = sorted({path.parent.name for path in SAMPLE.glob("*/*.jsonl")})
COUNTS = {"sst2": (1260, 200)} | dict.fromkeys(("rte", "mrpc", "stsb", "story_cloze", "dpr"), (32, 16))


def in_memory(splits):
    """Records of data sets that are there."""
    return Records("memory", lambda: splits, fingerprints(splits))


@pytest.fixture(scope="module")
def configured(compose):
    """The config of a task on a backbone, with other fields of its data; composed once for each of the two."""

    def run(task, backbone="tiny", **data):
        base = compose("task=sst2", f"backbone={backbone}")
        return replace(base, task=compose(f"task={task}").task, data=replace(base.data, **data))

    return run


@pytest.fixture(scope="module")
def foundation(configured):
    return cache(lambda backbone="tiny": lay_foundation(configured("sst2", backbone)))


def parts(data):
    return data.splits, data.labels, data.n_unlabelled


def unwanted(*args):
    raise AssertionError("done again")


@pytest.fixture
def encoded(configured, foundation):
    """The splits, labels and left-out rows of tables, {split: {column: values} or a Dataset}, under a task."""

    def run(task, tables, backbone="tiny"):
        config = configured(task, backbone)
        splits = {n: rows if isinstance(rows, Dataset) else Dataset.from_dict(rows) for n, rows in tables.items()}
        return parts(encode_records(in_memory(splits), config.task, foundation(backbone).encoder(config)))

    return run


@pytest.fixture
def from_files(configured, foundation):
    """The same for files on disk."""

    def run(task, backbone="tiny", **files):
        config = configured(task, backbone, files=FilesConfig(**{name: str(file) for name, file in files.items()}))
        records = load_records(config.task, config.data)
        return parts(encode_records(records, config.task, foundation(backbone).encoder(config)))

    return run


def write(file, rows):
    """Rows as CSV, TSV, JSON lines or Parquet, by the file's ending."""
    if file.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(str(file))
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file.suffix == ".tsv":  # no quoting: a quote is a quote, and a text holds neither tab nor line break
        table = [list(rows[0]), *(["" if value is None else str(value) for value in row.values()] for row in rows)]
        file.write_text("".join("\t".join(line) + "\n" for line in table))
    else:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return file


def labels_of(split):
    return [label for _, label in split.named()]


def guids_of(split):
    return [guid for guid, _ in split.named()]


def sentences(n, label="label"):
    return [{"text": f"a sentence about {i} things", label: ["sport", "art"][i % 2]} for i in range(n)]


# labels


def named(names, **columns):
    features = {column: ClassLabel(names=names) if column == "label" else Value("string") for column in columns}
    return Dataset.from_dict(columns, features=Features(features))


def test_labels_are_read_by_name_whatever_the_sources_order(encoded):
    texts = {"premise": ["a", "b", "c"], "hypothesis": ["x", "y", "z"]}
    train = named(["contradiction", "entailment", "neutral"], **texts, label=[0, 1, 2])
    validation = named(["neutral", "contradiction", "entailment"], **texts, label=[0, 1, 2])
    spelt = texts | {"label": ["contradiction", "entailment", "neutral"]}
    splits, labels, _ = encoded("mnli", {"train": train, "validation": validation, "validation_mismatched": spelt})
    assert labels == ["entailment", "neutral", "contradiction"]
    assert labels_of(splits["train"]) == [2, 0, 1]
    assert labels_of(splits["validation"]) == [1, 2, 0]
    assert labels_of(splits["validation_mismatched"]) == [2, 0, 1]


def test_bare_numbers_are_places_in_the_tasks_own_list(encoded):
    rows = {"premise": ["a", "b", "c"], "hypothesis": ["x", "y", "z"], "label": [2, 0, 1]}
    splits, _, _ = encoded("mnli", {"train": rows})
    assert labels_of(splits["train"]) == [2, 0, 1]


@pytest.mark.parametrize(
    ("given", "labels", "expected"),
    [
        (["sport", "art", "sport"], ["art", "sport"], [1, 0, 1]),
        ([2, 10, 0], ["0", "2", "10"], [1, 2, 0]),
        ([True, False, True], ["False", "True"], [1, 0, 1]),
        ([1.0, 0.0, 1.0], ["0", "1"], [1, 0, 1]),
        (["None", "NA", "null"], ["NA", "None", "null"], [1, 0, 2]),
        (["1", "01", "²"], ["01", "1", "²"], [1, 0, 2]),
    ],
)
def test_labels_are_discovered(encoded, given, labels, expected):
    splits, found, _ = encoded("single", {"train": {"text": ["a", "b", "c"], "label": given}})
    assert (found, labels_of(splits["train"])) == (labels, expected)


def test_the_sources_own_names_are_kept_in_their_order(encoded):
    splits, labels, _ = encoded("single", {"train": named(["z", "a", "unused"], text=["a", "b"], label=[1, 0])})
    assert (labels, labels_of(splits["train"])) == (["z", "a", "unused"], [1, 0])


def test_a_label_that_train_lacks_is_an_input_error(encoded):
    train, validation = {"text": ["a", "b"], "label": ["sport", "art"]}, {"text": ["a"], "label": ["sports"]}
    with pytest.raises(
        InputError, match=r"^row validation-0 has the label 'sports', .*Did you mean 'sport'\? Known: art"
    ):
        encoded("single", {"train": train, "validation": validation})


def test_unlabelled_rows_are_left_out_of_train_and_predicted_elsewhere(encoded, foundation):
    label = ["negative", None, "positive", "", "-1"]
    rows = {"sentence": [f"text {i}" for i in range(5)], "label": label}
    without = {"sentence": ["one", "two"]}
    splits, _, n_unlabelled = encoded("sst2", {"train": rows, "validation": rows, "test": without})
    assert n_unlabelled == 3
    assert (guids_of(splits["train"]), labels_of(splits["train"])) == (["train-0", "train-2"], [0, 1])
    assert len(splits["train"].lengths) == len(splits["train"]) == 2
    first, third = splits["train"].rows([(0, 1.0), (1, 1.0)])
    assert (first.label, third.label) == (0, 1)
    ids = encode_texts(foundation().tokenizer, ["text 0", "text 2"])
    assert [row.encoded.branches[0][1:-1] for row in (first, third)] == ids
    assert labels_of(splits["validation"]) == [0, None, 1, None, None]
    assert labels_of(splits["test"]) == [None, None]


def test_unlabelled_scores(encoded):
    rows = {"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "label": [2.5, -1.0, None]}
    splits, labels, n_unlabelled = encoded("stsb", {"train": rows, "validation": rows})
    assert (labels, n_unlabelled) == ([], 2)
    assert labels_of(splits["train"]) == [2.5]
    assert labels_of(splits["validation"]) == [2.5, None, None]


def test_a_train_split_without_labels_is_an_input_error(encoded):
    with pytest.raises(InputError, match=r"^no train row of sst2 has a label \(column 'label'\)$"):
        encoded("sst2", {"train": {"sentence": ["a", "b"], "label": [-1, -1]}})


# readers


def all_of(split):
    """All that a split holds."""
    return split.table.rows(range(len(split)))


def shown(split):
    """What a split holds, without the examples' names."""
    return {key: column for key, column in all_of(split).items() if key != "guid"}


QUESTIONS = ["What did she buy?", "Where was it?", "Who came too?"]
OPTIONS = [
    ["a hat", "a cat", "a boat", "nothing"],
    ["here", "there", "at sea", "on a hill"],
    ["me", "you", "he", "she"],
]


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_races_raw_files_and_the_hubs_rows_are_the_same_examples(from_files, tmp_path, backbone):
    article = "She went to the shop near the sea and bought a boat."
    raw = [
        {"id": "1.txt", "article": article, "questions": QUESTIONS[:2], "options": OPTIONS[:2], "answers": ["C", "A"]},
        {"id": "2.txt", "article": "Short.", "questions": QUESTIONS[2:], "options": OPTIONS[2:], "answers": ["D"]},
    ]
    hub = [
        {"example_id": "1", "article": text, "question": question, "options": options, "answer": answer}
        for text, question, options, answer in zip([article] * 2 + ["Short."], QUESTIONS, OPTIONS, "CAD", strict=True)
    ]
    splits = {
        name: from_files(
            "race",
            train=write(tmp_path / f"{name}.jsonl", rows),
            validation=tmp_path / f"{name}.jsonl",
            backbone=backbone,
        )[0]
        for name, rows in (("raw", raw), ("hub", hub))
    }
    assert labels_of(splits["raw"]["train"]) == [2, 0, 3]
    assert shown(splits["raw"]["train"]) == shown(splits["hub"]["train"])
    assert guids_of(splits["raw"]["train"]) == ["train-0-0", "train-0-1", "train-1-0"]
    assert splits["raw"]["train"].n_sequences == 4


def test_races_question_follows_its_article_and_candidates_differ_in_their_answer(encoded, foundation):
    rows = {"article": ["one two"], "question": ["which?"], "options": [["a", "b c"]], "answer": ["B"]}
    (row,) = encoded("race", {"train": rows})[0]["train"].rows([(0, 1.0)])
    tokenizer = foundation().tokenizer
    start, delimiter, extract = tokenizer.convert_tokens_to_ids(list(SPECIALS))
    article, question, first, second = encode_texts(tokenizer, ["one two", " which?", "a", "b c"])
    assert row.encoded.prefix == [start, *article, *question, delimiter]
    assert row.encoded.branches == [[*first, extract], [*second, extract]]
    assert row.label == 1


def test_a_question_keeps_the_space_before_it():
    byte_level = Tokenizer(BPE({token: i for i, token in enumerate("abcĠ")}, []))
    byte_level.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level)
    encoder = encode.Encoder("multiple_choice", STRUCTURES["multiple_choice"], tokenizer, Gpt1Layout(91, 92, 93, 20))
    (one,) = encoder([Example("race-0", ("a", "b"), ("c", "a b"))])
    assert (one.prefix, one.branches) == ([91, 0, 3, 1, 92], [[2, 93], [0, 3, 1, 93]])


def story(n, right):
    lines = {f"InputSentence{k}": f"Sentence {k} of story number {n} and more" for k in (1, 2, 3, 4)}
    endings = {"RandomFifthSentenceQuiz1": f"First end {n}.", "RandomFifthSentenceQuiz2": f"Second end {n}."}
    return {"InputStoryid": f"id-{n}", **lines, **endings, "AnswerRightEnding": right}


def test_story_clozes_own_files(from_files, encoded, tmp_path):
    train = write(tmp_path / "spring2016_val.csv", [story(0, 2), story(1, 1)])
    test = write(tmp_path / "spring2016_test.csv", [story(2, 1)])
    splits, labels, _ = from_files("story_cloze", train=train, validation=train, test=test)
    assert labels == ["1", "2"]
    assert (labels_of(splits["train"]), labels_of(splits["test"])) == ([1, 0], [0])
    hub = {f"input_sentence_{k}": [story(n, 0)[f"InputSentence{k}"] for n in (0, 1)] for k in (1, 2, 3, 4)}
    hub |= {f"sentence_quiz{k}": [story(n, 0)[f"RandomFifthSentenceQuiz{k}"] for n in (0, 1)] for k in (1, 2)}
    assert shown(encoded("story_cloze", {"train": hub | {"answer_right_ending": [2, 1]}})[0]["train"]) == shown(
        splits["train"]
    )


def test_story_clozes_context_is_its_four_sentences(encoded, foundation):
    rows = {key: [value] for key, value in story(7, 1).items()}
    (row,) = encoded("story_cloze", {"train": rows})[0]["train"].rows([(0, 1.0)])
    context = " ".join(story(7, 1)[f"InputSentence{k}"] for k in (1, 2, 3, 4))
    (ids,) = encode_texts(foundation().tokenizer, [context])
    assert row.encoded.prefix[1:-1] == ids


@pytest.fixture
def read(configured):
    """The examples of one record of a task, labels being class indices."""

    def run(task, record):
        task = configured(task).task
        return READERS[task.reader](record, "train-0", task, lambda value, guid: value)

    return run


def dpr(sentence, pronoun="it", candidates=("The cup", "the bag"), label=0):
    return {"sentence": sentence, "pronoun": pronoun, "candidates": list(candidates), "label": label}


def wsc(sentence, at, **columns):
    record = dpr(sentence, **columns)
    return {"text": sentence, "pronoun_loc": at, "options": record["candidates"]} | {
        key: record[key] for key in ("pronoun", "label")
    }


SENTENCE = "The cup broke in the bag because it was thin."


def test_a_pronouns_place_is_taken_by_each_candidate(read):
    (example,) = read("dpr", dpr(SENTENCE, label=1))
    before = ("The cup broke in the bag because",)
    assert example == Example("train-0", before, ("the cup", "the bag"), 1, rest=" was thin.")
    assert read("wsc273", wsc(SENTENCE, SENTENCE.index("it was"), label=1)) == [example]


@pytest.mark.parametrize(
    ("sentence", "pronoun", "candidates", "before"),
    [
        ("They told Ann that she knew she won.", "she", ["They", "Ann"], "They told Ann that"),
        ("They said they saw dogs, and they barked.", "they", ["They", "dogs"], "They said they saw dogs, and"),
        ("As it was thin, the cup broke.", "it", ["the cup", "a bag"], "As"),
        ("It broke, the cup.", "it", ["The cup", "a bag"], ""),
        ("His sister hit Tom.", "his", ["Tom", "Sam"], ""),
    ],
    ids=["the first behind both", "one before a candidate", "before both", "at the beginning", "not within a word"],
)  # fmt: skip
def test_a_pronoun_without_a_place_is_found(read, sentence, pronoun, candidates, before):
    (example,) = read("dpr", dpr(sentence, pronoun, candidates))
    assert example.texts == (before,)
    assert example.rest == sentence[len(before) :].lstrip()[len(pronoun) :]


@pytest.mark.parametrize(
    ("sentence", "at", "pronoun", "candidates", "expected"),
    [
        ("They ran. It fell.", 10, "It", ["the cup", "iPhones"], ("The cup", "iPhones")),
        ("Look at it!", 8, "it", ["His cup", "The Ritz"], ("his cup", "the Ritz")),
        ("See his hat.", 4, "his", ["Lars", "The boy"], ("Lars's", "the boy's")),
        ("See their hats.", 4, "their", ["the boys", "The men"], ("the boys'", "the men's")),
        ("See her hat.", 4, "her", ["Ann", "Bo"], ("Ann's", "Bo's")),
        ("I took her to the sea.", 7, "her", ["Ann", "Bo"], ("Ann", "Bo")),
        ("I saw her.", 6, "her", ["Ann", "Bo"], ("Ann", "Bo")),
        ("Her hat!", 0, "her", ["my aunt", "Bo"], ("My aunt's", "Bo's")),
    ],
)
def test_a_candidate_is_written_as_the_place_asks(read, sentence, at, pronoun, candidates, expected):
    (example,) = read("wsc273", wsc(sentence, at, pronoun=pronoun, candidates=candidates))
    assert example.choices == expected
    assert (example.texts, example.rest) == ((sentence[:at].rstrip(),), sentence[at + len(pronoun) :])


def test_a_pronoun_that_is_not_there_is_an_input_error(read):
    with pytest.raises(InputError, match=r"^row train-0: the pronoun 'it' is not a word of 'A bit of fun.': mend the"):
        read("dpr", dpr("A bit of fun."))
    with pytest.raises(InputError, match=r"^row train-0: the pronoun 'it' is not at place 3 of 'The cup broke"):
        read("wsc273", wsc(SENTENCE, 3))


def test_a_sentence_that_begins_with_its_pronoun_is_encoded(encoded, foundation):
    rows = {"sentence": ["It broke."], "pronoun": ["it"], "candidates": [["the cup", "the bag"]], "label": [1]}
    for backbone in ("tiny", "tiny_bert"):
        (row,) = encoded("dpr", {"train": rows}, backbone=backbone)[0]["train"].rows([(0, 1.0)])
        first, second = encode_texts(foundation(backbone).tokenizer, ["The cup broke.", "The bag broke."])
        whole = [[*row.encoded.prefix, *branch] for branch in row.encoded.branches]
        assert [one[2:-1] for one in whole] == [first, second]  # after special tokens alone
        assert len(row.encoded.prefix) == 3  # both begin with "the"


def test_both_data_sets_of_pronouns_go_together(encoded):
    train = {key: [value, value] for key, value in dpr(SENTENCE).items()}
    test = {key: [value] for key, value in wsc(SENTENCE, 33).items()}
    splits, labels, _ = encoded("wsc273", {"train": train, "test": test})
    assert labels == ["0", "1"]
    assert all_of(splits["train"])["branches"][0] == all_of(splits["test"])["branches"][0]
    with pytest.raises(
        InputError, match=r"^the train split has no column 'candidates'. It has: sentence, pronoun, label"
    ):
        encoded("dpr", {"train": {key: [value] for key, value in dpr(SENTENCE).items() if key != "candidates"}})


@pytest.mark.parametrize(
    ("question", "premise", "first", "expected"),
    [
        ("cause", "The cup broke.", "It was thin.", ("The cup broke", "because", "it was thin.")),
        ("effect", "I fell ", " I'm sad.", ("I fell", "so", "I'm sad.")),
        ("effect", "They won.", "TV came.", ("They won", "so", "TV came.")),
    ],
)
def test_copas_clauses_go_on_after_a_connective(read, question, premise, first, expected):
    record = {"premise": premise, "choice1": first, "choice2": "The end.", "question": question, "label": 1}
    (example,) = read("copa", record)
    assert example == Example("train-0", expected[:2], (expected[2], "the end."), 1)


def test_copa_asks_for_a_cause_or_an_effect(read):
    record = {"premise": "A.", "choice1": "B.", "choice2": "C.", "question": "causes", "label": 0}
    with pytest.raises(
        InputError, match=r"^row train-0 names the question 'causes', .* Did you mean 'cause'\? Known: cause, effect$"
    ):
        read("copa", record)


def test_wics_word_stands_after_its_second_sentence(encoded, foundation):
    rows = {"sentence1": ["a bank"], "sentence2": ["the bank"], "word": ["bank"], "label": [True]}
    (row,) = encoded("wic", {"train": rows})[0]["train"].rows([(0, 1.0)])
    start, delimiter, extract = foundation().tokenizer.convert_tokens_to_ids(list(SPECIALS))
    first, second, word = encode_texts(foundation().tokenizer, ["a bank", "the bank", " bank"])
    assert row.encoded.branches == [[start, *first, delimiter, *second, *word, extract]]
    assert row.label == 1


def test_the_candidates_may_be_in_one_column(configured, foundation):
    task = replace(configured("choice").task, choices=["endings"])
    rows = {"context": ["a", "b"], "endings": [["x", "y", "z"], ["x", "y"]], "label": [2, 0]}
    config = replace(configured("choice"), task=task)
    splits = encode_records(in_memory({"train": Dataset.from_dict(rows)}), task, foundation().encoder(config)).splits
    assert (labels_of(splits["train"]), splits["train"].n_sequences) == ([2, 0], 3)


# files

HARD = [
    {"text": 'He said "yes", twice', "label": "sport"},
    {"text": "None", "label": "art"},
    {"text": "NA", "label": "sport"},
    {"text": "null", "label": "art"},
    {"text": "nan", "label": "sport"},
    {"text": "007", "label": "art"},
    {"text": "line one\nline two, and a\ttab", "label": "sport"},
    {"text": "naïve café – 日本", "label": "art"},
    {"text": "[SEP] _start_ # not a comment", "label": "sport"},
]


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_examples(from_files, encoded, tmp_path, ending, backbone):
    rows = [*HARD, {"text": '"a quote that is never closed', "label": "art"}]
    if ending == "tsv":
        rows = [row | {"text": " ".join(row["text"].split())} for row in rows]
    file = write(tmp_path / f"train.{ending}", rows)
    splits, labels, _ = from_files("single", train=file, validation=file, backbone=backbone)
    memory = {"train": {key: [row[key] for row in rows] for key in ("text", "label")}}
    expected, expected_labels, _ = encoded("single", memory, backbone=backbone)
    assert labels == expected_labels == ["art", "sport"]
    assert all_of(splits["train"]) == all_of(expected["train"])
    assert len(splits["train"]) == len(rows)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("texts", [["007", "1.50", "12"], ["TRUE", "false", "True"]], ids=["numbers", "truth"])
def test_a_column_of_texts_that_look_like_values_stays_text(from_files, encoded, tmp_path, ending, texts):
    rows = [{"text": text, "label": label} for text, label in zip(texts, ["02", "01", "02"], strict=True)]
    file = write(tmp_path / f"train.{ending}", rows)
    splits, labels, _ = from_files("single", train=file, validation=file)
    expected, _, _ = encoded("single", {"train": {"text": texts, "label": ["02", "01", "02"]}})
    assert labels == ["01", "02"]
    assert shown(splits["train"]) == shown(expected["train"])


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_an_empty_label_is_none_in_every_format(from_files, tmp_path, ending):
    empty = "" if ending in ("csv", "tsv") else None
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate([1, empty, 0])]
    file = write(tmp_path / f"train.{ending}", rows)
    splits, labels, n_unlabelled = from_files("single", train=file, validation=file)
    assert (labels, n_unlabelled) == (["0", "1"], 1)
    assert (labels_of(splits["train"]), labels_of(splits["validation"])) == ([1, 0], [1, None, 0])


# a folder laid out as the hub is


@pytest.fixture
def mirror(tmp_path):
    """A folder with one Parquet file for each of {"owner/name/config/split": rows}."""

    def write_all(tables):
        for place, rows in tables.items():
            file = tmp_path / f"{place}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file, rows)
        configs = {}
        for place in tables:
            owner, name, config, split = place.split("/")
            configs.setdefault(f"{owner}/{name}", {}).setdefault(config, {})[split] = f"{config}/{split}.parquet"
        for name, found in configs.items():
            listed = [
                {"config_name": c, "data_files": [{"split": s, "path": path} for s, path in files.items()]}
                for c, files in found.items()
            ]
            (tmp_path / name / "README.md").write_text(f"---\nconfigs: {json.dumps(listed)}\n---\n")
        return str(tmp_path)

    return write_all


def test_a_split_may_be_another_data_sets(configured, mirror):
    texts = ["a test row", "another's row", "another configuration's row"]
    other, own = "community-datasets/definite_pronoun_resolution/plain_text", "ErnestSDavis/winograd_wsc"
    tables = {
        f"{other}/train": [dpr(f"{SENTENCE} {n}") for n in range(20)],
        f"{own}/wsc273/test": [wsc(f"{SENTENCE} {texts[0]}", 33)],
        f"{own}/wsc285/test": [wsc(f"{SENTENCE} {texts[2]}", 33)],
    }
    config = configured("wsc273", root=mirror(tables))
    records = load_records(config.task, config.data)
    assert {name: len(rows) for name, rows in records.splits.items()} == {"train": 18, "validation": 2, "test": 1}
    assert records.splits["test"]["text"][0].endswith(texts[0])
    assert len(load_split(config.task, config.data, "test")) == 1
    task = replace(config.task, splits=config.task.splits | {"test": "wsc285:test"})
    assert load_split(task, config.data, "test")["text"][0].endswith(texts[2])
    task = replace(config.task, splits=config.task.splits | {"test": "nobody/nothing@plain:test"})
    with pytest.raises(
        InputError, match=r"there is no .*/nobody/nothing; the folder is laid out as the hub is, OWNER/NAME$"
    ):
        load_split(task, config.data, "test")


# rows that were read before


@pytest.mark.parametrize("source", ["files", "mirror", "sample"])
def test_rows_that_were_read_before_are_read_when_they_are_asked_for(
    configured, foundation, mirror, tmp_path, monkeypatch, own_cache, source
):
    given = {"sample": {"sample": True}}
    given["files"] = {"files": FilesConfig(train=str(write(tmp_path / "rows.jsonl", sentences(20))))}
    config = configured("sst2" if source == "mirror" else "single", **given.get(source, {}))
    if source == "mirror":
        rows = [{"sentence": f"row {n}", "label": n % 2} for n in range(20)]
        root = mirror({f"nyu-mll/glue/sst2/{split}": rows for split in ("train", "validation", "test")})
        config = replace(config, data=replace(config.data, root=root))
    encoder = foundation().encoder(config)
    first = load_records(config.task, config.data)
    splits, *more = parts(encode_records(first, config.task, encoder))
    for name in ("read_files", "read_hub"):
        monkeypatch.setattr(records, name, unwanted)
    again = load_records(config.task, config.data)
    assert (again.source, again.cut, again.files) == (first.source, first.cut, first.files)
    found, *found_more = parts(encode_records(again, config.task, encoder))
    assert list(found) == list(splits)
    assert (found_more, {name: all_of(split) for name, split in found.items()}) == (
        more,
        {name: all_of(split) for name, split in splits.items()},
    )
    with pytest.raises(AssertionError, match="done again"):
        _ = again.splits
    with pytest.raises(AssertionError, match="done again"):
        load_records(config.task, replace(config.data, train_rows=7))


def test_rows_that_were_changed_are_read_anew(configured, mirror, tmp_path, own_cache):
    rows = [{"sentence": f"row {n}", "label": n % 2} for n in range(20)]
    tables = {f"nyu-mll/glue/sst2/{split}": rows for split in ("train", "validation", "test")}
    config = configured("sst2", root=mirror(tables))
    file = write(tmp_path / "rows.jsonl", sentences(20))
    own = configured("single", files=FilesConfig(train=str(file)))

    def contents():
        return [load_records(one.task, one.data).content for one in (config, own)]

    first = contents()
    assert contents() == first
    write(file, sentences(21))
    tables["nyu-mll/glue/sst2/train"] = [*rows, rows[0]]
    mirror(tables)
    assert not set(contents()) & set(first)
    assert len(load_records(config.task, config.data).splits["train"]) == 21
    assert sum(map(len, load_records(own.task, own.data).splits.values())) == 21


def test_a_table_of_one_split_is_that_of_its_rows(configured, foundation, mirror, own_cache):
    def found(config, rows):
        return all_of(encode_split("test", rows, config.task, foundation().encoder(config), ["0", "1"]))["length"]

    tables = {f"nyu-mll/glue/sst2/{split}": [{"sentence": "a", "label": 0}] for split in ("train", "test")}
    config = configured("sst2", root=mirror(tables))
    first = found(config, load_split(config.task, config.data, "test"))
    tables["nyu-mll/glue/sst2/test"] = [{"sentence": "a b c d e f", "label": 0}]
    mirror(tables)
    assert found(config, load_split(config.task, config.data, "test")) != first
    folders = set(own_cache.rglob("*.arrow"))
    typed = Dataset.from_dict({"sentence": ["a", "b c d"], "label": [0, 1]})
    assert len(found(config, typed)) == 2
    assert set(own_cache.rglob("*.arrow")) == folders  # what was typed stays in memory


def test_a_file_of_another_content_and_the_same_time_is_read_anew(configured, tmp_path, own_cache):
    file, found = tmp_path / "rows.jsonl", []
    for n in (20, 21):
        write(file, sentences(n))
        os.utime(file, (1e9, 1e9))
        config = configured("single", files=FilesConfig(train=str(file)))
        found.append(sum(map(len, load_records(config.task, config.data).splits.values())))
    assert found == [20, 21]


def test_a_mirror_is_told_by_its_place_and_its_files_but_the_hidden_ones(configured, mirror, tmp_path):
    rows = [{"sentence": "a", "label": 0}]
    root = mirror({f"nyu-mll/glue/sst2/{split}": rows for split in ("train", "test")})
    task = configured("sst2").task
    first = hub.hub_origin(task, root)
    for hidden in (".git/index", "sst2/.DS_Store"):
        file = tmp_path / "nyu-mll" / "glue" / hidden
        file.parent.mkdir(exist_ok=True)
        file.write_text("1")
    assert hub.hub_origin(task, root) == first
    shutil.copytree(tmp_path / "nyu-mll", tmp_path / "copy" / "nyu-mll")  # with the times
    assert hub.hub_origin(task, str(tmp_path / "copy")) != first
    (tmp_path / "nyu-mll" / "glue" / "sst2" / "new.parquet").write_text("1")
    assert hub.hub_origin(task, root) != first


def test_the_commit_of_rows_is_that_of_their_folder(configured):
    task, commit = configured("sst2").task, "0" * 39 + "a"

    def kept(*folders):
        return SimpleNamespace(cache_files=[{"filename": f"/cache/glue/sst2/{one}/rows.arrow"} for one in folders])

    told = hub.origin_of_read(task, {"train": kept(commit), "test": kept(commit)})
    assert told[1] == {"nyu-mll/glue": commit}
    for unknown in (kept(), kept("0.0.0")):  # in memory; of a folder on this machine
        assert hub.origin_of_read(task, {"train": unknown}) is None


@pytest.mark.parametrize("name", ["a/b/c", "a b/c", "nobody/nothing"])
def test_no_commit_is_told_of_what_is_not_in_the_hubs_cache(configured, name):
    task = replace(configured("sst2").task, hub=name)
    assert hub.hub_origin(task, None) is None


def test_a_cache_that_lost_files_is_filled_again(configured, foundation, own_cache):
    config = configured("sst2", sample=True)
    encoder = foundation().encoder(config)

    def found():
        records = load_records(config.task, config.data)
        return {name: all_of(split) for name, split in encode_records(records, config.task, encoder).splits.items()}

    first = found()
    for lost in ("encoded/*/train.arrow", "encoded/*/encoded.json", "rows/*/rows.json"):
        (file,) = own_cache.glob(lost)
        file.unlink()
        assert found() == first
        assert len(list(own_cache.glob(lost))) == 1


def test_rows_of_the_hub_are_told_by_their_commit(configured, monkeypatch, own_cache):
    """That of the rows which are read, whatever the hub has by then."""
    config, told, has, reads = configured("sst2"), [None], [None], []
    rows = Dataset.from_dict({"sentence": ["a", "b"], "label": [0, 1]})

    def read(task, root):
        reads.append(has[0])
        return {"train": rows, "validation": rows}

    def content(now_told, now_has):
        told[0], has[0] = now_told, now_has
        return load_records(config.task, config.data).content

    monkeypatch.setattr(records, "hub_origin", lambda task, root: told[0] and [told[0]])
    monkeypatch.setattr(records, "origin_of_read", lambda task, splits: has[0] and [has[0]])
    monkeypatch.setattr(records, "read_hub", read)
    first = content(None, "a")
    assert [content("a", "a"), content("a", "a"), reads] == [first, first, ["a"]]
    assert content("b", "a") == first  # the hub has another, and datasets reads what it has kept
    second = content("b", "b")
    assert [content("b", "b"), reads] == [second, ["a", "a", "b"]]
    assert second != first
    assert content("c", None) == content(None, None) == fingerprints({"train": rows, "validation": rows})
    content("b", "a")
    with pytest.raises(InputError, match=r"^sst2: datasets' cache has other rows than the hub's: read them while"):
        _ = load_records(config.task, config.data).splits


# the cut of validation from train


@pytest.fixture
def cut(configured):
    """The records of a train file of one's own, and each split's texts."""

    def run(file, validation=None, **data):
        files = FilesConfig(train=str(file), validation=validation and str(validation))
        config = configured("single", files=files, **data)
        records = load_records(config.task, config.data)
        return records, {name: list(rows["text"]) for name, rows in records.splits.items()}

    return run


def test_validation_is_cut_from_train_by_the_seed(cut, tmp_path):
    file = write(tmp_path / "train.jsonl", sentences(40))
    records, texts = cut(file)
    assert records.cut == "4 of 40 train rows, stratified by class, seed 0"
    assert [len(rows) for rows in texts.values()] == [36, 4]
    assert sorted(texts["train"] + texts["validation"]) == sorted(row["text"] for row in sentences(40))
    assert cut(file)[1] == texts
    records, other = cut(file, split_seed=1, validation_fraction=0.25)
    assert records.cut == "10 of 40 train rows, stratified by class, seed 1"
    assert not set(other["train"]) & set(other["validation"])
    assert set(cut(file, split_seed=1)[1]["validation"]) != set(texts["validation"])


def test_a_validation_file_is_not_cut(cut, tmp_path):
    file, validation = write(tmp_path / "train.jsonl", sentences(10)), write(tmp_path / "dev.csv", sentences(3))
    records, texts = cut(file, validation)
    assert records.cut is None
    assert [len(rows) for rows in texts.values()] == [10, 3]


def test_a_seeded_sample_of_the_rows(cut, tmp_path):
    file = write(tmp_path / "train.jsonl", sentences(40))
    _, whole = cut(file)
    _, texts = cut(file, train_rows=7, eval_rows=2)
    assert [len(set(rows)) for rows in texts.values()] == [7, 2]
    assert all(set(texts[name]) <= set(whole[name]) for name in texts)
    assert cut(file, train_rows=7, eval_rows=2)[1] == texts
    assert cut(file, train_rows=100)[1] == whole


# the samples that ship


def test_samples_were_found():
    assert len(TASKS) == 27
    assert {"sst2", "mnli", "stsb", "race", "story_cloze", "single", "regression"} <= set(TASKS)


@pytest.fixture(scope="module")
def sample(configured):
    def load(task):
        config = configured(task, sample=True)
        return load_records(config.task, config.data)

    return cache(load)


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_has_the_rows_promised(sample, task):
    records = sample(task)
    sizes = {name: len(rows) for name, rows in records.splits.items()}
    assert (records.source, records.cut) == ("sample", None)
    if task in COUNTS:
        assert (sizes["train"], sizes["validation"]) == COUNTS[task]
    assert min(sizes.values()) >= 8


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_a_sample_is_encoded(configured, foundation, sample, task, backbone):
    config = configured(task, backbone, sample=True)
    assert config.head.name == ("gpt1" if backbone == "tiny" else "cls")
    data = encode_records(sample(task), config.task, foundation(backbone).encoder(config))
    splits, labels, n_unlabelled = parts(data)
    assert n_unlabelled == 0
    expected = {"classification": 1, "entailment": 1, "similarity": 2 if backbone == "tiny" else 1}
    layout = foundation(backbone).layout
    for name, split in splits.items():
        known = [label for label in labels_of(split) if label is not None]
        assert len(known) == len(split) or name.startswith("test")
        if config.task.regression:
            assert all(0 <= label <= 5 for label in known)
            assert len(set(known)) > 3
        elif known:
            assert set(known) == set(range(len(labels)))
        n = expected.get(config.task.structure, len(labels))
        for row in split.rows([(i, 1.0) for i in range(len(split))]):
            whole = [[*row.encoded.prefix, *branch] for branch in row.encoded.branches]
            assert len(whole) == n
            opening, closing = (
                (layout.start, layout.extract) if backbone == "tiny" else (layout.opening[0], layout.closing[0])
            )
            assert {(ids[0], ids[-1]) for ids in whole} == {(opening, closing)}
            extract = [len(ids) - 1 for ids in whole] if backbone == "tiny" else [0] * n
            assert row.encoded.extract_position == extract
        assert split.n_cut == 0


# text that spells a special token


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_a_text_that_spells_a_special_token_is_text(encoded, foundation, backbone):
    tokenizer = foundation(backbone).tokenizer
    special = {
        *tokenizer.all_special_ids,
        *tokenizer.convert_tokens_to_ids([t for t in SPECIALS if backbone == "tiny"]),
    }
    special -= {tokenizer.unk_token_id}
    assert len(special) >= 3
    spelt = " ".join(["so", *SPECIALS, *tokenizer.all_special_tokens, "[SEP]", "it is"])
    (ids,) = encode_texts(tokenizer, [spelt])
    assert not special & set(ids)
    assert len(ids) > 10
    plain = encoded(
        "mrpc", {"train": {"sentence1": ["so"], "sentence2": ["it"], "label": ["equivalent"]}}, backbone=backbone
    )
    tricky = encoded(
        "mrpc", {"train": {"sentence1": [spelt], "sentence2": [spelt], "label": ["equivalent"]}}, backbone=backbone
    )
    counts = [
        [sum(i in special for i in branch) for branch in all_of(found[0]["train"])["branches"][0]]
        for found in (plain, tricky)
    ]
    assert counts[0] == counts[1] == ([3, 3] if backbone == "tiny" else [3])


# encoding once


@pytest.fixture
def train_of(configured):
    """The train split, with a foundation laid anew, and other fields of its config's nodes."""

    def run(backbone="tiny", head=None, task=None, **changes):
        config = configured("rte", backbone, sample=True)
        config = replace(
            config, head=replace(config.head, **head or {}), task=replace(config.task, **task or {}), **changes
        )
        records = load_records(config.task, config.data)
        return encode_records(records, config.task, lay_foundation(config).encoder(config)).splits["train"]

    return run


def test_the_same_content_is_encoded_once(train_of, compose, monkeypatch, own_cache):
    first = all_of(train_of())
    monkeypatch.setattr(encode, "encode_texts", unwanted)
    again = train_of(seed=3, ablation="no_aux_lm", optim=compose("task=rte", "optim=bert").optim)
    assert all_of(again) == first
    with pytest.raises(AssertionError, match="done again"):
        train_of(head={"n_ctx": 64})


def test_a_table_in_pieces_is_that_of_one(encoded, monkeypatch, own_cache):
    n = 10
    label = [[None, "negative", "positive"][i % 3] for i in range(n)]
    rows = {"sentence": [f"row {i}, " + "so " * i for i in range(n)], "label": label}
    tables = {"train": rows, "test": rows}
    whole, labels, n_unlabelled = encoded("sst2", tables)
    monkeypatch.setattr(encode, "PIECE", 3)
    monkeypatch.setenv("ABLATUNE_CACHE", str(own_cache / "pieces"))
    pieces, *more = encoded("sst2", tables)
    assert more == [labels, n_unlabelled]
    assert n_unlabelled == 4
    assert [len(split) for split in pieces.values()] == [6, 10]
    order = [7, 0, 9, 3, 3, 8, 2]
    for name, split in whole.items():
        found = pieces[name]
        assert all_of(found) == all_of(split)
        assert found.lengths.tolist() == split.lengths.tolist() == all_of(split)["length"]
        np.testing.assert_array_equal(found.labels_N, split.labels_N)
        assert list(found.named()) == list(split.named())
    assert pieces["test"].table.rows(order)["guid"] == [f"test-{i}" for i in order]
    assert [label for _, label in pieces["test"].named()] == [None, 0, 1] * 3 + [None]
    sample = pieces["test"].sample(5, seed=0)
    assert all_of(sample)["guid"] == sorted(all_of(sample)["guid"])
    assert len(sample) == len(set(all_of(sample)["guid"])) == 5


def test_other_content_is_another_table(train_of):
    found = [
        train_of(),
        train_of(head={"n_ctx": 20}),
        train_of(task={"structure": "similarity"}),
        train_of(task={"texts": ["sentence2", "sentence1"]}),
        train_of(task={"labels": ["not_entailment", "entailment"]}),
        train_of("tiny_bert"),
    ]
    contents = [json.dumps(shown(split)) for split in found]
    assert len(set(contents)) == len(contents)
    assert found[1].lengths.max() <= 20 < found[0].lengths.max()


def test_cleaning_is_part_of_the_content(configured, foundation):
    encoder = foundation().encoder(configured("rte"))
    assert encoder.content() != replace(encoder, cleaning="gpt1").content()


# updates, micro-batches, batches of evaluation


def as_lists(batches):
    return [batch.tolist() for batch in batches]


def lengths_of(n, seed=0):
    return np.random.default_rng(seed).integers(1, 100, n).tolist()


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (3, 4), (4, 4), (37, 4), (1000, 8), (64, 1)])
def test_an_epoch_has_every_example_once(n, batch_size, group):
    lengths = lengths_of(n)
    updates = as_lists(epoch_updates(lengths, batch_size, seed=0, epoch=0, group=group))
    assert sorted(i for update in updates for i in update) == list(range(n))
    assert [len(update) for update in updates] == [batch_size] * (n // batch_size) + [n % batch_size] * (
        n % batch_size > 0
    )


@pytest.mark.parametrize("group", [True, False])
def test_an_epochs_order_is_of_its_seed_and_number(group):
    lengths = lengths_of(100)

    def order(seed, epoch):
        return as_lists(epoch_updates(lengths, 8, seed=seed, epoch=epoch, group=group))

    assert order(0, 0) == order(0, 0)
    found = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert all(a != b for n, a in enumerate(found) for b in found[:n])
    # nor are the same examples together again
    together = [{frozenset(update) for update in updates} for updates in found]
    assert len(together[0] & together[1]) < 3


def test_batches_are_of_like_length_and_in_no_order_of_it():
    lengths = lengths_of(WINDOW * 8)
    updates = epoch_updates(lengths, 8, seed=0, epoch=0, group=True)
    spans = [(min(lengths[i] for i in update), max(lengths[i] for i in update)) for update in updates]
    ordered = sorted(spans)
    assert all(below[1] <= above[0] for below, above in pairwise(ordered))
    assert spans not in (ordered, ordered[::-1])


@pytest.mark.parametrize("micro", [1, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13, 32])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_an_update_is_dealt_whole(world, n, micro):
    lengths = lengths_of(50)
    update = np.random.default_rng(n).permutation(50)[:n].tolist()
    shares = [deal(update, lengths, rank=rank, world=world, micro=micro) for rank in range(world)]
    real = [i for share in shares for batch in share for i, weight in batch if weight == 1]
    assert sorted(real) == sorted(update)
    places = [place for share in shares for batch in share for place in batch]
    assert {weight for _, weight in places} <= {0.0, 1.0}
    assert {i for i, _ in places} == set(update)
    assert len(places) - n < world  # no more fillers than are needed
    sizes = [[len(batch) for batch in share] for share in shares]
    assert sizes == [sizes[0]] * world  # every process steps together
    assert max(sizes[0]) <= micro


def test_processes_have_like_work():
    lengths = lengths_of(64)
    for world in (2, 4):
        shares = [deal(range(64), lengths, rank=rank, world=world, micro=64) for rank in range(world)]
        work = [sum(lengths[i] for batch in share for i, _ in batch) for share in shares]
        assert max(work) - min(work) <= max(lengths)


@pytest.mark.parametrize("n_sequences", [1, 4])
@pytest.mark.parametrize("max_tokens", [1, 100, 777, 10**6])
def test_evaluation_has_every_example_once_within_the_budget(max_tokens, n_sequences):
    lengths = lengths_of(200)
    batches = as_lists(evaluation_batches(lengths, n_sequences, max_tokens))
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    padded = [len(batch) * n_sequences * max(lengths[i] for i in batch) for batch in batches]
    assert all(tokens <= max_tokens or len(batch) == 1 for tokens, batch in zip(padded, batches, strict=True))
    real = [n_sequences * sum(lengths[i] for i in batch) for batch in batches]
    assert all(few >= (1 - MOST_PADDING) * tokens for few, tokens in zip(real, padded, strict=True))
    # and the next example would have been too many, or have brought too much padding
    for tokens, few, batch, following in zip(padded, real, batches, batches[1:], strict=False):
        grown = tokens + tokens // len(batch)
        assert grown > max_tokens or few + n_sequences * lengths[following[0]] < (1 - MOST_PADDING) * grown


@pytest.mark.parametrize("n_sequences", [1, 4])
@pytest.mark.parametrize("max_tokens", [1, 777, 10**6])
def test_packed_evaluation_counts_tokens_without_padding(max_tokens, n_sequences):
    lengths = lengths_of(2000)
    packed = as_lists(evaluation_batches(lengths, n_sequences, max_tokens, packed=True))
    assert sorted(i for batch in packed for i in batch) == list(range(2000))
    real = [n_sequences * sum(lengths[i] for i in batch) for batch in packed]
    most = min(max_tokens, PACKED_TOKENS)
    assert all(tokens <= most or len(batch) == 1 for tokens, batch in zip(real, packed, strict=True))
    # and the next example would have been too many
    following = [n_sequences * lengths[batch[0]] for batch in packed[1:]]
    assert all(tokens + more > most for tokens, more in zip(real, following, strict=False))


def test_a_class_that_is_called_minus_one_is_a_class(from_files, tmp_path):
    """-1 marks an unlabelled row only where the task's labels do not have it."""
    file = write(tmp_path / "train.csv", [{"text": f"text {i}", "label": i % 3 - 1} for i in range(6)])
    splits, labels, n_unlabelled = from_files("single", train=file, validation=file)
    assert (set(labels), n_unlabelled, len(splits["train"])) == ({"-1", "0", "1"}, 0, 6)
