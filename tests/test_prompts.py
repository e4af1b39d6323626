"""The prompts of conf/task/*.yaml on the sample data: each template makes clean text, and its words mean its labels."""

import json
from functools import cache

import pytest
import yaml
from omegaconf import OmegaConf

from heads.prompts import ANSWER, OPTIONS, Template, candidates, field_values
from trainers.config import TaskConfig
from trainers.config.zero_shot import METHODS
from trainers.data.labels import discover
from trainers.data.readers import READERS
from trainers.data.records import SAMPLE
from trainers.overrides import CONF

TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
OWN_FILES = {"single", "pair", "similarity", "choice"}
UNPROMPTED = {"regression"}  # a user's scores have levels and a meaning that are not known here
PROMPTED = [name for name in TASKS if name not in UNPROMPTED]

# GPT-1, section 5, zero-shot behaviours; COPA is asked as the paper asks RACE, WSC273 as it asks DPR.
HEURISTICS = {
    "cola": ("{sentence}", {}, "answer"),
    "sst2": ("{sentence} very {answer}", {"negative": "negative", "positive": "positive"}, "answer"),
    **dict.fromkeys(("race", "race_middle", "race_high"), ("{article} {question} {answer}", {}, "answer")),
    "story_cloze": ("{story} {answer}", {}, "answer"),
    "copa": ("{premise} {connective} {answer}", {}, "answer"),
    **dict.fromkeys(("dpr", "wsc273"), ("{before} {answer}{rest}", {}, "rest")),
}

# The label that is affirmed, and the label that is denied, wherever a template's words do either.
MEANING = {
    "sst2": ("positive", "negative"),
    "cola": ("acceptable", "unacceptable"),
    "mrpc": ("equivalent", "not_equivalent"),
    "qqp": ("duplicate", "not_duplicate"),
    "stsb": ("5", "0"),
    **dict.fromkeys(("rte", "wnli", "qnli"), ("entailment", "not_entailment")),
    **dict.fromkeys(("mnli", "ax", "snli", "cb"), ("entailment", "contradiction")),
    "scitail": ("entails", "neutral"),
    **dict.fromkeys(("boolq", "wic"), ("True", "False")),
}
AFFIRMS = {"yes", "true", "positive", "great", "good", "correct", "equivalent", "identical", "5"}
DENIES = {"no", "false", "negative", "terrible", "bad", "incorrect", "different", "0"}
NEITHER = {"neither", "maybe", "1", "2", "3", "4"}


@cache
def task_of(name):
    written = OmegaConf.load(CONF / "task" / f"{name}.yaml")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TaskConfig), written))


@cache
def sample(name):
    """A task's sample train rows as Examples, and the names of its labels."""
    task = task_of(name)
    records = [json.loads(line) for line in (SAMPLE / name / "train.jsonl").read_text().splitlines()]
    read = READERS[task.reader]
    examples = [one for n, record in enumerate(records) for one in read(record, f"train-{n}", task, lambda *_: None)]
    chosen = task.structure == "multiple_choice"
    return examples, [] if chosen else task.labels or discover([record["label"] for record in records], None)


def prompts_of(name):
    """Each of a task's prompts, with its family and its words in the labels' order."""
    for method in METHODS:
        for prompt in task_of(name).prompts.of(method):
            keys = list(prompt.words) if task_of(name).regression else sample(name)[1]
            yield method, prompt, [prompt.words.get(key, key) for key in keys]


def test_files_were_found():
    assert set(TASKS) >= {*HEURISTICS, *MEANING, *OWN_FILES, *UNPROMPTED}


@pytest.mark.parametrize("name", PROMPTED)
def test_a_task_has_prompts_for_every_kind_of_backbone(name):
    prompts = task_of(name).prompts
    assert prompts.version >= 1
    assert prompts.source.strip()
    assert prompts.likelihood
    assert prompts.fill_mask
    assert prompts.chat


@pytest.mark.parametrize("name", sorted(UNPROMPTED))
def test_a_task_without_prompts_has_none_at_all(name):
    assert not list(prompts_of(name))


def test_the_papers_heuristics():
    found = {name: [(p.template, p.words, p.scored) for p in task_of(name).prompts.heuristic] for name in TASKS}
    assert {name: prompts for name, prompts in found.items() if prompts} == {n: [h] for n, h in HEURISTICS.items()}


