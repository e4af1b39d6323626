"""Zero-shot scores of real rows under real weights: the same in every layout, and the real command."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from trainers.zero_shot.run import zero_shot

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


def records(folder):
    return [json.loads(line) for line in (folder / "zero_shot_predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("task", "method"), [("race_middle", "likelihood"), ("sst2", "likelihood"), ("rte", "chat")])
def test_every_layout_gives_the_same_scores(compose, data, models, tmp_path, task, method):
    config = compose(
        f"task={task}", f"data.root={data}", "backbone=smollm2", f"backbone.path={models / SMOLLM2}",
        f"zero_shot={method}", "zero_shot.limit=6", "data.train_rows=64",
    )  # fmt: skip
    found = {}
    for layout in ("separate", "tree", "cache"):
        asked = replace(config.zero_shot, candidates=layout)
        zero_shot(replace(config, zero_shot=asked, run_dir=str(tmp_path / layout)))
        found[layout] = [list(row["scores"].values()) for row in records(tmp_path / layout)]
    for layout in ("tree", "cache"):
        np.testing.assert_allclose(found[layout], found["separate"], atol=1e-4)


def test_padding_on_the_left_gives_the_same_scores(compose, data, models, tmp_path):
    from heads.prompts import Template
    from trainers.backbones.load import load_tokenizer, n_positions
    from trainers.data.examples import read_examples
    from trainers.data.prompts import Prompter
    from trainers.data.records import load_records
    from trainers.zero_shot.method import load_scored_model
    from trainers.zero_shot.scoring import Scorer

    config = compose(
        "task=race_middle", f"data.root={data}", "backbone=smollm2", f"backbone.path={models / SMOLLM2}",
        "data.eval_rows=5", "data.train_rows=5",
    )  # fmt: skip
    task, tokenizer = config.task, load_tokenizer(config.backbone)
    rows = load_records(task, config.data).splits["validation"]
    examples = [example for _, example in read_examples("validation", rows, task, task.labels)]
    model = load_scored_model(config, Accelerator())
    template = Template(task.prompts.likelihood[0].template)
    asked = Prompter(tokenizer, n_positions(model.base_model), template, task.texts, []).causal(examples)
    items = [one.candidates for one in asked]
    expected, counts = Scorer(model, 0, layout="separate").totals(items)
    for layout in ("separate", "tree", "cache"):
        found, _ = Scorer(model, 0, layout=layout, side="left").totals(items)
        np.testing.assert_allclose(found / counts, expected / counts, atol=1e-4)


def test_the_command(data, models, tmp_path):
    asked = [sys.executable, "-m", "accelerate.commands.launch", str(ROOT / "recipes" / "zero_shot.py"), "task=sst2",
             f"data.root={data}", "backbone=smollm2", f"backbone.path={models / SMOLLM2}",
             "zero_shot.limit=40"]  # fmt: skip
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("outputs/zero_shot/sst2/smollm2/*/result.json")
    found = json.loads(file.read_text())["zero_shot"]
    assert found["method"] == "chat"  # it is an instruction-tuned model
    assert found["rows"] == {"validation": {"scored": 40, "of": 872}}
    assert "a sample of 872" in done.stdout
