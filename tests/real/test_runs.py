"""Whole runs on real rows and real weights: the default configuration over a hub, adapters, a chain, GLUE's zip."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from trainers.finetune import finetune

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def hub(data, models):
    """A stand-in hub on this machine, where there is one."""
    script = os.environ.get("ABLATUNE_HUB")
    if not script:
        pytest.skip("ABLATUNE_HUB names no stand-in hub")
    asked = [sys.executable, script, str(data.parent), str(models.parent), "--port", "0"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as server:
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.mark.parametrize("backbone", ["gpt1", "minilm"])
def test_the_default_configuration_over_the_hub(hub, tmp_path, backbone):
    """Nothing is set but where the hub is: ids, columns, weights and tokenizer come as a user gets them."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf")}
    asked = [sys.executable, "-m", "accelerate.commands.launch", str(ROOT / "recipes" / "finetune.py"), "task=cola",
             f"backbone={backbone}", "train.max_steps=3", "data.eval_rows=64"]  # fmt: skip
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = tmp_path.glob(f"outputs/finetune/cola/{backbone}/*/result.json")
    result = json.loads(found.read_text())
    assert result["data"]["source"] == "hub"
    assert result["data"]["rows"]["train"] == 8551
    assert "matthews" in done.stdout


def test_rows_of_the_hub_that_were_encoded_before_are_not_read_again(hub, tmp_path):
    """Whether it can be asked then, or not."""
    own = {"HF_HOME": str(tmp_path / "hf"), "ABLATUNE_CACHE": str(tmp_path / "cache")}
    typed = ["task=cola", "backbone=tiny", "zero_shot=none", "train.max_steps=1", "data.eval_rows=64"]
    code = (
        f"import runpy, sys; sys.argv[1:] += {typed}; runpy.run_path({str(ROOT / 'recipes/finetune.py')!r}, "
        "run_name='__main__'); print('datasets' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | own | {"PYTHONPATH": str(ROOT)}
    reached, found = [{"HF_ENDPOINT": hub}] * 2 + [{"HF_HUB_OFFLINE": "1"}], []
    for n, more in enumerate(reached):
        asked = [sys.executable, "-c", code, f"run_dir={tmp_path / str(n)}"]
        done = subprocess.run(asked, env=environment | more, capture_output=True, text=True, check=True)
        found.append(done.stdout.split()[-1])
    assert found == ["True", "False", "False"]


def minilm(compose, data, models, *more):
    return compose("task=cola", f"data.root={data}", "backbone=minilm", f"backbone.path={models / MINILM}", *more)


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_real_weights_train_save_load_back_and_predict_the_same(compose, data, models, tmp_path, peft):
    """480 rows of CoLA lower the loss; what is saved predicts what was scored."""
    from trainers.data.records import load_records
    from trainers.predict import Predictor

    rate = "3e-4" if peft == "lora" else "5e-5"
    result = finetune(
        minilm(compose, data, models, f"peft={peft}", "data.train_rows=480", "data.eval_rows=100", "train.epochs=3",
               f"optim.lr={rate}", "train.select=last", f"run_dir={tmp_path}")
    )  # fmt: skip
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    by_epoch = [line["train/epoch_task_loss"] for line in log if "train/epoch_task_loss" in line]
    assert by_epoch[-1] < by_epoch[0]
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    kept = np.array([list(line["probabilities"].values()) for line in lines if line["split"] == "validation"])
    predictor = Predictor(tmp_path, eval_tokens=1000)
    rows = load_records(predictor.config.task, predictor.config.data).splits["validation"]
    np.testing.assert_allclose(predictor(rows, "validation").probabilities, kept, atol=2e-5)
    share = result["train"]["trained_parameters"] / result["train"]["parameters"]
    assert share < 0.05 if peft == "lora" else share == 1


def test_a_minilm_classifier_loads_in_transformers(compose, data, models, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    finetune(minilm(compose, data, models, "train.max_steps=2", "data.eval_rows=40", f"run_dir={tmp_path}"))
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert classifier.config.id2label == {0: "unacceptable", 1: "acceptable"}
    from trainers.data.records import load_records
    from trainers.runs import read_config

    config = read_config(tmp_path)
    rows = load_records(config.task, config.data).splits["validation"]
    encoded = tokenizer(rows["sentence"][:], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = classifier(**encoded).logits.softmax(-1).numpy()
    ours = [list(line["probabilities"].values()) for line in lines if line["split"] == "validation"]
    np.testing.assert_allclose(theirs, ours, atol=2e-5)


def test_mnli_then_rte_then_the_glue_zip(compose, data, models, tmp_path):
    """A chain of real runs; the zip has the server's names, headers and row counts."""
    small = ("train.max_steps=2", "train.batch_size=8", "data.train_rows=32")
    weights = ("backbone=bert_base", f"backbone.path={models / 'google-bert/bert-base-uncased'}", f"data.root={data}")
    runs = tmp_path / "runs"
    finetune(compose("task=mnli", *weights, *small, f"run_dir={runs / 'mnli'}"))
    chained = finetune(compose("task=rte", *weights, *small, f"init_from={runs / 'mnli'}", f"run_dir={runs / 'rte'}"))
    assert chained["chain"] == [{"run": str(runs / "mnli"), "task": "mnli", "head": "new"}]
    finetune(compose("task=stsb", *weights, *small, f"run_dir={runs / 'stsb'}"))
    finetune(compose("task=wnli", *weights, *small, f"run_dir={runs / 'wnli'}"))
    # The rows of MNLI's own test sets are not in every mirror, so AX, which its run predicts, is asked for alone.
    from trainers import submission
    from trainers.config import PredictConfig

    files = {name: file for name, file in submission.GLUE_FILES.items() if file.task in ("rte", "stsb", "wnli", "ax")}
    kept = dict(submission.GLUE_FILES)
    submission.GLUE_FILES.clear()
    submission.GLUE_FILES.update(files)
    try:
        submission.submit(PredictConfig(glue=str(tmp_path / "glue.zip"), runs=str(runs)))
    finally:
        submission.GLUE_FILES.clear()
        submission.GLUE_FILES.update(kept)
    with zipfile.ZipFile(tmp_path / "glue.zip") as archive:
        texts = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    assert {name: len(lines) - 1 for name, lines in texts.items()} == {
        "AX.tsv": 1104, "RTE.tsv": 3000, "STS-B.tsv": 1379, "WNLI.tsv": 146}  # fmt: skip
    assert all(lines[0] == "index\tprediction" for lines in texts.values())
    assert {line.split("\t")[1] for line in texts["AX.tsv"][1:]} <= {"entailment", "neutral", "contradiction"}
    assert {line.split("\t")[1] for line in texts["RTE.tsv"][1:]} <= {"entailment", "not_entailment"}
    assert {line.split("\t")[1] for line in texts["WNLI.tsv"][1:]} <= {"0", "1"}
    scores = [float(line.split("\t")[1]) for line in texts["STS-B.tsv"][1:]]
    assert 0 <= min(scores) <= max(scores) <= 5


def test_an_encoder_decoder_answers_real_rows_in_words(compose, data, t5, tmp_path):
    """The weights are random: what is held is that real texts are read, and that the loss of the words falls."""
    asked = ("data.train_rows=256", "data.eval_rows=64", "train.epochs=2", "optim.lr=3e-3", "train.select=last")
    rows = ("task=sst2", f"data.root={data}", "backbone=t5_small", f"backbone.path={t5}")
    result = finetune(compose(*rows, *asked, f"run_dir={tmp_path}"))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in log if "train/loss" in line]
    assert losses[-1] < losses[0] / 2
    assert result["data"]["labels"] == ["negative", "positive"]
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert {line["prediction"] for line in lines} <= {"negative", "positive"}


def test_smollm2_on_running_text(models, tmp_path, monkeypatch):
    """Two updates lower the perplexity of the held-out text, and the model that is saved has what is stated."""
    import hydra
    from omegaconf import OmegaConf
    from transformers import AutoModelForCausalLM

    from trainers.config import LmConfig
    from trainers.finetune_lm import finetune_lm
    from trainers.launch import SAMPLE, register
    from trainers.overrides import CONF

    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    register("finetune_lm", LmConfig)
    weights = models / "HuggingFaceTB/SmolLM2-135M-Instruct"
    asked = ["objective=lm", "backbone=smollm2", f"backbone.path={weights}", "train.n_ctx=128", "train.batch_size=4",
             "train.max_steps=2", "continuations.number=1", "continuations.max_new_tokens=8",
             f"corpus.files=[{SAMPLE / 'corpus' / 'train.txt'}]", f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        result = finetune_lm(OmegaConf.to_object(hydra.compose("finetune_lm", overrides=asked)))
    assert 1 < result["finetune"]["held_out"]["perplexity"] < result["zero_shot"]["held_out"]["perplexity"] < 100
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").config.use_cache
    assert result["continuations"][0]["finetune"]
