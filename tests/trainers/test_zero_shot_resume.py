"""A zero-shot evaluation that was interrupted: finished parts are not scored again, and the numbers are the same."""

import json
from dataclasses import replace

import pytest

from trainers.config import PromptConfig, PromptsConfig
from trainers.finetune import finetune
from trainers.zero_shot import answers
from trainers.zero_shot.parts import PARTS
from trainers.zero_shot.run import zero_shot

TIMES = ("seconds", "examples_per_second")
PROMPTS = [PromptConfig("{sentence} {answer}"), PromptConfig("Review: {sentence} Sentiment: {answer}")]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("trainers.statistics.intervals.N_RESAMPLES", 30)


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupt(monkeypatch):
    """Counts passes over a list of prompts; after a number of them, the next one is interrupted."""
    score_items, state = answers.score_items, {"passes": 0, "stop": None}

    def counted(*args, **more):
        if state["passes"] == state["stop"]:
            raise Interrupted
        state["passes"] += 1
        return score_items(*args, **more)

    monkeypatch.setattr(answers, "score_items", counted)

    def after(n):
        state.update(passes=0, stop=n)
        return state

    return after


def settings(compose, folder, *typed, limit=20, prompts=PROMPTS):
    config = compose("data=sample", "backbone=tiny", f"run_dir={folder}", f"zero_shot.limit={limit}", *typed)
    prompts = PromptsConfig(version=1, source="a test", likelihood=prompts)
    return replace(config, task=replace(config.task, prompts=prompts))


def without_times(result):
    return {key: value for key, value in result["zero_shot"].items() if key not in TIMES}


def predictions(folder):
    return (folder / "zero_shot_predictions.jsonl").read_text()


def test_finished_templates_are_kept_and_the_numbers_are_those_of_an_unbroken_run(compose, tmp_path, interrupt, capsys):
    typed = ["task=sst2", "zero_shot=likelihood", "zero_shot.splits=[validation,train]"]
    state = interrupt(None)
    whole = zero_shot(settings(compose, tmp_path / "whole", *typed))
    n_passes = state["passes"]  # each template on each split, one of them without its texts as well
    assert n_passes == 6
    state = interrupt(3)
    with pytest.raises(Interrupted):
        zero_shot(settings(compose, tmp_path / "broken", *typed))
    assert len(list((tmp_path / "broken" / PARTS).iterdir())) == 2
    state = interrupt(None)
    capsys.readouterr()
    again = zero_shot(settings(compose, tmp_path / "broken", *typed))
    assert state["passes"] == n_passes - 3
    assert capsys.readouterr().out.count("20 examples were scored before.") == 2
    assert without_times(again) == without_times(whole)
    assert predictions(tmp_path / "broken") == predictions(tmp_path / "whole")
    assert again["zero_shot"]["seconds"] > 0
    assert not (tmp_path / "broken" / PARTS).exists()


def test_a_part_of_other_settings_is_not_used(compose, tmp_path, interrupt):
    typed = ["task=sst2", "zero_shot=likelihood"]
    interrupt(2)
    with pytest.raises(Interrupted):
        zero_shot(settings(compose, tmp_path / "run", *typed))
    changed = [PromptConfig("{sentence} So: {answer}"), PROMPTS[1]]
    for more in ({"limit": 19}, {"prompts": changed}):
        state = interrupt(None)
        zero_shot(settings(compose, tmp_path / "run", *typed, "overwrite=true", **more))
        assert state["passes"] > 2


def test_fine_tuning_resumes_inside_its_zero_shot_stage(compose, tmp_path, interrupt):
    typed = ["task=sst2", "zero_shot=likelihood", "train.max_steps=1", "data.train_rows=16", "data.eval_rows=20"]
    interrupt(None)
    whole = finetune(settings(compose, tmp_path / "whole", *typed))
    interrupt(1)
    with pytest.raises(Interrupted):
        finetune(settings(compose, tmp_path / "broken", *typed))
    state = interrupt(None)
    again = finetune(settings(compose, tmp_path / "broken", *typed))
    assert state["passes"] == 2
    assert without_times(again) == without_times(whole)
    assert again["finetune"] == whole["finetune"]
    assert not (tmp_path / "broken" / PARTS).exists()


def test_a_threshold_is_kept_too(compose, tmp_path, interrupt):
    def config(name):
        typed = ["task=cola", "data=sample", "backbone=tiny", "zero_shot=heuristic", "zero_shot.limit=20"]
        return compose(*typed, f"run_dir={tmp_path / name}")

    interrupt(None)
    whole = zero_shot(config("whole"))
    interrupt(1)
    with pytest.raises(Interrupted):
        zero_shot(config("broken"))
    (part,) = (tmp_path / "broken" / PARTS).iterdir()
    assert set(json.loads(part.read_text())) == {"scores", "n_cut", "layouts", "seconds"}
    state = interrupt(None)
    assert without_times(zero_shot(config("broken"))) == without_times(whole)
    assert state["passes"] == 1
