"""Scores on any scale: standardised while training, reported on the user's scale, in float32, saved and continued."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from heads.classification import ClassificationHead
from heads.errors import InputError
from heads.multiple_choice import MultipleChoiceHead
from heads.output_layer import OutputLayer
from heads.similarity import SimilarityHead
from trainers.config import PromptConfig, PromptsConfig
from trainers.data.encoded import EncodedTable
from trainers.data.labels import score_reader
from trainers.data.records import load_split
from trainers.data.split import Split
from trainers.finetune import finetune
from trainers.predict import Predictor
from trainers.results import Predictions, one_prediction
from trainers.runs import read_config
from trainers.zero_shot.run import zero_shot

QUICK = (
    "backbone=tiny", "train.epochs=8", "train.batch_size=8", "optim.lr=5e-3", "objective.lm_coef=0",
    "train.select=last",
)  # fmt: skip


def write_rows(file, change, n=32, seed=0):
    """Pairs whose score is in their words, changed to another scale."""
    rng = np.random.default_rng(seed)
    words = ["red", "green", "blue", "grey", "black", "white"]
    lines = []
    for score in rng.integers(0, 6, n).tolist():
        first = " ".join(rng.choice(words, 4))
        lines.append({"text1": first, "text2": f"{words[score]} {words[score]}", "label": change(score)})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def run(compose, folder, change, *typed, held_out=None):
    folder.mkdir(exist_ok=True)
    files = write_rows(folder / "train.jsonl", change), write_rows(folder / "dev.jsonl", held_out or change, 16, 1)
    own = (f"data.files.train={files[0]}", f"data.files.validation={files[1]}")
    return finetune(compose("task=regression", *own, *QUICK, *typed, f"run_dir={folder / 'run'}"))


def lines_of(folder):
    return [json.loads(line) for line in (folder / "run" / "predictions.jsonl").read_text().splitlines()]


SCALES = {
    "x1": lambda score: score + 0.5,
    "x20": lambda score: 20 * score + 10,
    "thousands": lambda score: 10_000 + 8_000 * score,
    "millionths": lambda score: score * 1e-6,
}


@pytest.fixture(scope="module")
def on_each_scale(compose, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scales")
    return folder, {name: run(compose, folder / name, change) for name, change in SCALES.items()}


def test_scores_on_another_scale_are_learned_as_well(on_each_scale):
    """Nothing but rounding differs: unstandardised, 10,000 to 50,000 would end near where it began."""
    folder, results = on_each_scale
    pearson = {name: result["finetune"]["validation"]["pearson"] for name, result in results.items()}
    for name in ("x20", "thousands", "millionths"):
        assert pearson[name] == pytest.approx(pearson["x1"], abs=1e-3), name
    assert pearson["x1"] > 0.3
    assert not any(result["degenerate"] for result in results.values())
    ours, theirs = ([line["prediction"] for line in lines_of(folder / name)] for name in ("x1", "thousands"))
    np.testing.assert_allclose(10_000 + 8_000 * (np.array(ours) - 0.5), theirs, rtol=1e-3)
    assert results["millionths"]["data"]["score_range"] == pytest.approx([0, 5e-6])


@pytest.mark.parametrize("name", ["x20", "thousands", "millionths"])
def test_a_saved_model_predicts_on_the_users_scale(on_each_scale, name):
    folder, _ = on_each_scale
    predictor = Predictor(folder / name / "run", eval_tokens=300)
    rows = load_split(predictor.config.task, predictor.config.data, "validation")
    kept = [line["prediction"] for line in lines_of(folder / name)]
    np.testing.assert_allclose(predictor(rows, "validation").values, kept, rtol=1e-4)
    saved = load_file(folder / name / "run" / "model" / "head.safetensors")
    labels = [json.loads(line)["label"] for line in (folder / name / "train.jsonl").read_text().splitlines()]
    assert saved["linear.mean"].item() == pytest.approx(np.mean(labels), rel=1e-5)
    assert saved["linear.std"].item() == pytest.approx(np.std(labels), rel=1e-5)


def test_a_run_continues_on_its_own_scale(compose, on_each_scale, tmp_path):
    """The head of scores 0.5 to 5.5 continues on 10 to 110, with the same order of predictions."""
    folder, results = on_each_scale
    start = f"init_from={folder / 'x1' / 'run'}"
    result = run(compose, tmp_path / "next", SCALES["x20"], start, "train.max_steps=1")  # at learning rate 0
    assert result["chain"][0]["head"] == "kept"
    assert result["finetune"]["validation"]["pearson"] == pytest.approx(
        results["x1"]["finetune"]["validation"]["pearson"], abs=1e-4
    )
    before, after = ([line["prediction"] for line in lines_of(one)] for one in (folder / "x1", tmp_path / "next"))
    np.testing.assert_allclose(20 * np.array(before), after, rtol=1e-3)


def test_a_bert_regression_opens_in_transformers_on_the_users_scale(compose, tmp_path):
    """The scale is in the weights of transformers' last layer, which knows no other place for it."""
    run(compose, tmp_path, SCALES["thousands"], "backbone=tiny_bert", "optim.lr=1e-3")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")
    config = read_config(tmp_path / "run")
    rows = load_split(config.task, config.data, "validation")
    encoded = tokenizer(rows["text1"][:], rows["text2"][:], padding=True, return_tensors="pt")
    with torch.no_grad():
        scores = model(**encoded).logits[:, 0].numpy()
    np.testing.assert_allclose(scores, [line["prediction"] for line in lines_of(tmp_path)], rtol=1e-5)


