"""Chat templates of the kinds there are: what they write around a message, and which are no use."""

import json
from dataclasses import replace
from datetime import datetime

import pytest
from transformers import AutoTokenizer

from heads.errors import InputError
from heads.example import Example
from heads.prompts import Template
from trainers.config import PromptConfig, PromptsConfig
from trainers.data import records as records_of_tasks
from trainers.data.chat import DATE_CODES, chat_frame
from trainers.data.prompts import Prompter
from trainers.finetune import finetune
from trainers.launch import SHIPPED
from trainers.zero_shot.run import zero_shot

PROMPT = "{% if add_generation_prompt %}assistant: {% endif %}"
STRING = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" + PROMPT
PARTS = (
    "{% for m in messages %}{{ m.role }}: {% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% endif %}{% endfor %}{{ '\n' }}{% endfor %}" + PROMPT
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + STRING
SYSTEM = "{% if messages[0].role != 'system' %}{{ 'system: Be nice.\n' }}{% endif %}" + STRING
JOINED = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}" + PROMPT
TRIMMED = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}" + PROMPT
MARKERS = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>"
    "{% endif %}{% endfor %}"
)
DATED = "{{ strftime_now('%d %B %Y') }} ({{ strftime_now('%Y-%m-%d') }})\n" + STRING
WORKING = {
    "a string": (STRING, "user: ", "\nassistant: "),
    "parts alone": (PARTS, "user: ", "\nassistant: "),
    "a string joined to another": (JOINED, "user: ", "\nassistant: "),
    "trimmed": (TRIMMED, "<user>", "</s>assistant: "),
    "no system role": (NO_SYSTEM, "user: ", "\nassistant: "),
    "a default system message": (SYSTEM, "system: Be nice.\nuser: ", "\nassistant: "),
    "no generation prompt": (STRING.removesuffix(PROMPT), "user: ", "\nassistant: "),
    "an instruction in markers": (MARKERS, "[INST] ", " [/INST]"),
    "a date": (DATED, "26 July 2024 (2024-07-26)\nuser: ", "\nassistant: "),
}
USELESS = {
    "no template": (None, "the tokenizer has no chat template"),
    "the message is left out": ("user: \nassistant: ", "does not write the user's message exactly once and unchanged"),
    "the message is written twice": (
        "{{ messages[0].content }} {{ messages[0].content }}",
        "does not write the user's message exactly once and unchanged",
    ),
    "the message is changed": ("{{ messages[0].content | upper }}", "exactly once and unchanged"),
    "the message is quoted": ("{{ messages[0].content | tojson }}", "exactly once and unchanged"),
    "it raises": ("{{ raise_exception('tools only') }}", r"raises an error \(TemplateError: tools only\)"),
    "a syntax error": ("{% for m in messages %}", r"raises an error \(TemplateSyntaxError: "),
    "something unknown": ("{{ messages[0].user.name }}", r"raises an error \(UndefinedError: "),
}


def tokenizer(template):
    found = AutoTokenizer.from_pretrained(str(SHIPPED / "tiny_gpt"))
    found.chat_template = template
    return found


@pytest.mark.parametrize("name", WORKING)
def test_the_text_around_a_message(name):
    template, before, after = WORKING[name]
    assert chat_frame(tokenizer(template)) == (before, after)


@pytest.mark.parametrize("name", USELESS)
def test_a_template_that_is_no_use_has_a_reason(name):
    template, reason = USELESS[name]
    with pytest.raises(InputError, match=reason):
        chat_frame(tokenizer(template))


def test_a_date_in_a_prompt_is_the_same_every_day():
    for code in DATE_CODES:
        day = datetime(2024, 7, 26).strftime(f"%{code}")
        assert chat_frame(tokenizer(f"{{{{ strftime_now('%{code}') }}}} {STRING}")).before == f"{day} user: "


@pytest.mark.parametrize("template", [STRING, PARTS], ids=["string", "parts"])
def test_each_row_has_a_prompt_of_its_own(template):
    ask = Prompter(tokenizer(template), 200, Template("{text}"), ["text"], ["good", "bad"], chat=True)
    found = ask.causal([Example("0", ("a fine film",)), Example("1", ("a dull film",))])
    assert found[0].candidates.prefix != found[1].candidates.prefix
    assert found == Prompter(
        tokenizer(STRING), 200, Template("{text}"), ["text"], ["good", "bad"], chat=True
    ).causal([Example("0", ("a fine film",)), Example("1", ("a dull film",))])  # fmt: skip


