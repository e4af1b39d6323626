"""The models that ship pretrained: small, whole, and opened by their names."""

import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import trainers.backbones.lstm  # noqa: F401  lets the Auto classes open mini_lstm
from trainers.launch import SHIPPED

TEXT = "she opened the door, and looked at him for a long time without saying a word."


@pytest.mark.parametrize(
    ("name", "auto"),
    [("mini_gpt", AutoModelForCausalLM), ("mini_lstm", AutoModelForCausalLM), ("mini_bert", AutoModelForMaskedLM)],
)
def test_a_model_opens_and_has_learned_the_language(name, auto):
    folder = SHIPPED / name
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10_000_000
    assert "| held-out perplexity |" in (folder / "README.md").read_text()
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == model.config.vocab_size == AutoConfig.from_pretrained(folder).vocab_size
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        if auto is AutoModelForMaskedLM:
            places = torch.arange(1, ids.shape[1] - 1)  # each word masked in its turn
            masked = ids.repeat(len(places), 1)
            masked[torch.arange(len(places)), places] = tokenizer.mask_token_id
            logits, targets = model(input_ids=masked).logits[torch.arange(len(places)), places], ids[0, places]
        else:
            logits, targets = model(input_ids=ids).logits[0, :-1], ids[0, 1:]
    assert torch.nn.functional.cross_entropy(logits, targets).item() < 0.6 * math.log(model.config.vocab_size)
