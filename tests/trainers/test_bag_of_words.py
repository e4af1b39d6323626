"""The bag-of-words baseline: its numbers by hand, the rows that it is scored on, its cache, and what has none."""

import numpy as np
import pytest

from heads.errors import InputError
from trainers import bag_of_words as module
from trainers.finetune import finetune

pytestmark = pytest.mark.usefixtures("own_cache")

QUICK = ("backbone=tiny", "train.max_steps=1", "train.batch_size=8")
WORDS = {"sport": "the match was won by the home team", "art": "the painting hangs in a quiet gallery"}


def sentences(n, wrong=0):
    """Texts whose words tell their label, of the first of which the label is the other one."""
    names = ["sport", "art"]
    return [
        {"text": f"{WORDS[names[i % 2]]} {i}", "label": names[(i + (i < wrong)) % 2]} for i in range(n)
    ]  # fmt: skip


def test_it_is_scored_on_the_rows_and_metrics_of_the_model(compose, tmp_path, write_rows):
    files = {"train": sentences(20), "validation": [*sentences(8, wrong=2), {"text": "no label"}]}
    files["test"] = [{"text": each["text"]} for each in sentences(4)]
    given = [f"data.files.{name}={write_rows(tmp_path / f'{name}.jsonl', rows)}" for name, rows in files.items()]
    config = compose("task=single", *given, *QUICK, "train.eval_train_rows=6", f"run_dir={tmp_path / 'run'}")
    baselines = finetune(config)["baselines"]
    assert baselines["validation"]["accuracy"] == {"majority": 0.5, "chance": 0.5, "bag_of_words": 0.75}
    assert set(baselines["validation"]) == {"accuracy", "macro_f1"}
    assert baselines["train"]["accuracy"]["bag_of_words"] == 1.0
    assert set(baselines) == {"train", "validation"}, "the test rows have no labels"


def test_the_order_of_a_pair_matters_unless_it_is_symmetric(compose, tmp_path, write_rows):
    """Whether the second text is about the same things as the first: no word tells, only what both have."""
    things = ["tree", "river", "stone", "cloud", "garden", "window", "letter", "bridge", "candle", "mirror"]
    rows = [
        {"text1": f"a {one} here", "text2": f"the {other}", "label": "same" if one == other else "other"}
        for i, one in enumerate(things)
        for other in (one, things[(i + 1) % 10], one, things[(i + 3) % 10])
    ]
    file = write_rows(tmp_path / "pairs.jsonl", rows)
    for task in ("pair", "similarity"):
        config = compose(
            f"task={task}", f"data.files.train={file}", f"data.files.validation={file}", *QUICK,
            f"run_dir={tmp_path / task}",
        )  # fmt: skip
        assert finetune(config)["baselines"]["validation"]["accuracy"]["bag_of_words"] == 1.0


def test_scores_on_any_scale_have_the_same_correlation(compose, tmp_path, write_rows):
    rng, found = np.random.default_rng(0), []
    grades = ["bad", "poor", "fair", "good", "fine"]
    drawn = [(int(rng.integers(5)), int(rng.integers(1000))) for _ in range(60)]
    for scale in (1, 20):
        rows = [
            {"text1": f"it is {grades[g]}", "text2": f"said number {n}", "label": scale * (g + 1)} for g, n in drawn
        ]
        train, validation = (write_rows(tmp_path / f"{scale}{i}.jsonl", rows[i::2]) for i in range(2))
        config = compose(
            "task=regression", f"data.files.train={train}", f"data.files.validation={validation}", *QUICK,
            f"task.score_range=[{scale},{5 * scale}]", f"run_dir={tmp_path / str(scale)}",
        )  # fmt: skip
        found.append(finetune(config)["baselines"]["validation"]["pearson"]["bag_of_words"])
    assert found[0] > 0.95
    assert found[1] == pytest.approx(found[0], abs=1e-4)


@pytest.mark.parametrize(
    "settings", [("task=choice",), ("task=single", "baselines=none")], ids=["multiple choice", "none"]
)
def test_what_has_no_bag_of_words(compose, tmp_path, settings):
    result = finetune(compose(*settings, "data=sample", *QUICK, f"run_dir={tmp_path / 'run'}"))
    assert result["baselines"]["validation"]["accuracy"].keys() == {"majority", "chance"}


def test_more_rows_than_take_seconds_have_none(compose, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_TRAIN_ROWS", 5)
    result = finetune(compose("task=single", "data=sample", *QUICK, f"run_dir={tmp_path / 'run'}"))
    assert "bag_of_words" not in result["baselines"]["validation"]["accuracy"]


def test_it_is_fitted_once_for_each_content(compose, tmp_path, monkeypatch, write_rows):
    fitted, fit = [], module._fit
    monkeypatch.setattr(module, "_fit", lambda *args: fitted.append(1) or fit(*args))
    file = tmp_path / "train.jsonl"

    def run(name, *more):
        config = compose("task=single", f"data.files.train={file}", *QUICK, *more, f"run_dir={tmp_path / name}")
        return finetune(config)["baselines"]["validation"]["accuracy"]["bag_of_words"]

    write_rows(file, sentences(40))
    first = run("a")
    assert run("b", "seed=1", "optim.lr=1e-3") == first
    assert len(fitted) == 1
    run("c", "data.split_seed=1")  # other rows are held out
    write_rows(file, sentences(60, wrong=30))
    run("d")
    assert len(fitted) == 3


def test_texts_without_spaces_have_a_token_for_each_character():
    import re

    assert re.findall(module.TOKEN, "我喜欢 the film, 100%!") == ["我", "喜", "欢", "the", "film", ",", "100", "%", "!"]


def test_one_class_in_train_is_predicted_for_all(compose):
    task = compose("task=single", "data=sample", "backbone=tiny").task
    predict = module._fit([module.Text("a", ""), module.Text("b", "")], np.array([1, 1]), task)
    assert predict([module.Text("c", "")] * 3).tolist() == [1, 1, 1]


def test_another_choice_is_named(compose):
    with pytest.raises(
        InputError, match=r"baselines names the choice 'tfidf', which does not exist\..* Known: auto, none"
    ):
        compose("task=single", "data=sample", "backbone=tiny", "baselines=tfidf")
