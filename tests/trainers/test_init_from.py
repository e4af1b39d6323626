"""A run that starts from a run with an adapter starts with the adapter merged, and predicts the same."""

import json

import numpy as np
import pytest

from heads.errors import InputError
from trainers.finetune import finetune
from trainers.saving import load_model

pytestmark = pytest.mark.usefixtures("own_cache")

SMALL = ("task=rte", "data=sample", "data.train_rows=16", "data.eval_rows=16", "train.batch_size=8")
STILL = "train.max_steps=1"  # the first update has learning rate 0


def predicted(folder):
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return np.array([list(line["probabilities"].values()) for line in lines])


@pytest.mark.parametrize(
    ("backbone", "peft"),
    [("tiny", "lora"), ("tiny", "dora"), ("tiny", "ia3"), ("tiny", "ln_tuning"), ("tiny_bert", "lora")],
)
def test_an_adapter_is_merged(compose, tmp_path, backbone, peft):
    first, second = tmp_path / "first", tmp_path / "second"
    typed = (*SMALL, f"backbone={backbone}", "train.max_steps=4", "optim.lr=2e-2")
    finetune(compose(*typed, f"peft={peft}", f"run_dir={first}"))
    result = finetune(compose(*SMALL, f"backbone={backbone}", STILL, f"init_from={first}", f"run_dir={second}"))
    assert result["chain"] == [{"run": str(first), "task": "rte", "head": "kept"}]
    np.testing.assert_allclose(predicted(second), predicted(first), atol=1e-5)
    assert not any("lora" in name for name, _ in load_model(second)[0].named_parameters())


def test_adapters_are_merged_one_after_the_other(compose, tmp_path):
    typed = (*SMALL, "backbone=tiny", "peft=lora")
    finetune(compose(*typed, "train.max_steps=4", "optim.lr=2e-2", f"run_dir={tmp_path / '0'}"))
    for n in (1, 2):
        finetune(compose(*typed, STILL, f"init_from={tmp_path / str(n - 1)}", f"run_dir={tmp_path / str(n)}"))
    np.testing.assert_allclose(predicted(tmp_path / "2"), predicted(tmp_path / "0"), atol=1e-5)


def test_a_prefix_cannot_be_merged(compose, pretrained, tmp_path):
    run = tmp_path / "run"
    typed = compose(*SMALL, "backbone=tiny", f"run_dir={run}")
    finetune(typed)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("method: none\n  r: 8", "method: prefix\n  r: 8"))
    with pytest.raises(InputError, match=r"^init_from=.*run: that run kept a prefix, which cannot be merged"):
        finetune(compose(*SMALL, "backbone=tiny", f"init_from={run}", f"run_dir={tmp_path / 'next'}"))
