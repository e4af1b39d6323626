"""Studies: many cells by one command, skipped where they are finished, told where they fail."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

from heads.errors import InputError
from trainers.config import SEEDS, FinetuneConfig, PretrainConfig
from trainers.config.run_name import run_name
from trainers.finetune import finetune
from trainers.finished import changed_since
from trainers.launch import register
from trainers.overrides import CONF, check_overrides
from trainers.runs import differences, open_folder, plain, read_settings
from trainers.studies.params import peft_methods

ROOT = Path(__file__).parents[2]
STUDIES = sorted(file.stem for file in (CONF / "study").glob("*.yaml"))
CELL = ("task=sst2", "data=sample", "backbone=tiny", "zero_shot=none", "train.max_steps=3")


def command(folder, *overrides, recipe="finetune", cell=CELL, **environment):
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / f"{recipe}.py"), *overrides, *cell],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def results(folder):
    return {file.parent.name: file for file in folder.glob("outputs/finetune/sst2/tiny/*/result.json")}


def table(folder, study, name):
    text = (folder / "outputs" / "studies" / study / "report" / name).read_text()
    return list(csv.DictReader(io.StringIO(text)))


def numbers(file):
    found = json.loads(file.read_text())
    return found["finetune"], (file.parent / "predictions.jsonl").read_text()


def test_a_study_skips_what_is_finished_and_tells_what_failed(tmp_path):
    first = command(tmp_path, "-m", "+study=table5", "seed=1", "ablation=none,lstm", "optim.lr=1e-3,-1")
    assert first.returncode == 1
    assert "2 finished, 2 failed (outputs/studies/table5)" in first.stdout or "2 failed, 2 finished" in first.stdout
    assert first.stderr.count("failed: ") == 2
    assert "optim.lr is a learning rate, above 0, got -1.0" in first.stderr
    scores = (tmp_path / "outputs/studies/table5/report/tables/scores.csv").read_text()
    assert "sst2,tiny,lstm," in scores
    before = {name: file.stat().st_mtime_ns for name, file in results(tmp_path).items()}
    assert len(before) == 2

    second = command(tmp_path, "-m", "+study=table5", "seed=1", "ablation=none,lstm,no_pretraining", "optim.lr=1e-3")
    assert second.returncode == 0, second.stderr  # what failed before is no longer asked for
    assert "3 finished (outputs/studies/table5)" in second.stdout
    assert second.stdout.count("finished before: ") == 2
    after = {name: file.stat().st_mtime_ns for name, file in results(tmp_path).items()}
    assert len(after) == 3
    assert before.items() <= after.items()

    third = command(tmp_path, "-m", "+study=table5", "seed=1", "ablation=lstm", "optim.lr=1e-3")
    assert "1 finished (outputs/studies/table5)" in third.stdout  # the report is on what is asked for now
    assert len(table(tmp_path, "table5", "tables/scores.csv")) == 1

    alone = command(tmp_path / "alone", "seed=1", "ablation=no_pretraining", "optim.lr=1e-3")
    assert alone.returncode == 0, alone.stderr
    ((name, file),) = results(tmp_path / "alone").items()
    assert numbers(file) == numbers(results(tmp_path)[name])  # whether a process did other cells before or not


@pytest.mark.parametrize("rank", ["0", "1"])
def test_one_of_several_processes_ends_where_a_cell_fails(tmp_path, rank):
    """It would be in the next cell while another still waits for it in this one."""
    done = command(tmp_path, "-m", "optim.lr=-1,-2", RANK=rank, WORLD_SIZE="2")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "optim.lr is a learning rate, above 0" in line]
    assert [line.split("got")[0] + line[-4:] for line in said] == [
        f"{'' if rank == '0' else 'process 1: '}error: optim.lr is a learning rate, above 0, -1.0"
    ]
    records = [json.loads(file.read_text()) for file in tmp_path.glob("outputs/multirun/finetune/cells/*.json")]
    assert [one["overrides"][0] for one in records] == ["optim.lr=-1"] * (rank == "0")


def test_a_grid_over_weights_has_a_folder_for_each_and_shows_no_other_s_numbers(tmp_path, pretrained):
    other = shutil.copytree(pretrained, tmp_path / "other" / pretrained.name)  # called the same
    grid = command(tmp_path, "-m", f"backbone.path=choice({pretrained},{other})", "seed=1")
    assert grid.returncode == 0, grid.stderr
    assert "2 finished (outputs/multirun/finetune)" in grid.stdout
    found = {OmegaConf.load(file.parent / "config.yaml").backbone.path for file in results(tmp_path).values()}
    assert found == {str(pretrained), str(other)}

    for path, n_runs in ((pretrained, 3), (other, 4)):
        alone = command(tmp_path, "-m", f"backbone.path={path}", "seed=1,2")
        assert alone.returncode == 0, alone.stderr
        assert alone.stdout.count("finished before: ") == 1  # the grid's run of seed 1
        assert len(results(tmp_path)) == n_runs


def test_a_finished_run_that_is_another_is_told_and_not_taken_for_the_cell(compose, tmp_path, monkeypatch):
    for split in ("train", "validation"):
        shutil.copy(ROOT / f"trainers/data/sample/sst2/{split}.jsonl", tmp_path)
    files = [f"data.files.{name}={tmp_path / name}.jsonl" for name in ("train", "validation")]
    one = ("task=sst2", "backbone=tiny", "train.max_steps=1", *files, f"run_dir={tmp_path / 'run'}")
    finetune(compose(*one))

    def changed(*overrides):
        return changed_since(tmp_path / "run", compose(*one, *overrides))

    assert changed() == changed("train.eval_tokens=99") == []
    assert changed("seed=3") == ["seed was 0, is 3"]
    assert changed("train.eval_train_rows=4") == ["it has no scores of train rows (train.eval_train_rows=4)"]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert changed() == ["mixed_precision was no, is accelerate's bf16"]
    assert changed("mixed_precision=no") == []
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert changed() == []  # on another machine, say, that is best at another
    (tmp_path / "train.jsonl").touch()
    assert changed() == []
    with (tmp_path / "train.jsonl").open("a") as rows:
        rows.write((tmp_path / "validation.jsonl").read_text().splitlines()[0] + "\n")
    assert changed() == ["data.files.train has changed since"]
    done = command(tmp_path, "-m", *one, "zero_shot=none", cell=())
    assert done.returncode == 1
    assert (
        "holds a finished run that is another (data.files.train has changed since): type overwrite=true" in done.stderr
    )


def test_train_rows_that_a_finished_run_has_scored_are_enough(compose, tmp_path):
    one = ("task=sst2", "data=sample", "backbone=tiny", "train.max_steps=1", f"run_dir={tmp_path}")
    finetune(compose(*one, "train.eval_train_rows=4"))
    assert changed_since(tmp_path, compose(*one, "train.eval_train_rows=4")) == []
    assert changed_since(tmp_path, compose(*one)) == []


def test_a_layer_transfer_study_has_a_cell_for_each_number_of_blocks(tmp_path):
    done = command(tmp_path, "-m", "+study=layer_transfer", "seed=1")
    assert done.returncode == 0, done.stderr
    kept = {OmegaConf.load(file.parent / "config.yaml").n_transfer for file in results(tmp_path).values()}
    assert kept == {-1, 0, 1, 2}
    points = table(tmp_path, "layer_transfer", "plots/sst2_transfer.csv")
    found = {
        str(OmegaConf.load(file.parent / "config.yaml").n_transfer): json.loads(file.read_text())["finetune"]
        for file in results(tmp_path).values()
    }
    assert [(point["n_transfer"], float(point["train"]), float(point["mean"])) for point in points] == [
        (n, found[n]["train"]["accuracy"], found[n]["validation"]["accuracy"]) for n in ("-1", "0", "1", "2")
    ]


def test_a_study_of_seeds_tells_their_shares(tmp_path):
    done = command(tmp_path, "-m", "+study=seeds", "weight_init_seed=1,2", "data_order_seed=1,2,3", "optim.lr=1e-3")
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path)) == 6
    [row] = table(tmp_path, "seeds", "tables/scores.csv")
    assert row["seeds"] == "6"
    rows = table(tmp_path, "seeds", "tables/seed_shares.csv")
    assert [(one["source"], one["seeds"]) for one in rows] == [
        ("weight initialisation", "2"),
        ("data order, dropout", "3"),
        ("both together", "6"),
    ]
    assert sum(float(one["share"]) for one in rows) == pytest.approx(1)
    assert all(0 <= float(one["share_low"]) <= float(one["share_high"]) <= 1 for one in rows)


def test_a_study_of_peft_has_what_the_backbone_takes_and_what_it_trains(tmp_path):
    done = command(tmp_path, "-m", "+study=peft", "seed=1")
    assert done.returncode == 0, done.stderr
    rows = {row["settings"]: row for row in table(tmp_path, "peft", "tables/scores.csv")}
    assert rows.keys() == {
        "",
        "peft=lora",
        "peft=ia3",
        "n_trained=1",
        "n_trained=2",
    }  # GPT-1 has no cache
    trained = {name: int(row["trained_parameters"]) for name, row in rows.items()}
    assert trained["peft=ia3"] < trained["peft=lora"] < trained["n_trained=1"] < trained["n_trained=2"]
    assert trained["n_trained=2"] < trained[""] == int(rows[""]["parameters"])
    assert rows[""]["verdict"] == "reference"
    page = (tmp_path / "outputs" / "studies" / "peft" / "report" / "report.html").read_text()
    assert f"{trained['n_trained=1']:,} (" in page


@pytest.mark.parametrize(
    ("backbone", "methods"),
    [
        ("tiny", "none,lora,ia3,top1,top2"),
        ("tiny_bert", "none,lora,ia3,top1,top2"),
        ("tiny_lstm", "none,top1"),
        ("gpt2", "none,lora,ia3,prefix,top1,top2"),
    ],
)
def test_the_methods_that_a_backbone_takes(tiny_model, compose, tmp_path, backbone, methods):
    config = compose("task=sst2", f"backbone={backbone}").backbone
    if backbone == "gpt2":
        tiny_model(AutoModelForCausalLM, "gpt2").save_pretrained(tmp_path)
    path = str(tmp_path) if backbone == "gpt2" else None
    assert peft_methods(config.hub, path, None, False, config.family) == methods
    hub = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"nowhere\): the config cannot be read"):
        peft_methods(hub, None, None, False, "causal")


CURVE = ("corpus=sample", "data=sample", "train.n_ctx=64", "train.batch_size=4", "train.max_steps=4")


def test_a_zero_shot_curve_of_pretraining_is_one_command(tmp_path):
    asked = ("-m", "+study=zero_shot_curve", "backbone=tiny,tiny_lstm", "train.epochs=1,-1")
    for n_before in (0, 2):
        done = command(tmp_path, *asked, recipe="pretrain", cell=CURVE)
        assert done.returncode == 1
        assert done.stdout.count("finished before: ") == n_before
        assert "2 finished" in done.stdout
        assert done.stderr.count("failed: ") == 2
        assert "train.epochs is at least 1, got -1" in done.stderr
    points = table(tmp_path, "zero_shot_curve", "plots/zero_shot_curve.csv")
    runs, tasks = ("tiny seed 0", "tiny_lstm seed 0"), ("sst2", "cola", "story_cloze", "race", "dpr")
    assert [(one["run"], one["step"], one["task"]) for one in points] == [
        (run, step, task) for run in runs for step in "124" for task in tasks
    ]
    assert (tmp_path / "outputs/studies/zero_shot_curve/report/plots/zero_shot_normalized.png").is_file()
    assert {row["run"] for row in table(tmp_path, "zero_shot_curve", "tables/zero_shot.csv")} == set(runs)


def test_many_zero_shot_runs_are_skipped_told_and_reported(tmp_path):
    asked = ("-m", "task=sst2,rte", "backbone=tiny", "data=sample", "zero_shot=likelihood,fill_mask")
    for n_before in (0, 2):
        done = command(tmp_path, *asked, recipe="zero_shot", cell=())
        assert done.returncode == 1
        assert done.stdout.count("finished before: ") == n_before
        assert "2 failed" in done.stdout
        assert "2 finished" in done.stdout
        assert done.stderr.count("fill_mask needs a masked LM, and tiny is causal") == 4  # as it happens and at the end
    text = (tmp_path / "outputs/multirun/zero_shot/report/tables/scores.csv").read_text()
    rows = {row["task"]: row for row in csv.DictReader(io.StringIO(text))}
    assert rows.keys() == {"sst2", "rte"}
    assert all(0 <= float(row["zero_shot"]) <= 1 for row in rows.values())


@pytest.mark.parametrize(
    ("recipe", "stage", "asked"),
    [
        ("finetune", "finetune", ("train.n_ctx=32", "train.max_steps=1", "continuations.number=0", "seed=1,-1")),
        ("zero_shot", "zero_shot", ("n_ctx=32,99999",)),
    ],
)
def test_many_runs_on_running_text_are_skipped_told_and_listed(tmp_path, recipe, stage, asked):
    typed = ("-m", "objective=lm", "backbone=tiny", "corpus=sample", *asked)
    for n_before in (0, 1):
        done = command(tmp_path, *typed, recipe=recipe, cell=())
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert done.stdout.count("finished before: ") == n_before
        assert done.stdout.count("report: ") == 1
    page = (tmp_path / f"outputs/multirun/{recipe}_lm/report/report.html").read_text()
    [file] = tmp_path.glob(f"outputs/{recipe}/lm/tiny/*/result.json")
    assert f"<td>{recipe}_lm</td>" in page
    assert f"{json.loads(file.read_text())['primary']['value']:.4f}" in page
    assert f'"python recipes/{recipe}.py objective=lm backbone=tiny corpus=sample' in page


def test_a_study_warns_of_runs_that_learned_nothing(tmp_path):
    done = command(
        tmp_path, "-m", "+study=lm_coef", "seed=1,3", "objective.lm_coef=0", "optim.lr=1e-9", "data.eval_rows=60"
    )
    assert done.returncode == 0, done.stderr
    degenerate = [name for name, file in results(tmp_path).items() if json.loads(file.read_text())["degenerate"]]
    assert len(degenerate) == 2
    [row] = table(tmp_path, "lm_coef", "tables/scores.csv")
    assert row["degenerate"] == "2"
    warning = "Warning: 2 of 2 runs learned nothing (degenerate), and count in every mean: sst2, tiny (seed 1; 3)."
    assert warning in done.stderr
    report = tmp_path / "outputs" / "studies" / "lm_coef" / "report"
    assert f'<p class="note warning">{warning}</p>' in (report / "report.html").read_text()


def test_studies_were_found():
    assert set(STUDIES) >= {"layer_transfer", "table5", "lm_coef", "seeds", "peft", "zero_shot_curve"}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_varies_settings_that_exist(study):
    file = OmegaConf.load(CONF / "study" / f"{study}.yaml")
    assert file.hydra.sweep.dir == f"outputs/studies/{study}"
    recipe, schema, usual = (
        ("pretrain", PretrainConfig, []) if study == "zero_shot_curve" else ("finetune", FinetuneConfig, ["task=sst2"])
    )
    register(recipe, schema)
    params = {key: str(file.hydra.sweeper.params._get_node(key)._value()) for key in file.hydra.sweeper.params}
    typed = [f"{key}={value}" for key, value in params.items() if "${" not in value]
    check_overrides([*usual, f"+study={study}", *typed], recipe, schema, multirun=True)
    assert params.keys() & {*SEEDS, "backbone", "data.fold"}
    words = (CONF / "study" / f"{study}.yaml").read_text()
    assert f"recipes/{recipe}.py -m +study={study} " in words
    assert f"recipes/{recipe}.py -m +study={study} " in (ROOT / "README.md").read_text()


def test_a_study_is_several_runs():
    with pytest.raises(InputError, match=r"^\+study=table5 is several runs: add -m$"):
        check_overrides(["task=sst2", "+study=table5"], "finetune", FinetuneConfig)
    with pytest.raises(InputError, match=r"^study=tabel5: there is no conf/study/tabel5.yaml. Did you mean 'table5'"):
        check_overrides(["task=sst2", "+study=tabel5"], "finetune", FinetuneConfig, multirun=True)


def test_a_study_that_follows_from_its_backbone_has_one():
    for study in ("layer_transfer", "peft"):
        for several in ("backbone=tiny,tiny_lstm", "backbone.path=choice(a,b)"):
            with pytest.raises(InputError, match=rf"^\+study={study} varies .*: give one backbone at a time$"):
                check_overrides(["task=sst2", f"+study={study}", several], "finetune", FinetuneConfig, multirun=True)
        check_overrides(["task=sst2", f"+study={study}", "backbone=tiny"], "finetune", FinetuneConfig, multirun=True)
    many = ["task=sst2", "+study=table5", "backbone=tiny,tiny_lstm"]
    check_overrides(many, "finetune", FinetuneConfig, multirun=True)


def test_a_study_of_another_recipe():
    said = (
        r"^\+study=table5 is of another recipe: conf/pretrain.yaml has no ablation; its command is in conf/study/table5"
    )
    with pytest.raises(InputError, match=said):
        check_overrides(["+study=table5"], "pretrain", PretrainConfig, multirun=True)
    with pytest.raises(
        InputError, match=r"^\+study=zero_shot_curve is of another recipe: conf/finetune.yaml has no curve"
    ):
        check_overrides(["task=sst2", "+study=zero_shot_curve"], "finetune", FinetuneConfig, multirun=True)


def test_a_study_and_a_command_find_the_same_folder():
    typed = ["task=sst2", "+study=table5", "ablation=none", "seed=1", "optim.lr=1e-3"]
    assert run_name(1, typed) == run_name(1, ["task=sst2", "seed=1", "optim.lr=1e-3"])


def test_a_run_of_a_version_that_knew_fewer_settings_is_the_same_run(tmp_path, compose):
    config = compose("task=sst2", "backbone=tiny", f"run_dir={tmp_path}")
    with open_folder(tmp_path, config):
        pass
    file = tmp_path / "config.yaml"
    older = OmegaConf.load(file)
    del older.train.candidates, older.backbone.lstm
    OmegaConf.save(older, file)
    assert not differences(read_settings(file, FinetuneConfig), plain(config))
    older.optim.lr = 0.5
    OmegaConf.save(older, file)
    assert differences(read_settings(file, FinetuneConfig), plain(config)) == {"optim.lr": (0.5, config.optim.lr)}
