"""Numbers that no run can use are refused before anything is read, and the message names the setting."""

import pytest

from heads.errors import InputError
from trainers.config.need import check_finite

TINY = ("task=rte", "backbone=tiny")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "+objective.class_weights.entailment=-5",
            r"objective.class_weights.entailment is a weight, at least 0, got -5",
        ),
        (
            "+objective.class_weights.entailment=nan",
            r"objective.class_weights.entailment is a weight, at least 0, got nan",
        ),
        (
            "+objective.class_weights.entailment=inf",
            r"objective.class_weights.entailment must be a finite number, got inf",
        ),
        ("optim.weight_decay=-0.1", r"optim.weight_decay is a rate, at least 0, got -0.1"),
        ("optim.weight_decay=nan", r"optim.weight_decay is a rate, at least 0, got nan"),
        ("optim.weight_decay=inf", r"optim.weight_decay must be a finite number, got inf"),
        ("optim.lr=nan", r"optim.lr is a learning rate, above 0, got nan"),
        ("optim.lr=inf", r"optim.lr must be a finite number, got inf"),
        ("optim.eps=-1", r"optim.eps is at least 0, got -1"),
        ("optim.max_grad_norm=inf", r"optim.max_grad_norm must be a finite number, got inf"),
        ("objective.lm_coef=-1", r"objective.lm_coef is a weight, at least 0, got -1"),
        ("objective.lm_coef=nan", r"objective.lm_coef is a weight, at least 0, got nan"),
        ("objective.lm_coef=inf", r"objective.lm_coef must be a finite number, got inf"),
        ("peft.dropout=1", r"peft.dropout is a probability, in \[0, 1\), got 1"),
        ("peft.alpha=0", r"peft.alpha scales the adapter by alpha / r, at least 1, got 0"),
        ("peft.n_virtual_tokens=0", r"peft.n_virtual_tokens is at least 1, got 0"),
        ("data.split_seed=-1", r"data.split_seed is in 0 .. 2\*\*32 - 1, got -1"),
        ("task.best_supervised=nan", r"task.best_supervised must be a finite number, got nan"),
    ],
)
def test_a_number_out_of_range(compose, typed, message):
    with pytest.raises(InputError, match=f"^{message}"):
        compose(*TINY, typed)


def test_a_class_weight_of_zero_leaves_a_class_out_and_not_all_of_them(compose):
    zero = "+objective.class_weights.{}=0"
    assert compose(*TINY, zero.format("entailment")).objective.class_weights == {"entailment": 0.0}
    with pytest.raises(InputError, match="is 0 for every label, so nothing would be trained"):
        compose(*TINY, zero.format("entailment"), zero.format("not_entailment"))


@pytest.mark.parametrize(
    ("task", "typed"), [("rte", "objective.loss=soft_f1"), ("stsb", "objective.loss=mse"), ("stsb", "seed=0")]
)
def test_class_weights_that_a_loss_would_ignore(compose, task, typed):
    with pytest.raises(InputError, match="would ignore them: leave them out"):
        compose(f"task={task}", "backbone=tiny", typed, "+objective.class_weights.a=2")


def test_the_check_walks_through_nested_settings():
    with pytest.raises(InputError, match=r"^optim.betas.b must be a finite number, got nan"):
        check_finite({"optim": {"betas": {"a": 0.9, "b": float("nan")}}})