def test_a_template_writes_the_start_token_once():
    """No start token is added to one that the template writes."""
    made = tokenizer("[MASK]" + STRING)
    made.add_special_tokens({"bos_token": "[MASK]"})
    ask = Prompter(made, 200, Template("{text}"), ["text"], ["good", "bad"], chat=True)
    (found,) = ask.causal([Example("0", ("a fine film",))])
    assert found.candidates.prefix.count(made.bos_token_id) == 1


def test_a_message_that_spells_a_special_token_is_plain_text():
    made = tokenizer(STRING.replace("\n", "<END>"))
    made.add_special_tokens({"eos_token": "<END>"})
    ask = Prompter(made, 200, Template("{text}"), ["text"], ["good", "bad"], chat=True)
    spelled, usual = ask.causal([Example("0", ("a <END> film",)), Example("1", ("a film",))])
    for found in (spelled, usual):
        assert found.candidates.prefix.count(made.eos_token_id) == 1
    assert len(spelled.candidates.prefix) > len(usual.candidates.prefix)


@pytest.fixture
def chat_model(tmp_path):
    """A folder with a tiny GPT whose tokenizer has a chat template."""
    from accelerate.utils import set_seed
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(template):
        set_seed(1)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(SHIPPED / "tiny_gpt")))
        model.save_pretrained(tmp_path / "model")
        tokenizer(template).save_pretrained(tmp_path / "model")
        return [f"backbone.path={tmp_path / 'model'}", "backbone.weights=pretrained", "backbone=tiny", "data=sample"]

    return make


def test_a_template_that_raises_stops_no_fine_tuning(compose, chat_model, tmp_path):
    typed = ["task=rte", "train.max_steps=1", "zero_shot.limit=4", f"run_dir={tmp_path / 'run'}", "zero_shot=auto"]
    found = finetune(compose(*typed, *chat_model("{{ raise_exception('tools only') }}")))["zero_shot"]
    assert found["method"] == "likelihood"  # the next that is possible


def test_a_named_method_is_refused_before_the_data_are_read(compose, chat_model, tmp_path, monkeypatch):
    def read(*args):
        raise AssertionError("data were read")

    monkeypatch.setattr(records_of_tasks, "load_records", read)
    monkeypatch.setattr("trainers.finetune.load_records", read)
    monkeypatch.setattr("trainers.zero_shot.run.load_scored", read)
    typed = ["task=rte", f"run_dir={tmp_path / 'run'}", "zero_shot=chat", *chat_model("user: ")]
    for recipe in (finetune, zero_shot):
        with pytest.raises(InputError, match="zero_shot=chat: tiny is not a chat model: the chat template does not"):
            recipe(compose(*typed))
    fields = ["task=rte", "task.prompts.likelihood=[{template: '{prmise} {answer}'}]", "zero_shot=likelihood"]
    with pytest.raises(InputError, match=r"prompts.likelihood\[0\] names the field 'prmise', which does not exist"):
        finetune(compose(*fields, "backbone=tiny", "data=sample", f"run_dir={tmp_path / 'other'}"))


def test_parts_and_strings_have_the_same_scores(compose, chat_model, tmp_path):
    scores = []
    for name, template in (("string", STRING), ("parts", PARTS)):
        typed = ["task=sst2", f"run_dir={tmp_path / name}", "zero_shot=chat", "zero_shot.limit=6"]
        config = compose(*typed, *chat_model(template))
        words = {"negative": "bad", "positive": "good"}
        prompts = PromptsConfig(version=1, source="a test", chat=[PromptConfig("Is it good? {sentence}", words)])
        zero_shot(replace(config, task=replace(config.task, prompts=prompts)))
        lines = (tmp_path / name / "zero_shot_predictions.jsonl").read_text().splitlines()
        scores.append([json.loads(line)["scores"]["positive"] for line in lines])
    assert scores[0] == scores[1]
    assert len(set(scores[0])) == 6
