"""Attention as a picture: what is drawn is the model's, causal or not, and which positions carry a target."""

import numpy as np
import pytest

from heads.errors import InputError
from trainers.config import BackboneConfig
from trainers.launch import SHIPPED
from trainers.reports.attention import attention_of, attention_plot, targets_plot

TEXT = "The plot was thin, but the cast was good."
FAMILIES = {"tiny_gpt": "causal", "tiny_bert": "bidirectional"}


def shipped(name):
    return BackboneConfig(name=name, hub=str(SHIPPED / name), family="bidirectional", weights="random")


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_sum_to_one_and_a_causal_backbone_looks_back_alone(name):
    found = attention_of(shipped(name), TEXT, layer=1)
    n = len(found.tokens)
    assert found.weights_HTT.shape[1:] == (n, n)
    np.testing.assert_allclose(found.weights_HTT.sum(-1), 1, atol=1e-5)
    assert found.family == FAMILIES[name]
    plot = attention_plot(found)
    assert len(plot.rows) == found.weights_HTT.size
    assert plot.rows[1]["weight"] == float(found.weights_HTT[0, 0, 1])


def test_every_token_but_the_first_or_15_percent_carry_a_target():
    rows = targets_plot([f"t{i}" for i in range(20)]).rows
    shares = {name: [row["target"] for row in rows if row["objective"] == name] for name in ("causal LM", "masked LM")}
    assert shares["causal LM"] == [False] + 19 * [True]
    assert sum(shares["masked LM"]) == 3


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(InputError, match=r"^layer=9: tiny_gpt has layers 1 to \d+ \(-1 is the last\)$"):
        attention_of(shipped("tiny_gpt"), TEXT, layer=9)
    with pytest.raises(InputError, match=r"has no attention to show: name a Transformer$"):
        attention_of(shipped("tiny_lstm"), TEXT, layer=-1)
    with pytest.raises(InputError, match=r"^text has \d+ tokens for tiny_gpt: a picture takes 2 to 40$"):
        attention_of(shipped("tiny_gpt"), TEXT * 20, layer=-1)