def test_validation_scores_outside_the_training_range(compose, tmp_path):
    """With auto they are scored as they are; with a range, the row is an error."""
    result = run(compose, tmp_path, SCALES["x1"], "train.max_steps=1", held_out=lambda score: score + 3)
    assert result["data"]["score_range"] == [0.5, 5.5]
    assert max(line["label"] for line in lines_of(tmp_path)) == 8
    with pytest.raises(InputError, match=r"outside task.score_range=\[0.5, 5.5\]: .* type task.score_range=auto"):
        run(compose, tmp_path, SCALES["x1"], "task.score_range=[0.5,5.5]", "overwrite=true", held_out=lambda s: s + 3)


def test_what_is_a_score():
    read = score_reader(None)
    assert [read(value, "row train-0") for value in ("-1", -1.0, 3, "1e4", "", None)] == [-1, -1, 3, 10_000, None, None]
    for word in ("inf", "-inf", float("inf")):
        with pytest.raises(InputError, match=r"row train-7 has the label -?inf, which is not a finite number"):
            read(word, "row train-7")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("task.score_range=[5,0]", r"task.score_range is \[least, greatest\] or auto, got \[5, 0\]"),
        ("task.score_range=[0]", r"task.score_range is \[least, greatest\] or auto, got \[0\]"),
        ("task.score_range=[a,b]", r"task.score_range is \[least, greatest\] or auto, got \['a', 'b'\]"),
        ("task.score_range=automatic", r"task.score_range is \[least, greatest\] or auto, got automatic"),
        ("task.score_range=[nan,5]", r"task.score_range is \[least, greatest\] or auto, got \[nan, 5\]"),
        ("task.score_range=[0,inf]", r"task.score_range must be a finite number, got inf"),
        ("objective.loss=soft_score", r"needs task.score_range=\[least,greatest\] in whole numbers, got auto"),
    ],
)
def test_a_range_that_cannot_be(compose, typed, message):
    with pytest.raises(InputError, match=message):
        compose("task=regression", "backbone=tiny", typed)


def scored(values, labels, regression=True):
    table = EncodedTable.of({"label": [float(label) for label in labels]})
    return Predictions(Split("validation", table, regression), np.asarray(values), None)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 20.0, 1e5])
