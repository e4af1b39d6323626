"""Encoder-decoders: what they read and write, the loss of a label's words, whole runs, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Tokenizer

from heads.collate import Row, collate
from heads.errors import InputError
from heads.example import Example
from heads.layouts import Encoded
from heads.text_to_text import TextToText, level_words
from trainers import checkpoints
from trainers.build import assemble, lay_foundation
from trainers.config import PredictConfig
from trainers.data.encode import encode_records
from trainers.data.records import load_records
from trainers.data.tokenizers import encode_texts, text_layout
from trainers.finetune import finetune
from trainers.launch import SHIPPED
from trainers.objectives import TargetWords
from trainers.predict import Predictor, predict_new
from trainers.results import read_logits
from trainers.runs import read_config
from trainers.text_to_text import TextToTextModel

PAD, END = 0, 3
QUICK = ("data=sample", "train.max_steps=3", "train.batch_size=8", "optim.lr=1e-3")


@pytest.fixture
def typed(compose, t5):
    """A function from what is typed to the config of a run with this T5."""

    def one(*overrides):
        return compose("backbone=t5_small", f"backbone.path={t5}", *overrides)

    return one


READ = {
    "sst2": "sst2 sentence: {}",
    "cola": "cola sentence: {}",
    "mrpc": "mrpc sentence1: {} sentence2: {}",
    "stsb": "stsb sentence1: {} sentence2: {}",
    "qqp": "qqp question1: {} question2: {}",
    "rte": "rte sentence1: {} sentence2: {}",
    "qnli": "qnli question: {} sentence: {}",
    "boolq": "boolq passage: {} question: {}",
    "wic": "wic sentence1: {} sentence2: {} word: {}",
    "cb": "cb hypothesis: {1} premise: {0}",
    "mnli": "mnli hypothesis: {1} premise: {0}",
}


@pytest.mark.parametrize("task", READ)
def test_an_example_is_read_in_the_format_of_t5s_own_code(typed, task):
    config = typed(f"task={task}", "data=sample")
    foundation, records = lay_foundation(config), load_records(config.task, config.data)
    data = encode_records(records, config.task, foundation.encoder(config))
    splits, labels = data.splits, data.labels
    row, ids = records.splits["train"][0], splits["train"].table.rows([0])["branches"][0][0]
    expected = READ[task].format(*(row[column] for column in config.task.texts))
    assert ids == foundation.tokenizer(expected)["input_ids"]
    assert ids[-1] == END
    assert (labels == []) == (task == "stsb")


def test_t5s_own_tokenizer_reads_the_segments_as_the_text_that_they_make():
    pieces = ["▁", "▁mnli", "▁premise", ":", "▁it", "▁rains", ".", "▁hypothesis", "▁is", "▁wet"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -2.0) for piece in pieces)]
    tokenizer = T5Tokenizer(vocab=vocabulary)
    segments = TextToText("mnli", ("premise", "hypothesis"))(Example("mnli-0", ("it rains.", "it is wet."))).branches[0]
    apart = [i for ids in encode_texts(tokenizer, [segment.text for segment in segments]) for i in ids]
    layout = text_layout(tokenizer, 512)
    assert (layout.opening, layout.closing) == ((), (1,))
    assert [*apart, 1] == tokenizer("mnli hypothesis: it is wet. premise: it rains.")["input_ids"]


def test_the_candidates_of_multiple_choice_are_read_and_their_names_are_written(typed):
    config = typed("task=race_high", "data=sample")
    foundation, records = lay_foundation(config), load_records(config.task, config.data)
    data = encode_records(records, config.task, foundation.encoder(config))
    splits, labels = data.splits, data.labels
    said = foundation.tokenizer.decode(splits["train"].table.rows([0])["branches"][0][0])
    names = ["race _ high a :", " b :", " c :", " d :", " article :", " question :"]
    assert [said.find(name) for name in names] == sorted(said.find(name) for name in names)
    assert said.startswith(names[0])
    model = assemble(config, foundation, labels)
    words = foundation.tokenizer.convert_ids_to_tokens(model.targets[:, 0].tolist())
    assert words == [name.lower() for name in labels] == ["a", "b", "c", "d"]


def batch_of(rows, labels):
    encoded = [Encoded([], [ids], [len(ids) - 1], [len(ids)]) for ids in rows]
    return collate([Row(one, label) for one, label in zip(encoded, labels, strict=True)], pad_id=PAD)


@pytest.mark.parametrize("labels", [[2, 0, 1], [0.29, 0.0, 0.11]])  # levels 0.2, 0.0 and 0.2 of a score
def test_losses_and_scores_are_transformers_own(t5, labels):
    full = AutoModelForSeq2SeqLM.from_pretrained(t5).eval()
    targets = [[7, 8, END], [9, END], [10, 11, 12, END]]
    rows = [[20, 21, END], [30, 31, 32, 33, 34, END], [40, END]]
    model = TextToTextModel(full, targets, low=0.0 if isinstance(labels[0], float) else None).eval()
    batch = batch_of(rows, labels)
    with torch.no_grad():
        own, every = model(batch), model(batch, lm=False).logits
    losses = TargetWords()(own, batch)
    assert losses.lm.tolist() == [0, 0, 0]
    true = [1, 0, 1] if isinstance(labels[0], float) else labels
    for b, ids in enumerate(rows):
        for k, target in enumerate(targets):
            with torch.no_grad():
                loss = full(input_ids=torch.tensor([ids]), labels=torch.tensor([target])).loss
            assert every[b, k].item() == pytest.approx(-loss.item() * len(target), abs=1e-4)
            if k == true[b]:
                assert losses.task[b].item() == pytest.approx(loss.item(), abs=1e-5)
    assert own.logits.shape == (3, 1)
    assert every.shape == (3, 3)


def test_the_encoder_reads_an_example_once(t5):
    full = AutoModelForSeq2SeqLM.from_pretrained(t5).eval()
    calls = []
    full.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    model = TextToTextModel(full, [[7, END], [8, END], [9, END]], None)
    model(batch_of([[20, END], [21, 22, END]], [0, 1]), lm=False)
    assert len(calls) == 1


def test_a_score_is_said_to_the_nearest_fifth_and_read_as_the_mean_of_the_levels(typed):
    words = level_words([0, 5])
    assert words == [f"{n / 5:.1f}" for n in range(26)]
    model = TextToTextModel(torch.nn.Identity(), [[0]] * 26, low=0.0)
    scores = torch.tensor([0.0, 3.25, 3.8, 5.0, 2.49])
    assert [words[i] for i in model._index(scores)] == ["0.0", "3.2", "3.8", "5.0", "2.4"]
    config = typed("task=stsb", "data=sample")
    logits = np.full((2, 26), -1e9, np.float32)
    logits[0, 19] = 0.0
    logits[1, [0, 25]] = np.log([0.25, 0.75])
    np.testing.assert_allclose(read_logits(config, None, logits).values, [3.8, 3.75], rtol=1e-6)


@pytest.fixture
def run(typed, tmp_path):
    """A function that fine-tunes in this process and returns the result, the log's lines and the predictions' lines."""

    def one(name, *overrides):
        result = finetune(typed(*overrides, f"run_dir={tmp_path / name}"))
        files = (tmp_path / name / file for file in ("log.jsonl", "predictions.jsonl"))
        return result, *([json.loads(line) for line in file.read_text().splitlines()] for file in files)

    return one


@pytest.mark.parametrize("task", ["mnli", "stsb", "story_cloze", "copa", "choice", "dpr"])
def test_a_task_of_any_structure_runs(run, task):
    result, _, predictions = run("run", f"task={task}", *QUICK)
    assert result["train"]["steps"] == 3
    assert result["primary"]["value"] is None or -1 <= result["primary"]["value"] <= 1
    values = [line["prediction"] for line in predictions]
    if task == "stsb":
        assert all(0 <= value <= 5 for value in values)
    else:
        assert set(values) <= set(result["data"]["labels"])
        assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4) for line in predictions)


STILL = ("task=rte", *QUICK, "backbone.dropout=0")


@pytest.mark.parametrize("change", ["train.micro_batch_size=3", "train.eval_tokens=100"])
def test_speed_settings_leave_the_numbers_alone(run, change):
    plain, changed = run("plain", *STILL), run("changed", *STILL, change)
    found = [[line["train/loss"] for line in one[1] if "train/loss" in line] for one in (plain, changed)]
    np.testing.assert_allclose(found[1], found[0], rtol=2e-5)
    each = [[list(line["probabilities"].values()) for line in one[2]] for one in (plain, changed)]
    np.testing.assert_allclose(each[1], each[0], atol=2e-5)


def test_a_stopped_run_goes_on_and_ends_bit_equal(run, tmp_path, monkeypatch):
    asked = ("task=sst2", *QUICK, "train.max_steps=6", "train.checkpoint_every=2")
    save_if = checkpoints.save_if

    def stopping(accelerator, folder, step, due):
        save_if(accelerator, folder, step, due)
        if step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save_if", stopping)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", *asked)
    monkeypatch.setattr(checkpoints, "save_if", save_if)
    stopped, whole = run("stopped", *asked), run("whole", *asked)
    assert stopped[1:] == whole[1:]
    weights = [tmp_path / name / "model" / "model.safetensors" for name in ("stopped", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def own_rows(folder):
    """Eight rows of two classes, told apart by their words."""
    rows = [{"text": f"{word} film {n}", "label": label} for n in range(4) for word, label in (("fine", "up"), ("dull", "down"))]  # fmt: skip  # noqa: E501
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return f"data.files.train={file}", f"data.files.validation={file}"


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_it_learns_eight_examples_and_what_is_saved_predicts_the_same(run, tmp_path, peft):
    # the encoder-decoder has random weights, of which an adapter moves little
    rate, least = ("5e-3", 1.0) if peft == "none" else ("2e-2", 0.5)
    asked = (f"peft={peft}", f"optim.lr={rate}", "train.epochs=30", "train.batch_size=8", "train.select=last")
    result, log, lines = run("run", "task=single", *own_rows(tmp_path), "backbone.dropout=0", *asked)
    losses = [line["train/loss"] for line in log if "train/loss" in line]
    assert losses[-1] < losses[0] / 2
    assert result["finetune"]["validation"]["accuracy"] >= least
    assert (result["train"]["trained_parameters"] < result["train"]["parameters"]) == (peft == "lora")
    predictor = Predictor(tmp_path / "run", eval_tokens=50)
    assert isinstance(predictor.model, TextToTextModel)
    rows = load_records(predictor.config.task, predictor.config.data).splits["validation"]
    kept = [list(line["probabilities"].values()) for line in lines]
    np.testing.assert_allclose(predictor(rows, "validation").probabilities, kept, atol=2e-5)


def test_transformers_opens_what_is_saved_and_writes_the_labels(run, tmp_path):
    asked = ("optim.lr=5e-3", "train.epochs=40", "train.batch_size=8", "backbone.dropout=0", "train.select=last")
    run("run", "task=single", *own_rows(tmp_path), *asked)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    for text, label in (("single text: fine film 2", "up"), ("single text: dull film 1", "down")):
        written = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=6)
        assert tokenizer.decode(written[0], skip_special_tokens=True) == label
    new = PredictConfig(run=str(tmp_path / "run"), input=str(tmp_path / "new.csv"), output=str(tmp_path / "new.jsonl"))
    (tmp_path / "new.csv").write_text("text\nfine film 3\n")
    predict_new(new)
    assert json.loads((tmp_path / "new.jsonl").read_text())["prediction"] == "up"


def test_a_run_starts_from_another(run, tmp_path):
    run("first", "task=mnli", *QUICK)
    result, _, _ = run("second", "task=rte", *QUICK, f"init_from={tmp_path / 'first'}")
    assert result["chain"] == [{"run": str(tmp_path / "first"), "task": "mnli", "head": "new"}]
    assert read_config(tmp_path / "second").objective.name == "text_to_text"


def test_without_a_scorer_stage_0_says_why_it_is_not_there(compose, t5, tmp_path):
    asked = ("task=sst2", *QUICK, "zero_shot=auto", f"run_dir={tmp_path}")
    result = finetune(compose("backbone=t5_small", f"backbone.path={t5}", *asked))
    expected = {"method": "none", "reason": "no family of scorers reads t5_small, an encoder-decoder"}
    assert result["zero_shot"] == expected


WRONG = {
    "another objective": (["objective=task"], r"^t5_small is an encoder-decoder, which answers in words: leave out"),
    "another head": (["head=gpt1"], r"^head=gpt1 does not go with objective=text_to_text on t5_small: leave"),
    "transfer": (["n_transfer=1"], r"count the blocks of one stack, and t5_small has two: leave them out"),
    "ablation": (["ablation=no_pretraining"], r"backbone.weights=random trains from random weights\)$"),
    "loss": (["objective.loss=soft_f1"], r"^objective.loss and objective.class_weights are a classifier's"),
    "auxiliary loss": (["objective.lm_coef=0.5"], r"needs a causal backbone, and t5_small is encoder_decoder: set"),
    "prefix": (["peft=prefix"], r"needs a causal backbone, and t5_small is encoder_decoder: use peft=lora$"),
    "another backbone": (["backbone=gpt1", "objective=text_to_text"], r"goes with an encoder-decoder, and gpt1 is"),
    "a head without T5": (["backbone=gpt1", "head=text_to_text"], r"^head=text_to_text does not go with"),
    "running text": (["backbone=gpt1", "objective=lm"], r"^objective=lm reads the text of corpus.files and no task"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_go_together_is_an_input_error(compose, case):
    overrides, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        compose(
            "task=rte", *([] if any("backbone=" in one for one in overrides) else ["backbone=t5_small"]), *overrides
        )


def test_a_range_of_scores_that_has_no_fifths_is_refused(typed):
    with pytest.raises(InputError, match=r"says a score to the nearest 0.2, got task.score_range=\[0.0, 0.5\]"):
        typed("task=stsb", "task.score_range=[0,0.5]")


def test_weights_of_another_family_are_refused(compose, t5):
    with pytest.raises(
        InputError, match=r"bert_base is said to be bidirectional, and .* \(t5\) are those of an encoder-d"
    ):
        lay_foundation(compose("task=rte", "backbone=bert_base", f"backbone.path={t5}"))
    with pytest.raises(InputError, match=r"t5_small is said to be encoder_decoder, and .* \(bert\) are not those of"):
        lay_foundation(compose("task=rte", "backbone=t5_small", f"backbone.path={SHIPPED / 'tiny_bert'}"))


def test_labels_of_the_same_words_are_refused(typed):
    config = typed("task=rte", "data=sample")
    foundation = lay_foundation(config)
    labels = ["Yes", "yes"]
    with pytest.raises(
        InputError, match=r"^the labels Yes and yes are the same words to this tokenizer: .*task.labels="
    ):
        assemble(replace(config, task=replace(config.task, labels=labels)), foundation, labels)
