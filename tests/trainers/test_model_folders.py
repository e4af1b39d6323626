"""What is wrong with a model's folder is one line; weights that are another model's are refused."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from heads.errors import InputError
from trainers.backbones.load import load_backbone, load_tokenizer
from trainers.build import lay_foundation
from trainers.config import BackboneConfig
from trainers.launch import SHIPPED

WEIGHTS = "model.safetensors"

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning", "ignore:fan_in_fan_out"
)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.fixture
def folder(tmp_path, tiny_model):
    """A BERT's folder, whole."""
    tiny_model(AutoModel, "bert", vocab_size=2000).save_pretrained(tmp_path)
    shutil.copy(SHIPPED / "tiny_bert" / "tokenizer.json", tmp_path)
    return tmp_path


def backbone(folder, **settings):
    return BackboneConfig(**({"name": "own", "hub": "h", "path": str(folder), "family": "bidirectional"} | settings))


def refusal(folder, **settings):
    def load(config):
        load_tokenizer(config)
        load_backbone(config)

    with pytest.raises(InputError) as error:
        load(backbone(folder, **settings))
    said = str(error.value)
    assert "\n" not in said
    return said.replace(str(folder), "DIR")


def test_pickled_weights_are_read_and_other_objects_are_not(folder, monkeypatch):
    monkeypatch.chdir(folder)
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(state, folder / "pytorch_model.bin")
    loaded = load_backbone(backbone(folder))
    assert not loaded.new_weights
    assert torch.equal(loaded.base.get_input_embeddings().weight, state["embeddings.word_embeddings.weight"])
    torch.save(state | {"more": Harmful()}, folder / "pytorch_model.bin")
    assert "holds Python objects besides weights, which are never run" in refusal(folder)
    assert not (folder / "harmed").exists()