def filled(method, prompt, example, names, words):
    """A prompt with each candidate: the candidate, the text, and what of it is scored. In a chat, the message."""
    template = Template(prompt.template, prompt.scored)
    values = field_values(example, names)
    if method == "chat":
        message = template.fill(values, None)
        return [(None, message.text, message.text)]
    each = [(answer, template.fill(values, answer)) for answer in candidates(example, template, words)]
    return [(answer, one.text, one.text[one.start : one.end]) for answer, one in each]


@pytest.mark.parametrize("name", PROMPTED)
def test_every_template_makes_clean_text(name):
    examples, _ = sample(name)
    assert examples
    for method, prompt, words in prompts_of(name):
        for example in examples:
            each = filled(method, prompt, example, task_of(name).texts, words)
            assert len({text for _, text, _ in each}) == len(each)
            for answer, text, part in each:
                assert text == text.strip()
                assert "  " not in text
                assert not set("{}") & set(text)
                assert part.strip()
                if answer is not None and prompt.scored == "answer":
                    assert part.strip() == answer
                if method != "fill_mask":
                    assert text.endswith(part)
                if f"{{{OPTIONS}}}" in prompt.template:
                    assert all(choice.strip() in text for choice in example.choices)


@pytest.mark.parametrize("name", PROMPTED)
def test_the_templates_fit_the_task(name):
    for method in METHODS:
        task_of(name).check_prompts(method)


@pytest.mark.parametrize("name", PROMPTED)
def test_no_template_leaves_a_text_out(name):
    texts = task_of(name).texts
    for _, prompt, _ in prompts_of(name):
        fields = Template(prompt.template).fields
        if "texts" in fields:
            continue
        assert {texts[int(field)] if field.isdecimal() else field for field in fields} >= set(texts), prompt.template


@pytest.mark.parametrize("name", PROMPTED)
def test_words_are_told_apart_and_cover_the_labels(name):
    task = task_of(name)
    for method, prompt, _ in prompts_of(name):
        words = list(prompt.words.values())
        assert len({word.lower() for word in words}) == len(words)
        assert all(word and word == word.strip() for word in words)
        whole = method != "chat" and f"{{{ANSWER}}}" not in prompt.template
        if whole or name in OWN_FILES or task.structure == "multiple_choice":
            assert not words
        elif task.regression:
            low, high = task.score_range
            assert {low, high} <= set(map(float, prompt.words))
            assert all(low <= float(level) <= high for level in prompt.words)
        else:
            assert set(prompt.words) == set(task.labels)


@pytest.mark.parametrize("name", PROMPTED)
def test_words_are_text_in_the_yaml(name):
    # an unquoted Yes is a boolean, which becomes "True"
    written = yaml.safe_load((CONF / "task" / f"{name}.yaml").read_text())["prompts"]
    for method in METHODS:
        for prompt in written.get(method, []):
            assert all(isinstance(part, str) for pair in prompt.get("words", {}).items() for part in pair)


@pytest.mark.parametrize("name", MEANING)
def test_words_mean_their_labels(name):
    affirmed, denied = MEANING[name]
    found = [(label, word.lower()) for _, prompt, _ in prompts_of(name) for label, word in prompt.words.items()]
    assert found
    for label, word in found:
        # SciTail's second label is "neutral", which is answered with no or with maybe
        expected = AFFIRMS if label == affirmed else (DENIES | {"maybe"}) if label == denied else NEITHER
        assert word in expected, f"{label}: {word}"


@pytest.mark.parametrize("name", PROMPTED)
def test_a_chat_names_the_answers_that_are_allowed(name):
    task = task_of(name)
    for prompt in task.prompts.chat:
        if task.structure == "multiple_choice":
            assert f"{{{OPTIONS}}}" in prompt.template
            assert prompt.template.endswith("Answer with the letter.")
        else:
            least_and_most = list(prompt.words.values())[:: len(prompt.words) - 1] if task.regression else []
            asked = prompt.template.rpartition("Answer with")[2]
            assert asked
            assert all(word in asked for word in least_and_most or prompt.words.values())
