r"""A user's own prompts: escapes that are typed, label words and fields that do not fit, words that tokenise alike."""

import json

import hydra
import pytest
from omegaconf import OmegaConf

from heads.errors import InputError
from heads.example import Example
from heads.prompts import Template
from trainers.config import FinetuneConfig, PromptConfig
from trainers.data.prompts import Prompter
from trainers.finetune import finetune
from trainers.launch import SHIPPED, register
from trainers.overrides import CONF
from trainers.typed_prompts import decode_typed_prompts
from trainers.zero_shot.run import zero_shot


def composed(*overrides):
    """A command line's config, as a recipe hands it to its function."""
    register("finetune", FinetuneConfig)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("finetune", overrides=list(overrides))
    decode_typed_prompts(config, overrides)
    return OmegaConf.to_object(config)


def test_escapes_in_typed_prompts_are_decoded():
    typed = r"task.prompts.likelihood=[{template: '{text}\nIs it\t\\n? {answer}', words: {a: 'x\ny', b: z}}]"
    (prompt,) = composed("task=single", typed).task.prompts.likelihood
    assert prompt.template == "{text}\nIs it\t\\n? {answer}"
    assert prompt.words == {"a": "x\ny", "b": "z"}


def test_yaml_prompts_and_typed_paths_are_left_as_they_are(tmp_path):
    path = r"C:\new\train.csv"
    config = composed("task=single", f"data.files.train='{path}'", r"task.prompts.chat=[{template: 'a\nb'}]")
    assert config.data.files.train == path
    assert config.task.prompts.chat[0].template == "a\nb"
    assert config.task.prompts.likelihood[0].template == "{0}\nLabel: {answer}"
    kept = OmegaConf.create({"task": {"prompts": {"likelihood": [{"template": r"a\nb {answer}"}]}}})
    decode_typed_prompts(kept, ["task=mine", "seed=3"])
    assert kept.task.prompts.likelihood[0].template == r"a\nb {answer}"


def test_labels_that_are_numbers_or_booleans_to_hydra_have_words():
    typed = "task.prompts.likelihood=[{template: '{text} {answer}', words: {0: bad, 1: good}}]"
    assert composed("task=single", typed).task.prompts.likelihood[0].words == {"0": "bad", "1": "good"}
    prompt = composed("task=single", typed.replace("0:", "true:").replace("1:", "false:")).task.prompts.likelihood[0]
    assert [prompt.word(label) for label in ("true", "True", "FALSE", "other")] == ["bad", "bad", "good", "other"]


def rows(tmp_path, labels):
    file = tmp_path / "rows.jsonl"
    lines = [{"text": f"a good film {n}", "label": labels[n % len(labels)]} for n in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return [f"data.files.{split}={file}" for split in ("train", "validation")]


def test_own_prompts_with_numeric_labels_are_scored(tmp_path):
    typed = r"task.prompts.likelihood=[{template: '{text}\nSo: {answer}', words: {0: bad, 1: good}}]"
    files = rows(tmp_path, ["0", "1"])
    more = ["zero_shot=likelihood", "backbone=tiny", f"run_dir={tmp_path / 'run'}"]
    found = zero_shot(composed("task=single", typed, *files, *more))["zero_shot"]
    assert found["templates"] == ["{text}\nSo: {answer}"]
    (first, *_) = (tmp_path / "run" / "zero_shot_predictions.jsonl").read_text().splitlines()
    assert set(json.loads(first)["scores"]) == {"0", "1"}


WRONG = {
    "an empty word": ("{text} {answer}", "{a: '', b: x}", r"words has nothing for a$"),
    "a word of spaces": ("{text} {answer}", "{a: '  ', b: x}", r"words has nothing for a$"),
    "one word twice but for spaces": ("{text} {answer}", "{a: 'x ', b: x}", r"one word for two labels \(x, x\)$"),
    "a label that there is not": (
        "{text} {answer}",
        "{a: x, c: y}",
        r"words has a, c, and .* labels are a, b$",
    ),
    "a column that there is not": ("{txt} {answer}", "{}", r"names the field 'txt', which does not exist.*'text'"),
    "a format": ("{text:>3} {answer}", "{}", r"a field is a name in braces and nothing else, .* such as \{0\}$"),
    "an index": ("{0[a]} {answer}", "{}", r"names the field '0\[a\]', which does not exist"),
    "an open brace": ("{text {answer}", "{}", "has a brace without its fellow"),
    "nothing": ("  ", "{}", "is empty: write a template$"),
    "words that are unknown": ("{text} {answer}", "{a: '\U0001f600', b: film}", "does not know the label word"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_own_prompts_is_one_line(tmp_path, case):
    template, words, message = WRONG[case]
    typed = f"task.prompts.likelihood=[{{template: '{template}', words: {words}}}]"
    run = ["zero_shot=likelihood", "backbone=tiny", f"run_dir={tmp_path / 'run'}"]
    config = composed("task=single", typed, *rows(tmp_path, ["a", "b"]), *run)
    with pytest.raises(InputError, match=message) as error:
        zero_shot(config)
    assert "\n" not in str(error.value)


def test_a_template_that_cannot_be_used_stops_no_fine_tuning(tmp_path):
    typed = "task.prompts.likelihood=[{template: '{text {answer}'}]"
    run = ["zero_shot=auto", "backbone=tiny", "train.max_steps=1", f"run_dir={tmp_path / 'run'}"]
    found = finetune(composed("task=single", typed, *rows(tmp_path, ["a", "b"]), *run))
    assert found["zero_shot"]["method"] == "none"
    assert "has a brace without its fellow" in found["zero_shot"]["reason"]


def bert(words, pattern="{text} It was {answer}."):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(SHIPPED / "tiny_bert"))
    return Prompter(tokenizer, 60, Template(pattern), ["text"], words)


def test_words_that_tokenise_alike_are_refused():
    """An uncased tokenizer gives both the same ids, and every row would be a tie."""
    with pytest.raises(InputError, match="the label words 'Good' and 'good' are the same tokens for this tokenizer"):
        bert(["Good", "good"]).masked([Example("0", ("a film",))])
    assert len(bert(["good", "bad"]).masked([Example("0", ("a film",))])) == 1


def test_spaces_around_a_label_are_not_part_of_its_word():
    assert PromptConfig("{0} {answer}").word(" good ") == "good"
    assert PromptConfig("{0} {answer}", {"a": " very good"}).word("a") == "very good"


def test_what_is_cut_of_a_long_prompt_is_a_text_and_never_the_answer():
    words = ["not good at all", "good"]
    prompter = bert(words)
    long, short = prompter.masked([Example("0", ("a good film " * 100,)), Example("1", ("a good film",))])
    assert (long.cut, short.cut) == (True, False)
    tokenizer = prompter.tokenizer
    for found in (long, short):
        assert max(map(len, found.candidates.rows)) <= 60
        scored = {c: tokenizer.decode([t for *_, t, k in found.candidates.reads if k == c]) for c in (0, 1)}
        assert scored == dict(enumerate(words))
