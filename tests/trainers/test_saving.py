"""What a run keeps loads back and predicts the same: whole backbones, adapters, heads, a chain of runs."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import compile_regions
from transformers import AutoModel

from heads.classification import ClassificationHead
from heads.errors import InputError
from trainers.data.records import load_split
from trainers.finetune import finetune
from trainers.model import TaskModel
from trainers.predict import Predictor, read_lines
from trainers.runs import read_config
from trainers.saving import load_model, part, whole_state

RTE = ("task=rte", "data=sample", "optim.lr=3e-3", "train.max_steps=3", "train.select=last")


def predicted(folder):
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return np.array([list(line["probabilities"].values()) for line in lines])


def predicted_again(folder, split="validation"):
    predictor = Predictor(folder, eval_tokens=500)  # other batches than in the run
    rows = load_split(predictor.config.task, predictor.config.data, split)
    return predictor(rows, split).probabilities


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tiny_model):
    """A tiny Llama with tiny's tokenizer, on disk: the kind of backbone that prefix tuning takes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainers.launch import SHIPPED

    folder = tmp_path_factory.mktemp("llama")
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "tiny_gpt")
    model = tiny_model(AutoModelForCausalLM, "llama", vocab_size=len(tokenizer), max_position_embeddings=256)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("peft", ["none", "lora", "dora", "ia3", "ln_tuning"])
@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_a_run_loads_back_and_predicts_the_same(compose, tmp_path, backbone, peft):
    result = finetune(compose(*RTE, f"backbone={backbone}", f"peft={peft}", f"run_dir={tmp_path}"))
    np.testing.assert_allclose(predicted_again(tmp_path), predicted(tmp_path), atol=2e-6)
    train = result["train"]
    assert train["trained_parameters"] < train["parameters"] if peft != "none" else True
    assert (tmp_path / "model" / "adapter_model.safetensors").exists() == (peft != "none")


@pytest.mark.parametrize("ablation", ["no_aux_lm", "lstm", "no_pretraining"])
def test_an_ablation_loads_back_and_another_starts_from_it(compose, tmp_path, ablation):
    settings = ("backbone=tiny", f"ablation={ablation}")
    finetune(compose(*RTE, *settings, f"run_dir={tmp_path / 'a'}"))
    np.testing.assert_allclose(predicted_again(tmp_path / "a"), predicted(tmp_path / "a"), atol=2e-6)
    if ablation == "no_pretraining":
        return  # which draws the weights anew, whatever it starts from
    more = ("train.max_steps=1", f"init_from={tmp_path / 'a'}", f"run_dir={tmp_path / 'b'}")
    result = finetune(compose(*RTE, *settings, *more))
    assert result["ablation"] == ablation
    np.testing.assert_allclose(predicted(tmp_path / "b"), predicted(tmp_path / "a"), atol=1e-5)


def test_a_prefix_loads_back_and_predicts_the_same(compose, tmp_path, llama):
    settings = ("backbone=smollm2", f"backbone.path={llama}", "peft=prefix", "peft.n_virtual_tokens=4")
    finetune(compose(*RTE, *settings, f"run_dir={tmp_path}"))
    np.testing.assert_allclose(predicted_again(tmp_path), predicted(tmp_path), atol=2e-6)


def test_an_adapter_is_trained_and_its_backbone_is_not(compose, tmp_path):
    finetune(compose(*RTE, "backbone=tiny", "peft=lora", f"run_dir={tmp_path}"))
    model, _, _ = load_model(tmp_path)
    moved = [p.abs().sum() for name, p in model.named_parameters() if "lora_B" in name]
    assert moved
    assert all(amount > 0 for amount in moved), "LoRA's B starts at zero: it was not trained"


