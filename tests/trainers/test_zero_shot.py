"""Stage 0 end to end on tiny models: each family's numbers by hand, its folds, its place in a fine-tuning run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from heads.errors import InputError
from trainers.config import PromptConfig, PromptsConfig, ZeroShotConfig
from trainers.data import records as records_of_tasks
from trainers.finetune import finetune
from trainers.launch import SHIPPED
from trainers.zero_shot.run import zero_shot

CHAT = (
    "{% for m in messages %}user: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Intervals are not what these tests are about."""
    monkeypatch.setattr("trainers.statistics.intervals.N_RESAMPLES", 30)


def settings(compose, folder, *overrides, backbone="tiny", **zero):
    config = compose(*overrides, "data=sample", f"backbone={backbone}", f"run_dir={folder}", "seed=1")
    return replace(config, zero_shot=replace(config.zero_shot, **zero))


def with_prompts(config, **prompts):
    return replace(config, task=replace(config.task, prompts=PromptsConfig(version=7, source="a test", **prompts)))


def records(folder):
    return [json.loads(line) for line in (folder / "zero_shot_predictions.jsonl").read_text().splitlines()]


@pytest.fixture
def causal():
    """The tiny GPT as the run draws it, and its tokenizer."""
    from accelerate.utils import set_seed
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    set_seed(1)
    folder = str(SHIPPED / "tiny_gpt")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def log_probs(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)


def continuation(model, tokenizer, context, answer):
    """Sum and number of the answer's token log-probabilities after a context, in a vocabulary of whole words."""
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (context, answer))
    table = log_probs(model, [*before, *after])
    return sum(table[len(before) + t - 1, token].item() for t, token in enumerate(after)), len(after)


