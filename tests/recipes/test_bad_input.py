# ruff: noqa: E501 - one case a line
"""Bad input gets one line that says what, where and what to type instead, and exit code 2."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "trainers" / "data" / "sample"
TINY = ("task=rte", "data=sample", "backbone=tiny", "train.max_steps=2")


def main_of(recipe):
    spec = importlib.util.spec_from_file_location(f"recipe_{recipe}", ROOT / "recipes" / f"{recipe}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run a recipe in this process, in an empty folder; returns its exit code and what it wrote to stderr."""
    monkeypatch.chdir(tmp_path)
    on_interrupt = signal.getsignal(signal.SIGINT)

    def run(*arguments, recipe="finetune"):
        monkeypatch.setattr(sys, "argv", [recipe, *arguments])
        try:
            main_of(recipe)()
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    yield run
    signal.signal(signal.SIGINT, on_interrupt)


def complaint(outcome):
    """The one line of a refusal, after progress bars."""
    code, written = outcome
    assert code == 2, written
    assert "Traceback" not in written
    last = [line for line in written.replace("\r", "\n").split("\n") if line.strip()][-1]
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


COMMAND_LINE = {
    "no task": ([], r"^task is missing: type task=NAME, with one of ax, boolq, cb"),
    "unknown task": (["task=mnlii"], r"no conf/task/mnlii.yaml. Did you mean 'mnli'\? Known: ax, "),
    "unknown backbone": (["task=rte", "backbone=bert"], r"no conf/backbone/bert.yaml. Did you mean"),
    "unknown key": (["task=rte", "optim.lrr=1"], r"^optim.lrr does not exist. Did you mean 'optim.lr'\?"),
    "unknown group": (["task=rte", "optimizer=gpt1"], r"^optimizer does not exist. Did you mean 'optim'\?"),
    "key below a value": (["task=rte", "seed.x=1"], r"^seed.x: seed is a single value and has no 'x'$"),
    "not a number": (["task=rte", "optim.lr=fast"], r"^optim.lr: Value 'fast' of type 'str' could not be converted"),
    "sweep without -m": (["task=rte", "seed=0,1"], r"^seed=0,1 asks for several runs: add -m to run them all$"),
    "metric of classes": (
        ["task=regression", "task.metrics=[accuracy]", "task.primary=accuracy"], r"metric accuracy does not go with scores",
    ),
    "half a range": (["task=stsb", "task.score_range=[0]"], r"task.score_range is \[least, greatest\] or auto, got \[0\]"),
    "beta": (["task=rte", "optim.beta1=2"], r"^optim.beta1 and beta2 are in \[0, 1\), got 2.0, 0.999$"),
    "tracking mode": (["task=rte", "tracking=wandb", "tracking.mode=bogus"], r"^tracking.mode names the mode 'bogus'"),
    "broken syntax": (["task=rte", "optim.lr=[1"], r"^the command line cannot be read: "),
    "umlaut without quotes": (["task=single", "task.label=Prüfung"], r"needs quotes within the shell's: "),
    "warm-up in updates": (["task=rte", "optim.warmup=2000"], r"share of all updates, in \[0, 1\), got 2000.0: .*divide"),
    "negative rate": (["task=rte", "optim.lr=-1"], r"^optim.lr is a learning rate, above 0, got -1.0$"),
    "no epochs": (["task=rte", "train.epochs=0"], r"^train.epochs is at least 1, got 0$"),
    "unknown structure": (
        ["task=rte", "task.structure=entialment"],
        r"conf/task/rte.yaml names the structure 'entialment', which does not exist. Did you mean 'entailment'\?",
    ),
    "unknown metric": (["task=rte", "task.metrics=[acc]", "task.primary=acc"], r"names the metric 'acc'.*accuracy"),
    "primary not a metric": (["task=rte", "task.primary=f1"], r"task.primary 'f1' is not among task.metrics \(accuracy\)"),
    "label twice": (["task=rte", "task.labels=[a,a]"], r"task.labels has a name twice"),
    "texts for the structure": (["task=sst2", "task.texts=[a,b]"], r"reads 1 text column\(s\), got task.texts=\['a', 'b'\]"),
    "cls on a causal backbone": (["task=rte", "head=cls"], r"^head=cls reads the first token.*use head=gpt1$"),
    "LM loss on BERT": (
        ["task=rte", "backbone=minilm", "objective.lm_coef=0.5"],
        r"needs a causal backbone, and minilm is bidirectional: set objective.lm_coef=0$",
    ),
    "candidates of no choice": (
        ["task=rte", "train.candidates=shared"],
        r"^train.candidates=shared needs a causal backbone and a multiple-choice task, and gpt1 is causal, rte entailment: use",
    ),
    "unknown layout": (["task=race", "train.candidates=tree"], r"^train.candidates names the layout 'tree', which does not"),
    "mse on classes": (["task=rte", "objective.loss=mse"], r"needs scores, and rte has classes: use cross_entropy"),
    "classes on scores": (["task=stsb", "objective.loss=cross_entropy"], r"needs classes, and stsb has scores: use mse"),
    "unknown loss": (["task=rte", "objective.loss=focal"], r"names the loss 'focal', which does not exist"),
    "transfer out of range": (["task=rte", "n_transfer=-2"], r"^n_transfer is -1 \(nothing\), 0 \(embeddings\)"),
    "transfer and reinit": (["task=rte", "n_transfer=1", "n_reinit=1"], r"both say which blocks start anew: give one$"),
    "adapter and transfer": (["task=rte", "peft=lora", "n_transfer=1"], r"leave out n_transfer, n_reinit, n_frozen and n_trained$"),
    "frozen twice": (["task=rte", "n_trained=1", "n_frozen=1"], r"^n_trained \(from the top\) and n_frozen .* give one$"),
    "no head": (["task=rte", "n_trained=-1"], r"^n_trained is at least 0, got -1$"),
    "prefix on BERT": (["task=rte", "peft=prefix", "backbone=minilm"], r"^peft=prefix needs a causal backbone"),
    "two sources": (["task=rte", "data=sample", "data.root=x"], r"data.sample and data.root both say where"),
    "no train file": (["task=single", "data.files.validation=x.csv"], r"go with data.files.train: give that too$"),
    "fraction": (["task=rte", "data.validation_fraction=1.5"], r"share of train, in \(0, 1\), got 1.5"),
    "zero-shot": (["task=rte", "zero_shot=chatty"], r"^zero_shot=chatty: there is no conf/zero_shot/chatty.yaml. Did you mean 'chat'\?"),
    "precision": (["task=rte", "mixed_precision=fp8"], r"names the precision 'fp8'.*Known: no, bf16, fp16"),
    "soft F1 in parts": (
        ["task=rte", "objective.loss=soft_f1", "train.micro_batch_size=4"],
        r"ratio of sums over a whole update: leave train.micro_batch_size out$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMAND_LINE)
def test_a_mistake_on_the_command_line(command, case):

    arguments, expected = COMMAND_LINE[case]
    said = complaint(command(*arguments))
    assert re.search(expected, said), said
    assert not Path("outputs").exists(), "something was made before the mistake was found"


DATA = {
    "no such file": ("missing.csv", None, [], r"^data.files.train=missing.csv: there is no such file$"),
    "unknown ending": ("rows.doc", "x", [], r"the ending is not one of .csv, .tsv, .jsonl, .ndjson, .json, .parquet, .xlsx \(or"),
    "empty file": ("rows.csv", "", [], r"^data.files.train=rows.csv: the file is empty$"),
    "header only": ("rows.csv", "text,label\n", [], r"rows.csv.* (has no rows|cannot be read)"),
    "missing column": (
        "rows.csv", "txt,label\na,x\nb,y\n", [],
        r"the train split has no column 'text'. Did you mean 'txt'\? It has: txt, label \(task.texts names the column\)$",
    ),
    "missing label column": ("rows.csv", "text,lable\na,x\nb,y\n", [], r"no column 'label'. Did you mean 'lable'\?"),
    "unknown label": (
        "rows.csv", "text,label\na,good\nb,baad\n", ["task.labels=[good,bad]", "data.files.validation=rows.csv"],
        r"^line 3 of rows.csv has the label 'baad', which the task does not know. Did you mean 'bad'\? Known: good, bad",
    ),
    "one class": ("rows.csv", "text,label\na,x\nb,x\nc,x\n", [], r"holds 1 distinct labels in the train file"),
    "no text": (
        "rows.csv", "text,label\na,x\n,y\n", ["data.files.validation=rows.csv", "data.on_empty=error"],
        r"^line 3 of rows.csv has no text: fill it in",
    ),
    "nothing labelled": (
        "rows.csv", "text,label\na,\nb,\n", ["task.labels=[x,y]", "data.files.validation=rows.csv"],
        r"^no train row of single has a label \(column 'label'\)$",
    ),
    "broken JSON": ("rows.jsonl", '{"text": "a", "label"\n', [], r"^data.files.train=rows.jsonl: line 1 is not JSON \("),
    "unknown class weight": (
        "rows.csv", "text,label\na,x\nb,y\nc,x\nd,y\n", ["objective.class_weights={z:2}"],
        r"^objective.class_weights names the label 'z', which does not exist. Known: x, y$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA)
def test_a_mistake_in_the_data(command, case):

    name, text, more, expected = DATA[case]
    if text is not None:
        Path(name).write_text(text)
    said = complaint(command("task=single", f"data.files.train={name}", "backbone=tiny", *more))
    assert re.search(expected, said), said


def test_a_score_out_of_range(command):
    Path("rows.csv").write_text("text1,text2,label\na,b,3\nc,d,7.5\n")
    said = complaint(
        command(
            "task=regression", "task.score_range=[0,5]", "data.files.train=rows.csv",
            "data.files.validation=rows.csv", "backbone=tiny",
        )
    )  # fmt: skip
    assert said.startswith("line 3 of rows.csv has the label 7.5, outside task.score_range=[0, 5]")


def test_a_bare_number_beside_candidates_in_columns(command):
    """It could be counted from 0 or from 1."""
    Path("rows.csv").write_text("context,choice1,choice2,choice3,choice4,label\na,b,c,d,e,1\nf,g,h,i,j,2\n")
    said = complaint(
        command("task=choice", "data.files.train=rows.csv", "data.files.validation=rows.csv", "backbone=tiny")
    )
    assert said.startswith("column 'label' holds the numbers 1, 2, and there are 4 choices: they may count from 0 or")
    assert "task.label_values=from_zero or task.label_values=from_one" in said


def test_a_fraction_that_leaves_nothing(command):
    Path("rows.csv").write_text("text,label\n" + "a,x\nb,y\n" * 5)
    said = complaint(
        command("task=single", "data.files.train=rows.csv", "data.validation_fraction=0.99", "backbone=tiny")
    )
    assert said.endswith("data.validation_fraction=0.99 of them leaves none to train on")


def test_too_many_choices_for_the_context(command):
    long = " ".join(["word"] * 60)
    row = {"context": "a", "choice1": long, "choice2": "b", "choice3": "c", "choice4": "d", "label": "choice2"}
    Path("rows.jsonl").write_text((json.dumps(row) + "\n") * 2)
    said = complaint(command("task=choice", "data.files.train=rows.jsonl", "backbone=tiny", "head.n_ctx=32"))
    assert "neither may be cut: raise head.n_ctx or shorten the longest choice" in said


BACKBONE = {
    "too many blocks": (["n_transfer=9"], r"^n_transfer=9, and tiny has 2 blocks: give at most 2$"),
    "too many frozen": (["n_frozen=3"], r"^n_frozen=3, and tiny has 2 blocks"),
    "too many trained": (["n_trained=3"], r"^n_trained=3, and tiny has 2 blocks: give at most 2$"),
    "context too long": (["head.n_ctx=9999"], r"^head.n_ctx=9999, and tiny has positions for 512 tokens: give at most 512$"),
    "no folder": (["backbone.path=nowhere", "backbone.weights=pretrained"], r"^backbone.path=nowhere is not a folder: give the folder"),
    "no cache": (["backbone=bert_large"], r"^backbone bert_large \(google-bert/bert-large-uncased\): the tokenizer cannot be "
                 r"read .*check the network, or give its folder by backbone.path=DIR$"),
    "no module": (["peft=lora", "peft.target_modules=[nothing]"], r"^peft=lora does not fit openai-gpt as it is: name its modules by peft.target_modules"),
    "prefix without cache": (["peft=prefix"], r"the backbone's cache, and openai-gpt has none: use peft=lora or peft=ia3$"),
    "start from nothing": (["init_from=nowhere"], r"^nowhere holds no finished run"),
    "attention": (["backbone.attention=bogus"], r"^backbone tiny \(.*\): the model cannot be read"),
    "unknown tracker": (["tracking.trackers=[mlflow]"], r"names 'mlflow': wandb and tensorboard are known$"),
}  # fmt: skip


@pytest.mark.parametrize("case", BACKBONE)
def test_a_mistake_about_the_backbone(command, case):

    arguments, expected = BACKBONE[case]
    said = complaint(command(*TINY, *arguments))
    assert re.search(expected, said), said


def test_no_network_and_no_cache(command):
    said = complaint(command("task=cola", "backbone=tiny"))
    assert said.startswith("nyu-mll/glue cannot be read from the hub or its cache")
    assert said.endswith("check the network, or give data.root=DIR (a mirror), data.files.train=FILE or data=sample")


def test_a_mirror_without_the_data_set(command, tmp_path):
    said = complaint(command("task=cola", "backbone=tiny", f"data.root={tmp_path}"))
    assert "the folder is laid out as the hub is, OWNER/NAME" in said


def test_finished_and_unfinished_folders(command):
    assert command(*TINY, "run_dir=run")[0] == 0
    said = complaint(command(*TINY, "run_dir=run"))
    assert said.startswith("run holds a finished run: type overwrite=true")
    before = Path("run/result.json").read_bytes()
    assert command(*TINY, "run_dir=run", "overwrite=true")[0] == 0
    assert Path("run.old1/result.json").read_bytes() == before, "a finished run was lost"
    Path("run/result.json").unlink()
    Path("run/checkpoint-1").mkdir()
    said = complaint(command(*TINY, "run_dir=run", "optim.lr=1"))
    assert "run holds an unfinished run with other settings (optim.lr was 6.25e-05, is 1.0)" in said
    said = complaint(command("run=run", "input=-", recipe="predict"))
    assert said.startswith("run holds no finished run (no result.json)")


def test_a_mistake_leaves_no_folder_in_the_way(command):
    """A run that stopped before its first checkpoint may be typed again with other settings."""
    complaint(command(*TINY, "run_dir=run", "n_transfer=9"))
    assert command(*TINY, "run_dir=run", "n_transfer=1")[0] == 0


def test_a_broken_checkpoint(command, monkeypatch):
    from trainers import checkpoints

    def stop(*_):
        raise KeyboardInterrupt

    asked = (*TINY, "train.max_steps=3", "train.checkpoint_every=2", "run_dir=run")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_last", stop)
        assert command(*asked)[0] == 130
    weights = Path("run/checkpoint-2/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    said = complaint(command(*asked))
    assert said.startswith("run/checkpoint-2 is broken (model.safetensors is missing or not as it was written): delete")


def test_a_loss_that_is_not_finite_stops_the_run(command):
    said = complaint(command(*TINY, "optim.lr=1e30", "train.max_steps=20", "train.batch_size=4", "run_dir=run"))
    assert " at learning rate 1.0" in said or " at learning rate 9." in said, said
    assert said.endswith("lower optim.lr, lengthen optim.warmup or use mixed_precision=no")
    assert not Path("run/result.json").exists()


PREDICT = {
    "nothing": ([], r"^give run=DIR with input=FILE \(or -\), or glue=FILE.zip with runs=DIR$"),
    "no input": (["run=x"], r"^run=DIR goes with one of input=FILE \(- for stdin\) and split=NAME$"),
    "no run": (["run=x", "input=-"], r"^x is no run's folder: it has no config.yaml$"),
    "no GLUE runs": (["glue=a.zip", "runs=x"], r"^runs=x has no finished GLUE run for AX.tsv, CoLA.tsv"),
}


@pytest.mark.parametrize("case", PREDICT)
def test_a_mistake_when_predicting(command, case):

    arguments, expected = PREDICT[case]
    said = complaint(command(*arguments, recipe="predict"))
    assert re.search(expected, said), said


def test_the_script_itself_says_one_line_and_exits_with_2():
    asked = [sys.executable, str(ROOT / "recipes" / "finetune.py"), "task=mnli", "optim.warmup=5"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: optim.warmup is a share of all updates")