def test_a_bert_classifier_loads_in_transformers(compose, tmp_path):
    """With id2label, and the same logits from transformers' own tokenizer and model."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    finetune(compose(*RTE, "backbone=tiny_bert", f"run_dir={tmp_path}"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.id2label == {0: "entailment", 1: "not_entailment"}
    rows = load_split(read_config(tmp_path).task, read_config(tmp_path).data, "validation")
    encoded = tokenizer(rows["sentence1"][:], rows["sentence2"][:], padding=True, return_tensors="pt")
    with torch.no_grad():
        probabilities = model(**encoded).logits.softmax(-1).numpy()
    np.testing.assert_allclose(probabilities, predicted(tmp_path), atol=2e-6)


def test_the_best_epoch_is_kept_and_not_the_last(compose, tmp_path, monkeypatch):
    """The model on disk is the one whose predictions and scores the result has."""
    from trainers import results

    worse = iter([0.9, 0.2, 0.5])
    monkeypatch.setattr(results.Predictions, "scores", lambda self, metrics: {"accuracy": next(worse)})
    settings = ("backbone=tiny", "train.epochs=3", "optim.lr=3e-3", f"run_dir={tmp_path}")
    result = finetune(compose("task=rte", "data=sample", *settings))
    monkeypatch.undo()
    assert result["finetune"] == {"validation": {"accuracy": 0.9}}
    assert result["train"]["kept_epoch"] == 1
    np.testing.assert_allclose(predicted_again(tmp_path), predicted(tmp_path), atol=2e-6)


def test_patience_stops_a_run(compose, tmp_path, monkeypatch):
    from trainers import results

    falling = iter([0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(results.Predictions, "scores", lambda self, metrics: {"accuracy": next(falling)})
    settings = ("backbone=tiny", "train.epochs=9", "train.patience=2", f"run_dir={tmp_path}")
    assert finetune(compose("task=rte", "data=sample", *settings))["train"]["epochs"] == 3


def test_one_run_starts_from_another(compose, tmp_path):
    """MNLI, then RTE: the backbone goes on, the head is new (other labels), the result says where it comes from."""
    mnli = ("task=mnli", "data=sample", "backbone=tiny", "train.max_steps=2", "optim.lr=1e-2")
    finetune(compose(*mnli, f"run_dir={tmp_path / 'mnli'}"))
    still = ("backbone=tiny", "train.max_steps=1")  # the first update has learning rate 0
    chained = (*still, f"init_from={tmp_path / 'mnli'}", f"run_dir={tmp_path / 'rte'}")
    result = finetune(compose("task=rte", "data=sample", *chained))
    assert result["chain"] == [{"run": str(tmp_path / "mnli"), "task": "mnli", "head": "new"}]
    ours, theirs = (load_model(tmp_path / name)[0].backbone.state_dict() for name in ("rte", "mnli"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(InputError, match=r"this run backbone=tiny_bert head=cls: type the earlier run's"):
        finetune(
            compose(
                "task=rte", "data=sample", "backbone=tiny_bert", *chained[1:2], chained[2], f"run_dir={tmp_path / 'x'}"
            )
        )


def test_no_pretraining_keeps_nothing_and_n_transfer_keeps_what_it_says(compose, tmp_path, llama):
    """The kept tensors are the source's, the others are not."""
    from transformers import AutoModelForCausalLM

    from trainers.backbones.transfer import layer_of

    source = AutoModelForCausalLM.from_pretrained(llama).base_model
    layer = layer_of(source)
    weights = {name: p.detach() for name, p in source.named_parameters() if p.dim() > 1 and "embed" not in name}
    for n in (-1, 0, 1, 2):
        settings = ("backbone=smollm2", f"backbone.path={llama}", f"n_transfer={n}", "train.max_steps=1")
        finetune(compose("task=rte", "data=sample", *settings, f"run_dir={tmp_path / str(n)}"))
        ours = dict(load_model(tmp_path / str(n))[0].backbone.named_parameters())
        kept = {name for name, value in weights.items() if torch.equal(ours[name], value)}
        assert kept == {name for name in weights if layer(name) <= n}


