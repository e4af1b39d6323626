"""torch.compile, as `accelerate launch --dynamo_backend` asks for it: the same weights saved, the same predictions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf
from safetensors.numpy import load_file

from trainers.config import FinetuneConfig, LmConfig, PretrainConfig
from trainers.finetune import finetune
from trainers.finetune_lm import finetune_lm
from trainers.launch import SAMPLE, register
from trainers.overrides import CONF
from trainers.pretrain import pretrain

pytestmark = pytest.mark.slow

TEXT = ("train.n_ctx=32", "train.batch_size=2", "train.max_steps=1")
CORPUS = ("objective=lm", f"corpus.files=[{SAMPLE / 'corpus' / 'train.txt'}]", "continuations.number=0")
RTE = ("task=rte", "data=sample", "zero_shot=none", "backbone=tiny_bert",
       "backbone.dropout=0", "head.clf_pdrop=0")  # fmt: skip  # torch's own dropout is compiled, which draws otherwise
ONE_UPDATE = ("optim.lr=3e-3", "optim.warmup=0", "train.max_steps=1", "train.select=last")
RUNS = {
    "task": ("finetune", FinetuneConfig, finetune, (*RTE, *ONE_UPDATE)),
    "pretrained": ("pretrain", PretrainConfig, pretrain, ("corpus=sample", "backbone=tiny", *TEXT)),
    "text": ("finetune_lm", LmConfig, finetune_lm, (*CORPUS, "backbone=tiny", *TEXT)),
}


def run_all(folder):
    for name, (entry, schema, function, overrides) in RUNS.items():
        register(entry, schema)
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            composed = hydra.compose(entry, overrides=[*overrides, f"run_dir={folder / name}"])
        function(OmegaConf.to_object(composed))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """All runs in this process, and in one whose models are compiled."""
    plain, compiled = (tmp_path_factory.mktemp(name) for name in ("plain", "compiled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        run_all(plain)
        environment = os.environ | {"ACCELERATE_DYNAMO_BACKEND": "eager", "PYTHONPATH": str(CONF.parent)}
        done = subprocess.run(
            [sys.executable, __file__, compiled], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    return plain, compiled


@pytest.mark.parametrize("name", RUNS)
def test_a_compiled_run_saves_the_weights_of_a_plain_one(folders, name):
    plain, compiled = (folder / name / "model" for folder in folders)
    files = sorted(file.name for file in plain.glob("*.safetensors"))
    assert files == sorted(file.name for file in compiled.glob("*.safetensors"))
    assert files
    for file in files:
        ours, theirs = load_file(compiled / file), load_file(plain / file)
        assert ours.keys() == theirs.keys()
        for key, weight in theirs.items():
            np.testing.assert_allclose(ours[key], weight, atol=1e-5)


def test_a_compiled_run_predicts_what_a_plain_one_does(folders):
    found = []
    for folder in folders:
        lines = (folder / "task" / "predictions.jsonl").read_text().splitlines()
        found.append([list(json.loads(line)["probabilities"].values()) for line in lines])
    np.testing.assert_allclose(*found, atol=1e-5)


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