def sample(task, split="validation"):
    lines = (SHIPPED.parents[1] / "data" / "sample" / task / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_likelihood_by_hand(compose, causal, tmp_path):
    words = {"negative": "dull and bad", "positive": "good"}
    config = settings(compose, tmp_path, "task=sst2", method="likelihood", normalization="sum")
    prompt = PromptConfig("Review: {sentence} Sentiment: {answer}", words)
    found = zero_shot(with_prompts(config, likelihood=[prompt]))["zero_shot"]
    hits = {name: [] for name in ("sum", "token_mean", "char_mean", "pmi")}
    for row, record in zip(sample("sst2"), records(tmp_path), strict=True):
        each = [continuation(*causal, f"Review: {row['sentence']} Sentiment:", word) for word in words.values()]
        sums, counts = np.array(each).T
        np.testing.assert_allclose(list(record["scores"].values()), sums, atol=1e-4)
        alone = np.array([continuation(*causal, "Sentiment:", word)[0] for word in words.values()])
        chars = np.array([len(word) for word in words.values()])
        scores = {"sum": sums, "token_mean": sums / counts, "char_mean": sums / chars, "pmi": sums - alone}
        for name, score in scores.items():
            hits[name].append(list(words)[int(score.argmax())] == record["label"])
    for name, right in hits.items():
        assert found["normalizations"]["validation"][name]["accuracy"] == pytest.approx(np.mean(right))
    assert found["validation"] == found["normalizations"]["validation"]["sum"]
    assert (found["method"], found["template_version"], found["candidates"]) == ("likelihood", 7, "tree")


def test_the_pronoun_heuristic_by_hand(compose, causal, tmp_path):
    """GPT-1: each referent in the pronoun's place, the mean log-probability of the rest after it."""
    found = zero_shot(settings(compose, tmp_path, "task=dpr", method="heuristic"))["zero_shot"]
    assert (found["method"], found["normalization"]) == ("heuristic", "token_mean")
    from trainers.data.readers import pronoun

    config = settings(compose, tmp_path, "task=dpr")
    rows = [pronoun(row, "x", config.task, lambda value, guid: 0)[0] for row in sample("dpr")]
    for example, record in zip(rows, records(tmp_path), strict=True):
        each = [continuation(*causal, f"{example.texts[0]} {choice}", example.rest) for choice in example.choices]
        np.testing.assert_allclose(list(record["scores"].values()), [total / n for total, n in each], atol=1e-4)


def test_the_answer_heuristic_by_hand(compose, causal, tmp_path):
    zero_shot(settings(compose, tmp_path, "task=story_cloze", method="heuristic"))
    for row, record in zip(sample("story_cloze"), records(tmp_path), strict=True):
        story = " ".join(row[f"input_sentence_{n}"] for n in (1, 2, 3, 4))
        each = [continuation(*causal, story, row[f"sentence_quiz{n}"]) for n in (1, 2)]
        np.testing.assert_allclose(list(record["scores"].values()), [total / n for total, n in each], atol=1e-4)


def test_the_acceptability_heuristic_by_hand_and_its_fold(compose, causal, tmp_path):
    """The threshold is the best one of train rows, whatever the scored rows are."""
    found = zero_shot(settings(compose, tmp_path / "a", "task=cola", method="heuristic"))["zero_shot"]
    model, tokenizer = causal

    def mean(sentence):
        ids = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        table = log_probs(model, ids)
        return np.mean([table[t - 1, ids[t]].item() for t in range(1, len(ids))])

    for row, record in zip(sample("cola"), records(tmp_path / "a"), strict=True):
        assert record["scores"]["text"] == pytest.approx(mean(row["sentence"]), abs=1e-4)
        assert record["prediction"] == ("acceptable" if mean(row["sentence"]) >= threshold(found) else "unacceptable")
    train = sorted(mean(row["sentence"]) for row in sample("cola", "train"))
    below = sum(score < threshold(found) for score in train)
    assert threshold(found) == pytest.approx((train[below - 1] + train[below]) / 2, abs=1e-4)
    assert found["threshold"]["fitted_on"] == "train"


def threshold(found):
    return found["threshold"]["values"][0]["token_mean"]


def test_a_threshold_never_sees_the_scored_rows(compose, tmp_path):
    file = tmp_path / "flipped.jsonl"
    other = {"acceptable": "unacceptable", "unacceptable": "acceptable"}
    flipped = [row | {"label": other[row["label"]]} for row in sample("cola")]
    file.write_text("".join(json.dumps(row) + "\n" for row in flipped))
    train = SHIPPED.parents[1] / "data" / "sample" / "cola" / "train.jsonl"
    plain = zero_shot(settings(compose, tmp_path / "a", "task=cola", method="heuristic"))["zero_shot"]
    files = [f"data.files.train={train}", f"data.files.validation={file}", "data.sample=false"]
    config = compose("task=cola", *files, "backbone=tiny", f"run_dir={tmp_path / 'b'}", "seed=1", "zero_shot=heuristic")
    other = zero_shot(config)["zero_shot"]
    assert threshold(other) == threshold(plain)
    assert other["validation"]["accuracy"] == pytest.approx(1 - plain["validation"]["accuracy"])
    with pytest.raises(
        InputError, match="needs a threshold, which is fitted on labelled train rows and never on those"
    ):
        zero_shot(settings(compose, tmp_path / "c", "task=cola", method="heuristic", splits=["train"]))


def test_the_very_heuristic_by_hand(compose, causal, tmp_path):
    """GPT-1: "very" is appended, and " positive" held against " negative"."""
    found = zero_shot(settings(compose, tmp_path, "task=sst2", method="heuristic"))["zero_shot"]
    assert found["templates"] == ["{sentence} very {answer}"]
    for row, record in zip(sample("sst2"), records(tmp_path), strict=True):
        each = [continuation(*causal, f"{row['sentence']} very", word) for word in ("negative", "positive")]
        np.testing.assert_allclose(list(record["scores"].values()), [total / n for total, n in each], atol=1e-4)
        assert record["prediction"] == ["negative", "positive"][int(np.argmax(list(record["scores"].values())))]


@pytest.mark.parametrize(
    ("words", "whole"),
    [({"negative": "bad", "positive": "good"}, False), ({"negative": "not good", "positive": "not bad"}, True)],
    ids=["first token", "whole label"],
)
def test_chat_by_hand(compose, causal, tmp_path, words, whole):
    model, tokenizer = causal
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    changed = ["task=sst2", f"backbone.path={tmp_path / 'model'}", "backbone.weights=pretrained"]
    config = settings(compose, tmp_path / "run", *changed, method="auto", normalization="sum")
    found = zero_shot(with_prompts(config, chat=[PromptConfig("Is it good? {sentence}", words)]))["zero_shot"]
    assert found["method"] == "chat"
    assert set(found["normalizations"]["validation"]) == {"sum", "token_mean"}
    for row, record in zip(sample("sst2"), records(tmp_path / "run"), strict=True):
        asked = f"user: Is it good? {row['sentence'].strip()}\nassistant: "
        before = tokenizer(asked, add_special_tokens=False)["input_ids"]
        each = []
        for word in words.values():
            ids = tokenizer(f"{asked}{word}", add_special_tokens=False)["input_ids"]
            table = log_probs(model, ids)
            last = len(ids) if whole else len(before) + 1
            each.append(sum(table[t - 1, ids[t]].item() for t in range(len(before), last)))
        np.testing.assert_allclose(list(record["scores"].values()), each, atol=1e-4)


def test_fill_mask_by_hand(compose, tmp_path):
    from accelerate.utils import set_seed
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    set_seed(1)
    folder = str(SHIPPED / "tiny_bert")
    model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = {"negative": "bad", "positive": "good"}
    config = settings(compose, tmp_path, "task=sst2", backbone="tiny_bert", method="auto", normalization="sum")
    found = zero_shot(with_prompts(config, fill_mask=[PromptConfig("{sentence} It was {answer}.", words)]))["zero_shot"]
    assert (found["method"], found["candidates"]) == ("fill_mask", "masked")
    for row, record in list(zip(sample("sst2"), records(tmp_path), strict=True))[:20]:
        each = []
        for word in words.values():
            pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
            ids = tokenizer(f"{row['sentence']} It was {word}.")["input_ids"]
            first = len(ids) - 2 - len(pieces)  # the stop and [SEP] follow
            total = 0.0
            for t, piece in enumerate(pieces):
                masked = [*ids]
                masked[first + t] = tokenizer.mask_token_id
                total += log_probs(model, masked)[first + t, piece].item()
            each.append(total)
        np.testing.assert_allclose(list(record["scores"].values()), each, atol=1e-4)


def test_scores_are_answered_by_the_expected_level(compose, tmp_path):
    """Weighed by the whole probability, though levels have several tokens."""
    config = settings(compose, tmp_path, "task=stsb", method="likelihood", normalization="token_mean")
    levels = {"0": "different", "5": "same"}
    prompt = PromptConfig("{sentence1} {sentence2} {answer}", levels)
    found = zero_shot(with_prompts(config, likelihood=[prompt]))["zero_shot"]
    for record in records(tmp_path):
        shares = np.exp(list(record["scores"].values()))
        assert record["prediction"] == pytest.approx(5 * shares[1] / shares.sum(), abs=1e-4)
    assert (found["primary"], found["normalization"]) == ("spearman", "sum")
    assert set(found["validation"]) == {"pearson", "spearman"}


def test_several_templates_give_a_mean_and_a_spread(compose, tmp_path):
    config = settings(compose, tmp_path, "task=sst2", method="likelihood")
    prompts = [PromptConfig("{sentence} {answer}"), PromptConfig("It is {answer}: {sentence}", scored="from_answer")]
    found = zero_shot(with_prompts(config, likelihood=prompts))["zero_shot"]
    each = []
    for n in (0, 1):
        rows = [row for row in records(tmp_path) if row["template"] == n]
        assert [row["index"] for row in rows] == list(range(200))  # each example once
        each.append(np.mean([row["prediction"] == row["label"] for row in rows]))
    assert found["validation"]["accuracy"] == pytest.approx(np.mean(each))
    assert found["spread"]["validation"]["accuracy"] == {"least": min(each), "greatest": max(each)}
    low, high = found["intervals"]["validation"]["accuracy"]
    assert low <= found["validation"]["accuracy"] <= high


def test_a_sample_is_seeded_and_says_so(compose, tmp_path):
    runs = {name: settings(compose, tmp_path / name, "task=sst2", method="likelihood", limit=20) for name in "ab"}
    found = [zero_shot(config)["zero_shot"] for config in runs.values()]
    assert found[0]["rows"] == {"validation": {"scored": 20, "of": 200}}
    first, second = (records(tmp_path / name) for name in "ab")
    assert first == second
    assert all(row["guid"] == f"validation-{row['index']}" for row in first)  # its place in the split
    whole = settings(compose, tmp_path / "c", "task=sst2", method="likelihood")
    zero_shot(whole)
    by_guid = {(row["guid"], row["template"]): row["scores"] for row in records(tmp_path / "c")}
    for row in first:
        for label, value in row["scores"].items():
            assert by_guid[row["guid"], row["template"]][label] == pytest.approx(value, abs=1e-4)


def test_the_layout_and_the_batches_change_no_number(compose, tmp_path):
    changes = {"tree": {}, "separate": {"candidates": "separate"}, "small": {"tokens": 64}}
    for name, change in changes.items():
        zero_shot(settings(compose, tmp_path / name, "task=race_middle", method="likelihood", **change))
    tree, separate, small = (records(tmp_path / name) for name in changes)
    for others in (separate, small):
        for one, other in zip(tree, others, strict=True):
            assert one["guid"] == other["guid"]
            np.testing.assert_allclose(list(one["scores"].values()), list(other["scores"].values()), atol=1e-4)


def test_fine_tuning_is_the_same_with_and_without_stage_zero(compose, tmp_path):
    results = {}
    for method in ("auto", "none"):
        config = settings(compose, tmp_path / method, "task=rte", "train.max_steps=4", method=method, limit=5)
        results[method] = finetune(config)
    logs = [(tmp_path / method / "log.jsonl").read_text() for method in results]
    assert logs[0] == logs[1]
    assert results["auto"]["finetune"] == results["none"]["finetune"]
    assert results["auto"]["zero_shot"]["method"] == "likelihood"
    assert results["none"]["zero_shot"] == {"method": "none", "reason": "zero_shot=none"}
    assert not (tmp_path / "auto" / "zero_shot.json").exists()
    stored = json.loads((tmp_path / "auto" / "result.json").read_text())["zero_shot"]
    assert stored["rows"] == {"validation": {"scored": 5, "of": len(sample("rte"))}}


def test_rows_that_can_no_longer_be_read_are_no_reason_to_leave_stage_zero_out(compose, tmp_path, monkeypatch):
    def settings_of(name):
        return settings(compose, tmp_path / name, "task=rte", "train.max_steps=1", method="auto", limit=4)

    def gone(*args):
        raise InputError("it cannot be read")

    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    assert finetune(settings_of("first"))["zero_shot"]["method"] == "likelihood"
    monkeypatch.setattr(records_of_tasks, "read_files", gone)
    with pytest.raises(InputError, match="it cannot be read"):
        finetune(settings_of("second"))


def test_what_an_unfinished_run_found_is_used_again_under_the_same_settings_alone(compose, tmp_path):
    first = settings(compose, tmp_path, "task=rte", "train.max_steps=1", method="likelihood", limit=4)
    from trainers.runs import open_folder

    with open_folder(tmp_path, first):
        pass
    (tmp_path / "zero_shot.json").write_text(json.dumps({"method": "none", "reason": "left by a run"}))
    assert finetune(first)["zero_shot"] == {"method": "none", "reason": "left by a run"}
    again = settings(compose, tmp_path, "task=rte", "train.max_steps=1", "overwrite=true", method="likelihood", limit=5)
    (tmp_path / "result.json").unlink()
    (tmp_path / "zero_shot.json").write_text(json.dumps({"method": "none", "reason": "left by a run"}))
    assert finetune(again)["zero_shot"]["rows"] == {"validation": {"scored": 5, "of": len(sample("rte"))}}


def test_weights_that_are_drawn_anew_have_no_stage_zero(compose, tmp_path):
    config = settings(compose, tmp_path, "task=rte", "train.max_steps=1", "ablation=no_pretraining", method="auto")
    assert finetune(config)["zero_shot"] == {
        "method": "none",
        "reason": "n_transfer=-1: what is trained is not the pretrained backbone",
    }


def test_a_row_that_cannot_be_asked_stops_no_fine_tuning(compose, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"sentence": text, "label": label}) + "\n" for text, label in [("x", 0), ("a b", 1)])
    )
    files = [f"data.files.{split}={file}" for split in ("train", "validation")]
    asked = ["task=cola", *files, "backbone=tiny", "train.max_steps=1"]
    found = finetune(compose(*asked, "zero_shot=auto", f"run_dir={tmp_path / 'auto'}"))["zero_shot"]
    assert found["method"] == "none"
    assert found["reason"].startswith(f"line 1 of {file}: a text that is to be scored has no token that another")
    with pytest.raises(InputError, match=r"line 1 of .*rows\.jsonl"):
        finetune(compose(*asked, "zero_shot=heuristic", f"run_dir={tmp_path / 'named'}"))


