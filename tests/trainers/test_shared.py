"""Cells of one process share what is equal, find what a run alone finds, and leave what is shared as it was."""

import json
import os
from dataclasses import replace

import pytest
import torch
from accelerate.utils import set_seed
from transformers import AutoModelForMaskedLM

from trainers import shared
from trainers.backbones.load import load_backbone, load_tokenizer
from trainers.data import encode, records
from trainers.data.tokenizers import add_gpt1_specials
from trainers.finetune import finetune
from trainers.shared import once, same, sharing
from trainers.statistics import intervals
from trainers.zero_shot import stage


@pytest.fixture(autouse=True)
def nothing_kept():
    shared.forget()
    yield
    shared.forget()


def gpt1(compose, folder, *more):
    return compose("task=rte", "data=sample", "backbone=gpt1", f"backbone.path={folder}", "train.max_steps=2", *more)


def counted(monkeypatch, module, name):
    """How often a function is called from here on."""
    calls, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **more: calls.append(name) or function(*args, **more))
    return calls


def test_a_value_is_made_once_and_changing_it_changes_no_other():
    made = []

    def make():
        made.append(1)
        return [0]

    with sharing():
        for _ in range(3):
            found = once("list", lambda: {"a": 1}, make)
            assert found == [0]
            found.append(1)
        assert len(made) == 1
        once("list", lambda: {"a": 2}, make)
        once("other", lambda: {"a": 1}, make)
        assert len(made) == 3


def test_a_run_alone_keeps_nothing_and_computes_no_key():
    for _ in range(2):
        assert once("list", lambda: pytest.fail("a key was asked for"), lambda: [0]) == [0]
    with sharing(), sharing(False):
        once("list", lambda: pytest.fail("a key was asked for"), lambda: [0])
    with sharing():
        assert once("list", lambda: 1, lambda: [1]) == [1]


def test_what_is_used_least_goes_first_and_what_is_too_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(shared, "LIMIT", 10)
    made = []

    def get(name, size):
        once("text", lambda: name, lambda: made.append(name) or name, copy=same, n_bytes=lambda _: size)

    with sharing():
        for name, size in [("a", 4), ("b", 4), ("a", 4), ("c", 4), ("a", 4), ("b", 4), ("huge", 11), ("huge", 11)]:
            get(name, size)
        get("b", 4)
    assert made == ["a", "b", "c", "b", "huge", "huge"]


def test_training_one_cell_s_weights_leaves_the_next_one_s_as_they_were(compose, pretrained):
    config = gpt1(compose, pretrained).backbone
    alone = load_backbone(config).full.state_dict()
    with sharing():
        for seed in range(3):
            set_seed(seed)
            before = torch.get_rng_state()
            full = load_backbone(config).full
            assert torch.equal(before, torch.get_rng_state())  # what is drawn next is what a run alone draws
            state = full.state_dict()
            assert all(torch.equal(state[name], tensor) for name, tensor in alone.items())
            assert full.get_output_embeddings().weight is full.get_input_embeddings().weight
            with torch.no_grad():
                for parameter in full.parameters():
                    parameter.add_(1.0)


def test_a_tokenizer_s_new_tokens_stay_its_own(compose, pretrained):
    config = gpt1(compose, pretrained).backbone
    alone = load_tokenizer(config)
    with sharing():
        for _ in range(3):
            found = load_tokenizer(config)
            assert found.backend_tokenizer.to_str() == alone.backend_tokenizer.to_str()
            assert len(found) == len(alone)
            add_gpt1_specials(found)


def test_what_is_drawn_from_the_seed_is_not_shared(compose, tiny_model, tmp_path):
    random = compose("task=sst2", "backbone=tiny").backbone
    tiny_model(AutoModelForMaskedLM, "bert").save_pretrained(tmp_path)  # without a pooler
    partly = replace(compose("task=sst2", "backbone=bert_base").backbone, path=str(tmp_path))
    for config, name in ((random, "h.0.mlp.c_fc.weight"), (partly, "pooler.dense.weight")):
        found = []
        for share in (False, True):
            for seed in (0, 1):
                set_seed(seed)
                with sharing(share):
                    found.append(load_backbone(config).base.get_parameter(name))
        assert [torch.equal(found[0], other) for other in found] == [True, False, True, False]


