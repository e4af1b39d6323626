"""Cross-validation: each row is held out once, folds are alike, and a report has one line for all of them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf

from heads.errors import InputError
from trainers.config import FinetuneConfig
from trainers.data.folds import fold_of_rows
from trainers.data.records import load_records
from trainers.launch import register
from trainers.metrics import macro_f1
from trainers.overrides import check_overrides
from trainers.reports.differences import cell_scores
from trainers.reports.report import gather
from trainers.results import write_result
from trainers.runs import plain
from trainers.studies.cells import group
from trainers.studies.found_runs import find_runs

pytestmark = pytest.mark.usefixtures("own_cache")


def held_out(compose, *settings, folds):
    """The validation rows of each fold, and the train rows of each fold."""
    configs = [compose(*settings, "backbone=tiny", f"data.folds={folds}", f"data.fold={i}") for i in range(folds)]
    each = [load_records(config.task, config.data).splits for config in configs]
    return [splits["validation"] for splits in each], [splits["train"] for splits in each]


def test_each_row_is_held_out_once_and_classes_have_the_same_share(compose, tmp_path, write_rows):
    rows = [{"text": f"text {i}", "label": "rare" if i % 6 == 0 else "common"} for i in range(31)]
    held, train = held_out(
        compose, "task=single", f"data.files.train={write_rows(tmp_path / 'a.jsonl', rows)}", folds=5
    )
    assert Counter(text for part in held for text in part["text"]) == Counter(row["text"] for row in rows)
    assert sorted(len(part) for part in held) == [6, 6, 6, 6, 7]
    assert {Counter(part["label"])["rare"] for part in held} <= {1, 2}
    for one, other in zip(held, train, strict=True):
        assert not {*one["text"]} & {*other["text"]}
        assert len(one) + len(other) == 31


def test_a_class_of_a_single_row_is_a_class_in_each_fold(compose, tmp_path, write_rows):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(11)] + [{"text": "x", "label": "single"}]
    settings = ("task=single", "backbone=tiny", f"data.files.train={write_rows(tmp_path / 'a.jsonl', rows)}")
    for fold in range(3):
        config = compose(*settings, "data.folds=3", f"data.fold={fold}")
        classes = load_records(config.task, config.data).classes
        assert classes is not None
        assert classes.labels == ["a", "b", "single"]


def test_scores_have_the_same_spread_in_each_fold(compose, tmp_path, write_rows):
    rows = [{"text1": f"text {i}", "text2": "b", "label": float(i * i)} for i in range(40)]
    file = write_rows(tmp_path / "a.jsonl", rows)
    held, _ = held_out(compose, "task=regression", "task.score_range=auto", f"data.files.train={file}", folds=4)
    for part in held:  # one of each four neighbours
        assert sorted(int(score**0.5 + 0.5) // 4 for score in part["label"]) == list(range(10))


def test_other_seeds_make_other_folds_and_the_same_seed_the_same():
    strata = np.repeat([0, 1], [30, 10])
    assert np.array_equal(fold_of_rows(strata, 5, seed=0), fold_of_rows(strata, 5, seed=0))
    assert not np.array_equal(fold_of_rows(strata, 5, seed=0), fold_of_rows(strata, 5, seed=1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.fold=1"], r"^data.fold is one of 0 .. data.folds - 1, got data.fold=1 and data.folds=None$"),
        (["data.folds=3", "data.fold=3"], r"^data.fold is one of 0 .. data.folds - 1, got data.fold=3"),
        (["data.folds=1"], r"^data.folds is at least 2, got 1$"),
        (["data.folds=3"], r"^data.folds=3 is 3 runs of recipes/finetune.py: start that, or name one of the folds"),
        (["data.folds=9", "data.fold=0"], r"^data.folds=9: single has 8 row\(s\), which are fewer than the folds$"),
        (
            ["data.folds=3", "data.fold=0", "data.files.validation={file}"],
            r"single has the split validation in files: leave out data.files.validation$",
        ),
    ],
)
def test_folds_that_cannot_be_cut(compose, tmp_path, settings, said, write_rows):
    file = write_rows(tmp_path / "a.jsonl", [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(8)])
    typed = [one.format(file=file) for one in settings]

    def read():
        config = compose("task=single", "backbone=tiny", f"data.files.train={file}", *typed)
        load_records(config.task, config.data)

    with pytest.raises(InputError, match=said):
        read()


def test_the_study_composes_and_its_rows_choose_no_epoch():
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from trainers.overrides import CONF

    typed = ["task=single", "backbone=tiny", "+study=folds", "data.folds=3"]
    check_overrides(typed, "finetune", FinetuneConfig, multirun=True)
    register("finetune", FinetuneConfig)
    assert not GlobalHydra.instance().is_initialized()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        found = hydra.compose("finetune", overrides=typed, return_hydra_config=True)
    assert found.hydra.sweeper.params == {"data.fold": "0,1,2"}
    assert found.train.select == "last"


# reports

TRUE = {0: "aabb", 1: "aab", 2: "abb"}  # the labels of each fold's rows


def write_fold(write_rows, root, config, fold, seed, predicted):
    folder = root / f"fold{fold}_seed{seed}"
    folder.mkdir(parents=True)
    config = replace(config, seed=seed, data=replace(config.data, folds=3, fold=fold), run_dir=str(folder))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain(config))))
    lines = [
        {"split": "validation", "index": i, "guid": f"validation-{i}", "label": label, "prediction": guess}
        for i, (label, guess) in enumerate(zip(TRUE[fold], predicted, strict=True))
    ]
    write_rows(folder / "predictions.jsonl", lines)
    right = np.mean([line["label"] == line["prediction"] for line in lines])
    result = {"finetune": {"validation": {"accuracy": right, "macro_f1": right}}, "data": {"labels": ["a", "b"]}}
    primary = {"split": "validation", "metric": "macro_f1", "value": right}
    write_result(folder, result | {"primary": primary, "zero_shot": {}, "degenerate": False})


def test_folds_and_seeds_are_one_cell_whose_score_is_of_all_rows(compose, tmp_path, write_rows):
    config = compose("task=single", "backbone=tiny")
    config = replace(config, task=replace(config.task, primary="macro_f1"))
    predicted = {0: ["aabb", "aab", "aab"], 1: ["abbb", "bab", "bbb"]}
    for seed, of_fold in predicted.items():
        for fold, each in enumerate(of_fold):
            write_fold(write_rows, tmp_path, config, fold, seed, each)
    [cell] = group(find_runs(tmp_path).runs)
    assert (cell.seeds, cell.folds, cell.missing_folds, len(cell.runs)) == ((0, 1), 3, 0, 6)
    scored = cell.scored("validation", "macro_f1")
    true = [*"aabbaababb"]
    expected = [macro_f1(*(np.unique(list(one), return_inverse=True)[1] for one in (each, true)))
                for each in ("".join(of_fold) for of_fold in predicted.values())]  # fmt: skip
    np.testing.assert_allclose(scored.whole_S, expected)
    assert scored.n_examples == 10

    [row] = cell_scores(find_runs(tmp_path).runs, {})
    assert row.mean == pytest.approx(np.mean(expected))
    assert row.interval.over == "seeds and examples"
    [table] = [table for table in gather(tmp_path, {}).tables if table.name == "scores"]
    assert (table.rows[0]["seeds"], table.rows[0]["folds"]) == (2, 3)
    assert any("a seed's score is of all rows together" in note for note in table.notes)


def test_one_seed_has_an_interval_over_all_rows_and_a_missing_fold_is_said(compose, tmp_path, write_rows):
    config = compose("task=single", "backbone=tiny")
    config = replace(config, task=replace(config.task, primary="macro_f1"))
    for fold, each in enumerate(["aabb", "bab"]):
        write_fold(write_rows, tmp_path, config, fold, 0, each)
    [row] = cell_scores(find_runs(tmp_path).runs, {})
    assert (row.interval.over, row.cell.scored("validation", "accuracy").n_examples) == ("examples", 7)
    [table] = [table for table in gather(tmp_path, {}).tables if table.name == "scores"]
    assert any(
        note.startswith("Warning: folds without a finished run") and note.endswith("(1).") for note in table.notes
    )