def test_stdin_is_read_as_text_or_json():
    import io

    from trainers.config import TaskConfig

    pair = TaskConfig(name="x", structure="entailment", texts=["a", "b"], metrics=["accuracy"], primary="accuracy")
    assert read_lines(io.StringIO('one\ttwo\n\n{"a": "3", "b": "4"}\n'), pair) == [
        {"a": "one", "b": "two"},
        {"a": "3", "b": "4"},
    ]
    with pytest.raises(InputError, match=r"line 1 of the input has 1 text\(s\) between tabs, and x reads a, b"):
        read_lines(io.StringIO("one\n"), pair)


@pytest.mark.parametrize("name", ["race", "story_cloze", "copa", "dpr"])
def test_texts_that_a_reader_makes_are_not_typed_with_tabs(compose, name):
    import io

    task = compose(f"task={name}").task
    with pytest.raises(InputError, match="JSON lines with its own columns"):
        read_lines(io.StringIO("\t".join("a text" for _ in task.texts)), task)


def test_the_soft_encodings_six_outputs_load_back(compose, tmp_path):
    """They are no classifier that transformers knows: the head has its own file, the backbone opens as an encoder."""
    from transformers import AutoModel

    settings = ("backbone=tiny_bert", "objective.loss=soft_score", "train.max_steps=2", f"run_dir={tmp_path}")
    finetune(compose("task=stsb", "data=sample", *settings))
    predictor = Predictor(tmp_path, eval_tokens=500)
    again = predictor(load_split(predictor.config.task, predictor.config.data, "validation"), "validation").values
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(again, [line["prediction"] for line in lines], atol=2e-5)
    assert AutoModel.from_pretrained(tmp_path / "model").config.hidden_size == 64


def test_weights_of_the_other_family_are_refused(compose, tmp_path, tiny_model):
    """A bidirectional network under backbone=gpt2 would see the tokens that its LM loss asks for."""
    from transformers import AutoModel, AutoTokenizer

    from trainers.launch import SHIPPED

    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "tiny_bert")
    tiny_model(AutoModel, "bert", vocab_size=len(tokenizer), is_decoder=False).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(
        InputError, match=r"backbone gpt2 is said to be causal, and the weights of .* are bidirectional"
    ):
        finetune(compose(*RTE, "backbone=gpt2", f"backbone.path={tmp_path / 'bert'}", f"run_dir={tmp_path / 'run'}"))


def test_glue_takes_no_sample_run_and_none_that_was_set_aside(compose, tmp_path):
    from trainers.submission import best_runs

    finetune(compose(*RTE, "backbone=tiny", f"run_dir={tmp_path / 'rte'}"))
    assert best_runs(tmp_path) == {}
    file = tmp_path / "rte" / "config.yaml"
    file.write_text(file.read_text().replace("sample: true", "sample: false"))
    assert best_runs(tmp_path) == {"rte": tmp_path / "rte"}
    (tmp_path / "rte").rename(tmp_path / "rte.old1")
    assert best_runs(tmp_path) == {}


@pytest.mark.parametrize("compiled", [torch.compile, compile_regions])
def test_a_compiled_models_weights_keep_their_names(tiny_model, compiled):
    model = TaskModel(tiny_model(AutoModel, "bert"), ClassificationHead(32, 3, 0.0), lm=False, pooler=True)
    prepared = compiled(model, backend="eager")
    assert prepared.state_dict().keys() != model.state_dict().keys()
    found = whole_state(Accelerator(), prepared)
    assert found.keys() == model.state_dict().keys() == whole_state(Accelerator(), model).keys()


def test_a_part_without_weights_is_not_saved():
    with pytest.raises(
        ValueError, match=r"no weight's name begins with backbone\., and these do not: _orig_mod\.head\.w"
    ):
        part({"_orig_mod.head.w": torch.zeros(1)}, "backbone.")