def test_nearly_constant_scores_are_degenerate_on_every_scale(scale):
    """A spread of 0.1 % of the labels' is none, whether it is a millionth or a thousand."""
    labels = scale * np.arange(10.0)
    assert "nearly one prediction for all 10 rows of validation" in one_prediction(scored(labels * 1e-3, labels))
    assert one_prediction(scored(labels * 0.1 + 7 * scale, labels)) is None
    assert one_prediction(scored(labels, np.full(10, scale))) is None  # nothing to tell apart


def test_the_same_score_for_all_rows_is_no_scale():
    """0.1 has no exact double, so the deviation of many is rounding and not 0."""
    assert scored([0.1] * 7, [0.1] * 7).split.mean_and_std == (pytest.approx(0.1), 1.0)


def test_one_class_for_all_is_degenerate():
    assert one_prediction(scored([1, 1, 1], [0, 1, 1], regression=False)) == (
        "one prediction for all 3 rows of validation"
    )
    assert one_prediction(scored([1, 0, 1], [0, 1, 1], regression=False)) is None


@pytest.mark.parametrize("head", [ClassificationHead, SimilarityHead, MultipleChoiceHead])
def test_heads_compute_in_float32_under_autocast(head):
    """bfloat16 has 128 numbers between 2 and 4: a thousand scores would be a few dozen."""
    set_seed(0)
    n_sequences = 2 if head is SimilarityHead else 1
    module = head(32, 1, 0.1).eval()
    states = (torch.randn(1000, n_sequences, 32) * 0.2).bfloat16()
    present = torch.ones(1000, n_sequences)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = module(states, present)
    exact = states.float().sum(1) if head is SimilarityHead else states.float()[:, 0]
    assert found.dtype == torch.float32
    assert len(found.unique()) > 950
    with torch.no_grad():
        expected = module.linear(exact.to(states.dtype).float() if head is not SimilarityHead else exact)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.01)


def test_an_output_layer_with_half_precision_weights_computes_in_float32():
    layer = OutputLayer(8, 3).bfloat16()
    assert layer(torch.randn(5, 8).bfloat16()).dtype == torch.float32


def test_in_bfloat16_every_row_has_its_own_score(on_each_scale, tmp_path):
    """A run in bfloat16 is predicted from under autocast."""
    folder, _ = on_each_scale
    shutil.copytree(folder / "x20" / "run", tmp_path / "run")
    settings = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(settings.replace("mixed_precision: 'no'", "mixed_precision: bf16"))
    predictor = Predictor(tmp_path / "run", eval_tokens=300)
    assert predictor.autocast_to == torch.bfloat16
    found = predictor(load_split(predictor.config.task, predictor.config.data, "validation"), "validation").values
    exact = np.array([line["prediction"] for line in lines_of(folder / "x20")])
    assert len(set(found.tolist())) == len(set(exact.tolist()))
    np.testing.assert_allclose(found, exact, atol=0.1 * exact.std())


def test_zero_shot_levels_go_with_auto(compose, tmp_path):
    """The levels of a prompt are its own; the labels are read without bounds."""
    file = write_rows(tmp_path / "rows.jsonl", SCALES["x20"], 16)
    own = (f"data.files.train={file}", f"data.files.validation={file}")
    config = compose("task=regression", *own, *QUICK, "zero_shot=likelihood", f"run_dir={tmp_path / 'run'}")
    prompt = PromptConfig("{text1} {text2} {answer}", {"0": "low", "50": "mid", "100": "high"})
    config = replace(config, task=replace(config.task, prompts=PromptsConfig(likelihood=[prompt])))
    result = zero_shot(config)
    said = [json.loads(line) for line in (tmp_path / "run" / "zero_shot_predictions.jsonl").read_text().splitlines()]
    assert result["zero_shot"]["rows"]["validation"] == {"scored": 16, "of": 16}
    assert all(0 < line["prediction"] < 100 for line in said)
    assert {line["label"] for line in said} <= {10.0, 30.0, 50.0, 70.0, 90.0, 110.0}