def cut(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def replaced_by(name, content=b"x"):
    def change(folder):
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(content)

    return change


def without_shard(folder):
    names = list(load_file(folder / WEIGHTS))
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    weight_map = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def renamed_weights(folder):
    state = {f"another.{name}": weight for name, weight in load_file(folder / WEIGHTS).items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def in_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text()) | changes
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
BROKEN = {
    "half a file": (cut, "backbone.path=DIR has a damaged or incomplete safetensors file"),
    "pickle cut": (replaced_by("pytorch_model.bin", b""), "has a pytorch_model.bin that is damaged"),
    "pointer": (lambda folder: (folder / WEIGHTS).write_bytes(POINTER), f"{WEIGHTS} is a Git LFS pointer"),
    "vocabulary's pointer": (
        lambda folder: (folder / "tokenizer.json").write_bytes(POINTER),
        "tokenizer.json is a Git",
    ),
    "a missing shard": (without_shard, "model-00002-of-00002.safetensors"),
    "a shard without index": (
        lambda folder: (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors"),
        "has model-00001-of-00002.safetensors without model.safetensors.index.json",
    ),
    "none": (lambda folder: (folder / WEIGHTS).unlink(), "has no weights (model.safetensors or pytorch_model.bin)"),
    "TensorFlow": (replaced_by("tf_model.h5"), "has TensorFlow weights alone (tf_model.h5)"),
    "GGUF": (replaced_by("model-q4.gguf"), "has GGUF weights alone (model-q4.gguf)"),
    "no model_type": (in_config(model_type=None), "Should have a `model_type` key"),
    "other sizes": (in_config(vocab_size=70), "has weights of other sizes than its config.json states"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "DIR has no config.json: give the folder"),
    "config no JSON": (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON file"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), "cannot be read"),
    "other names": (renamed_weights, "100 % of the weights of bert are not in its files"),
    "remote code": (
        in_config(model_type="new", auto_map={"AutoConfig": "a.B", "AutoModel": "c.D"}),
        "backbone.path=DIR needs Python code of its own: type backbone.trust_remote_code=true",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_one_line(folder, name):
    change, said = BROKEN[name]
    change(folder)
    assert said in refusal(folder)


def test_a_path_that_is_no_folder_is_one_line(folder, tmp_path):
    assert refusal(folder / "nowhere").startswith("backbone.path=DIR is not a folder: give")
    assert "is not a folder" in refusal(folder / WEIGHTS)


def test_a_layer_that_is_not_in_the_files_is_warned_of(compose, folder):
    state = {name: weight for name, weight in load_file(folder / WEIGHTS).items() if "layer.1.output.dense" not in name}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (said,) = lay_foundation(compose("task=sst2", "backbone=bert_base", f"backbone.path={folder}")).warnings
    assert "2 of the weights of" in said
    assert "start at random: encoder.layer.1.output.dense.bias, encoder.layer.1.output.dense.weight" in said


def test_a_tokenizer_of_another_model_is_warned_of_if_smaller_and_refused_if_larger(compose, tmp_path):
    typed = ["task=sst2", "backbone=gpt2", f"backbone.path={tmp_path}"]
    shutil.copy(SHIPPED / "tiny_gpt" / "tokenizer.json", tmp_path)
    for n_rows in (2500, 1500):
        sizes = GPT2Config(vocab_size=n_rows, n_embd=32, n_layer=1, n_head=2, n_positions=40)
        GPT2LMHeadModel(sizes).save_pretrained(tmp_path)
        if n_rows == 2500:
            (said,) = lay_foundation(compose(*typed)).warnings
            assert "check that they are of the same model" in said
    with pytest.raises(InputError, match=r"has 200\d tokens and its model 1500 embeddings"):
        lay_foundation(compose(*typed))


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_model):
    """A GPT-2's folder, to which adapters are added."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model(AutoModelForCausalLM, "gpt2", vocab_size=2000).save_pretrained(folder)
    shutil.copy(SHIPPED / "tiny_gpt" / "tokenizer.json", folder)
    return folder


def adapt(base, folder, config, on_full=True):
    """Save an adapter with random weights around a base's model, and return its states for some tokens."""
    from peft import get_peft_model

    full = AutoModelForCausalLM.from_pretrained(base)
    wrapped = get_peft_model(full if on_full else full.base_model, config).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
        out = wrapped(input_ids=torch.tensor([[3, 4, 5]]), output_hidden_states=True)
    wrapped.save_pretrained(folder)
    return out.hidden_states[-1]


@pytest.mark.parametrize("on_full", [True, False])
@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_an_adapters_folder_is_its_base_with_the_adapter_merged(base, tmp_path, method, on_full):
    from peft import IA3Config, LoraConfig

    config = (
        LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
        if method == "lora"
        else IA3Config(target_modules=["c_attn"], feedforward_modules=[])
    )
    states = adapt(base, tmp_path, config, on_full)
    config = BackboneConfig(name="own", hub="h", path=str(tmp_path), family="causal")
    assert len(load_tokenizer(config)) >= 2000
    loaded = load_backbone(config)
    with torch.no_grad():
        merged = loaded.base.eval()(input_ids=torch.tensor([[3, 4, 5]])).last_hidden_state
        plain = load_backbone(backbone(base, family="causal")).base.eval()(input_ids=torch.tensor([[3, 4, 5]]))
    assert torch.allclose(merged, states, atol=1e-5)
    assert not torch.allclose(merged, plain.last_hidden_state, atol=1e-2)
    assert not any("lora" in name for name, _ in loaded.full.named_parameters())


def test_an_adapter_that_cannot_be_merged_is_one_line(base, tmp_path):
    from peft import LoraConfig, PrefixTuningConfig

    adapt(base, tmp_path / "prefix", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    assert "an adapter of prefix tuning adds to the input" in refusal(tmp_path / "prefix", family="causal")
    adapt(base, tmp_path / "lora", LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    for changes, said in (
        ({"target_modules": ["nowhere"]}, "the adapter does not fit its base model"),
        ({"r": 3}, "the adapter does not fit its base model"),
        ({"base_model_name_or_path": None}, "does not name the adapter's base model"),
    ):
        (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings | changes))
        assert said in refusal(tmp_path / "lora", family="causal")


def test_the_adapter_of_a_run_is_started_from_by_init_from(base, tmp_path):
    from peft import LoraConfig

    adapt(base, tmp_path / "run" / "model", LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    (tmp_path / "run" / "model" / "head.safetensors").write_bytes(b"x")
    said = refusal(tmp_path / "run" / "model", family="causal")
    assert said.endswith(f"is the adapter of a run: start from that run by init_from={tmp_path / 'run'}")
