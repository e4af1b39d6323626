"""What all tests share: an offline process that leaves the user's caches alone, composed configs, tiny backbones."""

import atexit
import json
import os
import shutil
import tempfile
from functools import cache

# Before anything imports torch, transformers or datasets, which read these once. Not in pytest's own folder for
# temporary files: it is not made yet.
CACHE = tempfile.mkdtemp(prefix="ablatune-tests-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": CACHE,
    "HF_DATASETS_CACHE": os.path.join(CACHE, "datasets"),
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "ACCELERATE_MIXED_PRECISION": "no",  # the same numbers on any hardware
}

import hydra  # noqa: E402
import pytest  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from trainers.config import FinetuneConfig  # noqa: E402
from trainers.launch import SHIPPED, register  # noqa: E402
from trainers.overrides import CONF  # noqa: E402


@cache
def _composed(overrides):
    register("finetune", FinetuneConfig)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("finetune", overrides=list(overrides))


def compose_config(*overrides):
    """The config of a command line, as recipes/finetune.py gets it; one of the caller's own each time.

    Without stage 0 unless zero_shot is among the overrides: most tests are about training.
    """
    asked = any(override.startswith("zero_shot") for override in overrides)
    return OmegaConf.to_object(_composed(overrides if asked else (*overrides, "zero_shot=none")))


@pytest.fixture(scope="session")
def compose():
    return compose_config


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder for one test alone."""
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def write_rows():
    """A function that writes rows as JSON lines, and returns the file."""

    def write(file, rows):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return write


# Two blocks, 32 wide, 60 tokens; RoBERTa's 40 positions follow its two for padding.
SIZES = {
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "bos_token_id": 0, "eos_token_id": 0},
    "llama": {"num_key_value_heads": 2, "max_position_embeddings": 40},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 40},
    "modernbert": {"max_position_embeddings": 40, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2},
    "deberta-v2": {
        "max_position_embeddings": 40,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "ablatune_lstm": {"n_units": 48, "max_position_embeddings": 40},
    "bert": {"max_position_embeddings": 40},
    "roberta": {"max_position_embeddings": 42, "type_vocab_size": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 40},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16, "num_key_value_heads": 2},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 4,
        "expert_layer_offset": 3,
        "mamba_d_state": 4,
        "num_key_value_heads": 2,
        "use_mamba_kernels": False,
    },
}
USUAL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def build_tiny(auto, model_type, seed=0, **changes):
    """A random model of an Auto class, in eval mode; every parameter is moved off its starting value.

    Norms and biases start at ones and zeros, where a test could not tell one model's from another's.
    """
    import torch
    from accelerate.utils import set_seed
    from transformers import AutoConfig

    import trainers.backbones.lstm  # noqa: F401  the Auto classes know it from here on

    usual = {} if "n_embd" in SIZES[model_type] else USUAL
    config = AutoConfig.for_model(model_type, **{"vocab_size": 60} | usual | SIZES[model_type] | changes)
    set_seed(seed)
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="session")
def tiny_model():
    return build_tiny


@pytest.fixture
def out_of_memory(monkeypatch):
    """Called with n, lets training run out of memory with more than n examples at once, as a GPU does."""

    def limit(n):
        import torch

        from trainers.model import TaskModel

        forward = TaskModel.forward

        def too_small(self, batch, lm=True):
            if self.training and len(batch.labels) > n:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return forward(self, batch, lm)

        monkeypatch.setattr(TaskModel, "forward", too_small)

    return limit


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    """A folder with a T5 of two blocks and random weights, and a tokenizer that ends a text as T5's does."""
    from accelerate.utils import set_seed
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("t5")
    backend = Tokenizer.from_file(str(SHIPPED / "tiny_bert" / "tokenizer.json"))
    end = backend.id_to_token(3)
    backend.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 3)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=backend.id_to_token(0))
    set_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": len(tokenizer)}
    config = T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=3)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """A folder with a tiny GPT-1, as transformers saves it: weights that are no run's own."""
    from accelerate.utils import set_seed

    from trainers.backbones.load import load_backbone, load_tokenizer

    folder = tmp_path_factory.mktemp("pretrained")
    config = compose_config("task=sst2", "backbone=tiny").backbone
    set_seed(7)
    load_backbone(config).full.save_pretrained(folder)
    load_tokenizer(config).save_pretrained(folder)
    return folder


@pytest.fixture
def hydra_as_it_was():
    """What a recipe's command line leaves in Hydra, which names run folders, goes with the test."""
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()
    yield
    Singleton.set_state(state)