def test_majority_and_chance_stand_beside(compose, tmp_path):
    found = zero_shot(settings(compose, tmp_path, "task=cola", method="likelihood"))["zero_shot"]
    labels = [row["label"] for row in sample("cola")]
    most = max(set(labels), key=[row["label"] for row in sample("cola", "train")].count)
    assert found["majority"]["validation"]["accuracy"] == pytest.approx(labels.count(most) / len(labels))
    assert found["chance"]["validation"] == {"matthews": 0.0, "accuracy": 0.5}


IMPOSSIBLE = {
    "a masked LM for likelihood": (
        ["task=sst2", "backbone=tiny_bert", "zero_shot=likelihood"],
        r"^zero_shot=likelihood: likelihood needs a language model that predicts the next token, and tiny_bert is "
        r"bidirectional: use zero_shot=fill_mask$",
    ),
    "a causal model for fill-mask": (
        ["task=sst2", "zero_shot=fill_mask"],
        r"^zero_shot=fill_mask: fill_mask needs a masked LM, and tiny is causal: use zero_shot=heuristic or "
        r"zero_shot=likelihood$",
    ),
    "no chat template": (
        ["task=rte", "zero_shot=chat"],
        r"^zero_shot=chat: tiny is not a chat model: the tokenizer has no chat template: use zero_shot=likelihood$",
    ),
    "no such heuristic": (
        ["task=mrpc", "zero_shot=heuristic"],
        r"^zero_shot=heuristic: mrpc has no prompts.heuristic in its YAML: use zero_shot=likelihood$",
    ),
    "pmi where it has no meaning": (
        ["task=sst2", "backbone=tiny_bert", "zero_shot=fill_mask", "zero_shot.normalization=pmi"],
        r"^zero_shot.normalization=pmi has no meaning for fill_mask on sst2: use token_mean or sum$",
    ),
    "pmi where a text is scored as a whole": (
        ["task=cola", "zero_shot=heuristic", "zero_shot.normalization=pmi"],
        r"^zero_shot.normalization=pmi has no meaning for heuristic on cola: use token_mean or sum$",
    ),
    "no such split": (
        ["task=sst2", "zero_shot=likelihood", "zero_shot.splits=[dev]"],
        r"^zero_shot.splits: sst2 has no split 'dev', but train, validation$",
    ),
    "nothing is possible": (
        ["task=regression", "zero_shot=likelihood"],
        r"^zero_shot=likelihood: regression has no prompts.likelihood in its YAML: no family can; name another task or "
        r"backbone, or fine-tune with zero_shot=none$",
    ),
    "candidates that the template leaves out": (
        ["task=race_middle", "zero_shot=likelihood", "task.prompts.likelihood=[{template: '{article} {question}'}]"],
        r"prompts.likelihood\[0\] has no \{answer\}, and a multiple-choice task's candidates are what is told apart$",
    ),
    "no prompts at all": (
        ["task=regression", "zero_shot=auto"],
        r"^there is no zero-shot evaluation of tiny: regression has no prompts.heuristic in its YAML; ",
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_done_names_what_can(compose, tmp_path, case):
    overrides, message = IMPOSSIBLE[case]
    backbone = [] if any(one.startswith("backbone=") for one in overrides) else ["backbone=tiny"]
    with pytest.raises(InputError, match=message):
        zero_shot(compose(*overrides, *backbone, "data=sample", f"run_dir={tmp_path}"))


def test_a_users_own_columns_under_another_tasks_prompts(compose, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": f"text {n}", "label": n % 2}) + "\n" for n in range(4)))
    files = [f"data.files.{split}={file}" for split in ("train", "validation")]
    asked = ["task=sst2", "task.texts=[text]", *files, "backbone=tiny", "train.max_steps=1"]
    found = finetune(compose(*asked, "zero_shot=auto", f"run_dir={tmp_path / 'auto'}"))["zero_shot"]
    message = "conf/task/sst2.yaml: prompts.heuristic[0] names the field 'sentence', which does not exist"
    assert found["reason"].startswith(message)
    with pytest.raises(InputError, match=r"prompts.likelihood\[0\] names the field 'sentence'"):
        zero_shot(compose(*asked, "zero_shot=likelihood", f"run_dir={tmp_path / 'named'}"))


def test_no_mask_token(compose, tmp_path):
    from transformers import AutoTokenizer

    folder = SHIPPED / "tiny_bert"
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text((folder / "config.json").read_text())
    config = settings(compose, tmp_path, "task=sst2", f"backbone.path={tmp_path / 'model'}", backbone="tiny_bert")
    with pytest.raises(InputError, match=r"tiny_bert's tokenizer has no \[MASK\] token"):
        zero_shot(replace(config, zero_shot=ZeroShotConfig(method="fill_mask")))


def test_without_a_lm_head_fine_tuning_goes_on_and_says_why(compose, tmp_path):
    from transformers import AutoModel, AutoTokenizer
    from transformers.models.bert import BertConfig

    folder = SHIPPED / "tiny_bert"
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(tmp_path / "model")
    AutoModel.from_config(BertConfig.from_pretrained(str(folder))).save_pretrained(tmp_path / "model")
    changed = ["task=rte", "train.max_steps=1", f"backbone.path={tmp_path / 'model'}", "backbone.weights=pretrained"]
    config = settings(compose, tmp_path / "run", *changed, backbone="tiny_bert", method="auto")
    assert finetune(config)["zero_shot"] == {
        "method": "none",
        "reason": "tiny_bert's weights have no masked-LM head",
    }