def test_a_folder_that_was_written_anew_is_read_anew(compose, pretrained, tmp_path):
    config = replace(gpt1(compose, pretrained).backbone, path=str(tmp_path))
    with sharing():
        for value in (1.0, 2.0):
            full = load_backbone(gpt1(compose, pretrained).backbone).full
            with torch.no_grad():
                full.get_parameter("transformer.h.0.ln_1.bias").fill_(value)
            full.save_pretrained(tmp_path)
            os.utime(tmp_path / "model.safetensors", ns=(0, int(value)))  # however coarse the clock of the disk is
            assert load_backbone(config).full.get_parameter("transformer.h.0.ln_1.bias")[0].item() == value


TIMES = ("seconds", "examples_per_second", "tokens_per_second")


def timeless(value):
    return {key: timeless(one) for key, one in value.items() if key not in TIMES} if isinstance(value, dict) else value


def left(folder):
    """All that a run leaves, but for its times and its place."""
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    files["config.yaml"] = files["config.yaml"].replace(str(folder).encode(), b"")
    return files | {"result.json": timeless(json.loads(files["result.json"]))}


CELLS = [
    *([f"ablation={name}", f"seed={seed}"] for name in ("none", "no_aux_lm") for seed in (1, 2)),
    ["ablation=no_pretraining"],
    *(["backbone.weights=random", *seeds] for seeds in (["seed=1"], ["seed=2"], ["seed=2", "weight_init_seed=1"])),
    ["peft=lora"],
    ["n_transfer=1"],
    ["zero_shot.limit=8"],
    ["data.eval_rows=10"],
    ["task=ax", "seed=3"],  # it has a test split, which the model on disk predicts
    ["task=ax", "seed=4"],
]


def test_cells_of_one_process_leave_what_runs_alone_leave(compose, pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 20)

    def run(place):
        monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache" / place))  # so that neither finds the other's
        for n, cell in enumerate(CELLS):
            more = () if any("zero_shot" in part for part in cell) else ("zero_shot=auto",)
            finetune(gpt1(compose, pretrained, *more, *cell, f"run_dir={tmp_path / place / str(n)}"))

    run("alone")
    rows, tables, scored = (
        counted(monkeypatch, module, name)
        for module, name in ((records, "read_files"), (encode, "_encode_records"), (stage, "_evaluate"))
    )
    with sharing():
        run("together")
    assert [len(calls) for calls in (rows, tables, scored)] == [3, 3, 6]
    for n, cell in enumerate(CELLS):
        alone, together = left(tmp_path / "alone" / str(n)), left(tmp_path / "together" / str(n))
        assert alone.keys() == together.keys(), cell
        assert not [name for name in alone if alone[name] != together[name]], cell


def test_stage_0_of_drawn_weights_is_that_of_the_seed_of_the_weights(compose, tmp_path, monkeypatch):
    asked = counted(monkeypatch, stage, "_evaluate")
    typed = ("task=sst2", "data=sample", "backbone=tiny", "train.max_steps=1", "zero_shot=likelihood")

    def found(name, *more):
        result = finetune(compose(*typed, *more, f"run_dir={tmp_path / name}"))["zero_shot"]
        lines = (tmp_path / name / "zero_shot_predictions.jsonl").read_text()
        return {key: value for key, value in result.items() if "second" not in key}, lines

    seeds = [("seed=1",), ("seed=2", "weight_init_seed=1"), ("weight_init_seed=2",), ("seed=2", "data_order_seed=5")]
    with sharing():
        first, again, other, order = (found(f"shared{i}", *more) for i, more in enumerate(seeds))
    assert first == again
    assert other == order
    assert first != other
    assert len(asked) == 2
    assert found("alone", *seeds[2]) == other
