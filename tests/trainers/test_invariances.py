"""What changes the speed of a run changes none of its numbers; a model of eight examples learns them."""

import json

import numpy as np
import pytest

from trainers.build import lay_foundation
from trainers.data.encode import encode_records
from trainers.data.records import load_records
from trainers.finetune import finetune

STILL = ("backbone.dropout=0", "head.clf_pdrop=0")  # so that runs with other random streams can be compared
QUICK = ("task=rte", "data=sample", "optim.lr=1e-3", "train.epochs=2", "train.batch_size=10")


@pytest.fixture
def run(compose, tmp_path):
    """A function that fine-tunes in this process and returns the result, the log's lines and the predictions' lines."""

    def one(name, *overrides):
        folder = tmp_path / name
        result = finetune(compose(*overrides, f"run_dir={folder}"))
        lines = [read(folder / name) for name in ("log.jsonl", "predictions.jsonl")]
        return result, *lines

    return one


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def losses(log):
    return [line["train/loss"] for line in log if "train/loss" in line]


def probabilities(predictions):
    return np.array([list(line["probabilities"].values()) for line in predictions])


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(run):
    first, second = run("a", *QUICK, "backbone=tiny"), run("b", *QUICK, "backbone=tiny")
    assert first[1] == second[1]
    assert first[2] == second[2]
    assert losses(run("c", *QUICK, "backbone=tiny", "seed=1")[1]) != losses(first[1])


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
@pytest.mark.parametrize("change", ["train.micro_batch_size=4", "train.eval_tokens=100", "train.checkpoint_every=1"])
def test_speed_settings_leave_the_numbers_alone(run, backbone, change):
    # 32 examples in batches of 10: the last update has 2, and 4 does not divide 10
    plain, changed = (run(c.split("=")[0], *QUICK, *STILL, f"backbone={backbone}", c) for c in ("seed=0", change))
    assert len(losses(plain[1])) == 8
    np.testing.assert_allclose(losses(changed[1]), losses(plain[1]), rtol=2e-5)
    np.testing.assert_allclose(probabilities(changed[2]), probabilities(plain[2]), atol=2e-5)
    assert changed[0]["finetune"] == plain[0]["finetune"]


def test_train_rows_are_scored_where_asked_for_and_change_no_number(run):
    plain, scored = (
        run("plain", *QUICK, "backbone=tiny"),
        run("scored", *QUICK, "backbone=tiny", "train.eval_train_rows=12"),
    )
    assert losses(scored[1]) == losses(plain[1])
    assert scored[2] == plain[2]  # the predictions, which are of the held-out rows alone
    found = scored[0]["finetune"].pop("train")
    assert scored[0]["finetune"] == plain[0]["finetune"]
    assert scored[0]["data"] == plain[0]["data"]
    kept = [line for line in scored[1] if line.get("epoch") == scored[0]["train"]["kept_epoch"] - 1]
    assert found == {"accuracy": kept[-1]["train/accuracy"]}
    assert found["accuracy"] * 12 == pytest.approx(round(found["accuracy"] * 12))


@pytest.mark.parametrize("n", [5, 1000])
def test_a_sample_of_a_split_is_seeded_and_in_order(compose, n):
    config = compose("task=rte", "data=sample", "backbone=tiny")
    records = load_records(config.task, config.data)
    train = encode_records(records, config.task, lay_foundation(config).encoder(config)).splits["train"]
    first, again, other = (train.sample(n, seed) for seed in (0, 0, 1))
    names = [[name for name, _ in split.named()] for split in (train, first, again, other)]
    assert names[1] == names[2]
    assert (names[1] != names[3]) == (n == 5)
    places = [names[0].index(name) for name in names[1]]
    assert places == sorted(set(places))
    assert len(first) == min(n, len(train))
    assert first.lengths.tolist() == train.lengths[places].tolist()
    assert first.labels_N.tolist() == train.labels_N[places].tolist()
    assert [row.encoded for row in first.rows([(0, 1.0)])] == [row.encoded for row in train.rows([(places[0], 1.0)])]
    assert train.sample(0, 0) is None


CHOICE = ("data=sample", "backbone=tiny", "optim.lr=1e-3", "train.epochs=2", "train.batch_size=12", *STILL)


@pytest.mark.parametrize("task", ["race_middle", "story_cloze", "copa"])
def test_a_row_that_candidates_share_leaves_the_numbers_alone(run, task):
    settings = (f"task={task}", *CHOICE, "train.group_by_length=true")
    shared, separate = (run(one, *settings, f"train.candidates={one}") for one in ("shared", "separate"))
    np.testing.assert_allclose(losses(shared[1]), losses(separate[1]), rtol=2e-5)
    np.testing.assert_allclose(probabilities(shared[2]), probabilities(separate[2]), atol=2e-5)
    assert shared[0]["finetune"] == separate[0]["finetune"]
    lm_losses = [[line["train/lm_loss"] for line in log if "train/lm_loss" in line] for _, log, _ in (shared, separate)]
    np.testing.assert_allclose(*lm_losses, rtol=2e-5)
    rates = [one[0]["train"]["tokens_per_second"] * one[0]["train"]["seconds"] for one in (shared, separate)]
    assert rates[0] < 0.8 * rates[1]  # tokens that were computed
    assert [one[0]["train"]["shared_rows"] for one in (shared, separate)] == [True, False]


@pytest.mark.parametrize("change", ["train.micro_batch_size=5", "train.eval_tokens=100", "train.candidates=separate"])
def test_multiple_choice_is_split_exactly_too(run, change):
    story = ("task=story_cloze", *CHOICE)
    plain, split = run("plain", *story), run("split", *story, change)
    np.testing.assert_allclose(losses(split[1]), losses(plain[1]), rtol=2e-5)
    np.testing.assert_allclose(probabilities(split[2]), probabilities(plain[2]), atol=2e-5)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_numbers(run, out_of_memory):
    plain = run("plain", *QUICK, *STILL, "backbone=tiny")
    out_of_memory(3)
    halved = run("halved", *QUICK, *STILL, "backbone=tiny")
    assert halved[0]["train"]["micro_batch_size"] == 3
    assert plain[0]["train"]["micro_batch_size"] == 10
    np.testing.assert_allclose(losses(halved[1]), losses(plain[1]), rtol=2e-5)


def test_the_first_update_has_learning_rate_zero(run):
    """Both papers' schedules start at 0 (opt.py; transformers' linear warm-up)."""
    log = run("a", *QUICK, "backbone=tiny")[1]
    rates = [line["train/lr"] for line in log if "train/lr" in line]
    assert rates[0] == 0
    assert all(rate > 0 for rate in rates[1:])


@pytest.mark.parametrize(
    ("task", "backbone"),
    [(task, "tiny") for task in ("sst2", "rte", "mrpc", "story_cloze", "stsb")]
    + [("rte", "tiny_bert"), ("stsb", "tiny_bert"), ("rte", "tiny_lstm")],
)
def test_eight_examples_are_learned(run, task, backbone):
    result, log, _ = run(
        "a", f"task={task}", "data=sample", f"backbone={backbone}", "data.train_rows=8",
        "data.eval_rows=2", "train.epochs=40", "optim.lr=3e-3",
        "optim.schedule=constant", "optim.warmup=0.01", "objective.lm_coef=0", "train.select=last", *STILL,
    )  # fmt: skip
    final = [line["train/task_loss"] for line in log if "train/task_loss" in line][-1]
    assert final < (0.4 if task == "stsb" else 0.05)  # a constant score is at 2.5
    assert result["train"]["steps"] == 40
