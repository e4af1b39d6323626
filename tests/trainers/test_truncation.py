"""data.truncation reaches training, prediction and prompts; the default is unchanged."""

import json

import numpy as np
import pytest
from datasets import Dataset

from heads.errors import InputError
from heads.example import Example
from heads.prompts import Template
from trainers.backbones.load import load_tokenizer
from trainers.build import lay_foundation
from trainers.data.prompts import Prompter
from trainers.data.tokenizers import encode_texts
from trainers.finetune import finetune
from trainers.predict import Predictor

WORDS = [f"{a}{b}" for a in ("good", "bad", "slow", "fine") for b in ("film", "song", "play", "book", "city")]
LONG = " ".join(WORDS)


def test_the_default_keeps_the_head(compose):
    typed = ["task=sst2", "backbone=tiny", "head.n_ctx=16"]
    assert lay_foundation(compose(*typed)).layout == lay_foundation(compose(*typed, "data.truncation=head")).layout
    with pytest.raises(InputError, match=r"data\.truncation names the truncation 'middle', which does not exist"):
        compose(*typed, "data.truncation=middle")


@pytest.mark.parametrize(("truncation", "kept"), [("tail", slice(-14, None)), ("head", slice(14))])
def test_a_run_trains_and_predicts_on_the_tokens_that_are_kept(compose, tmp_path, truncation, kept):
    rows = [{"text": f"{LONG} {i}", "label": i % 2} for i in range(8)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    files = [f"data.files.{split}={tmp_path / split}.jsonl" for split in ("train", "validation")]
    typed = ["task=single", *files, "backbone=tiny", "head.n_ctx=16", "train.max_steps=1", "train.batch_size=4"]
    config = compose(*typed, f"data.truncation={truncation}", f"run_dir={tmp_path / 'run'}")
    result = finetune(config)
    assert result["data"]["cut_examples"] == {"train": 8, "validation": 8}
    predictor = Predictor(tmp_path / "run", 8192)
    encode = predictor.foundation.encoder(predictor.config)
    (encoded,) = encode([Example("new", (LONG,))])
    (ids,) = encode_texts(predictor.foundation.tokenizer, [LONG])
    assert encoded.branches[0][1:-1] == ids[kept]
    again = predictor(Dataset.from_list(rows), "validation").probabilities
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(again, [list(line["probabilities"].values()) for line in lines], atol=2e-6)


@pytest.mark.parametrize(
    ("truncation", "first", "last"), [("head", True, False), ("tail", False, True), ("both", True, True)]
)
def test_a_prompt_keeps_the_same_end_of_its_longest_text(compose, truncation, first, last):
    tokenizer = load_tokenizer(compose("task=sst2", "backbone=tiny").backbone)
    template = Template("{text} It was{answer}")
    prompter = Prompter(tokenizer, 40, template, ["text"], [" good", " bad"], truncation=truncation)
    (prompted,) = prompter.causal([Example("new", (LONG,))])
    assert prompted.cut
    shown = tokenizer.decode(prompted.candidates.prefix).replace(" ", "")
    assert ("goodfilm" in shown) == first
    assert ("finecity" in shown) == last
