"""A kill at any moment loses no update that was saved."""

import json

import pytest

from heads.errors import InputError
from trainers import checkpoints, finetune, fit, loop, tracking

RUN = ("task=rte", "data=sample", "backbone=tiny", "train.max_steps=3", "train.batch_size=8")


def stop(*_):
    raise KeyboardInterrupt


@pytest.fixture
def interrupted(compose, tmp_path, monkeypatch):
    """A run that was stopped before its last update, with a checkpoint."""
    with monkeypatch.context() as patched:
        patched.setattr(fit, "_end_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune.finetune(compose(*RUN, "train.checkpoint_every=2", f"run_dir={tmp_path}"))
    return tmp_path


def test_a_complete_checkpoint_that_has_no_name_yet_is_used(interrupted):
    """Killed between the manifest and the renaming."""
    (interrupted / "checkpoint-2").rename(interrupted / "checkpoint.partial")
    assert checkpoints.latest(interrupted) == interrupted / "checkpoint-2"


def test_an_incomplete_one_is_not(interrupted):
    (interrupted / "checkpoint-2").rename(interrupted / "checkpoint.partial")
    (interrupted / "checkpoint.partial" / "manifest.json").unlink()
    assert checkpoints.latest(interrupted) is None


def test_a_changed_file_is_noticed(interrupted):
    file = interrupted / "checkpoint-2" / "optimizer.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(
        InputError, match=r"checkpoint-2 is broken \(optimizer.bin is missing or not as it was written\)"
    ):
        checkpoints.latest(interrupted)


def test_a_typed_micro_batch_wins_over_the_saved_one(compose, interrupted):
    result = finetune.finetune(compose(*RUN, "train.micro_batch_size=3", f"run_dir={interrupted}"))
    assert result["train"]["micro_batch_size"] == 3
    assert result["train"]["steps"] == 3


OTHER_ROWS = "holds an unfinished run on other rows: give it what it began with"


def stopped(config, monkeypatch):
    """Leave a run before its first epoch ends."""
    with monkeypatch.context() as patched:
        patched.setattr(fit, "_end_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune.finetune(config)


def test_a_run_goes_on_with_the_rows_that_it_began_with(compose, tmp_path, monkeypatch):
    rows = tmp_path / "rows.csv"
    lines = [f"a film number {i},{'bad' if i % 2 else 'good'}\n" for i in range(40)]
    rows.write_text("".join(["text,label\n", *lines]))
    own = ("task=single", f"data.files.train={rows}", "backbone=tiny", "train.batch_size=8", "train.checkpoint_every=2")
    asked = (*own, "train.max_steps=3", f"run_dir={tmp_path / 'run'}")
    stopped(compose(*asked), monkeypatch)
    rows.write_text("".join(["text,label\n", *reversed(lines)]))
    with pytest.raises(InputError, match=OTHER_ROWS):
        finetune.finetune(compose(*asked))
    rows.write_text("".join(["text,label\n", *lines]))
    assert finetune.finetune(compose(*asked))["train"]["steps"] == 3


def test_a_run_goes_on_with_the_mirror_that_it_began_with(compose, tmp_path, monkeypatch):
    folder = tmp_path / "nyu-mll" / "glue"
    folder.mkdir(parents=True)
    files = [{"split": split, "path": f"{split}.jsonl"} for split in ("train", "validation", "test")]
    (folder / "README.md").write_text(
        f"---\nconfigs: {json.dumps([{'config_name': 'sst2', 'data_files': files}])}\n---\n"
    )
    rows = [json.dumps({"sentence": f"a film number {i}", "label": i % 2}) + "\n" for i in range(40)]
    for file in files:
        (folder / file["path"]).write_text("".join(rows))
    own = ("task=sst2", f"data.root={tmp_path}", "backbone=tiny", "train.batch_size=8", "train.checkpoint_every=2")
    asked = (*own, "train.max_steps=3", f"run_dir={tmp_path / 'run'}")
    stopped(compose(*asked), monkeypatch)
    (folder / "train.jsonl").write_text("".join([*rows, rows[0]]))
    with pytest.raises(InputError, match=OTHER_ROWS):
        finetune.finetune(compose(*asked))


def test_after_the_last_update_no_weights_are_saved_twice(compose, tmp_path, monkeypatch):
    """A run that is stopped there ends as one that is not."""
    whole = finetune.finetune(compose(*RUN, f"run_dir={tmp_path / 'whole'}"))
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(finetune, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune.finetune(compose(*RUN, f"run_dir={folder}"))
    assert [path.name for path in folder.glob("checkpoint*")] == ["checkpoint.json"]
    assert not (folder / "result.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(loop, "_update", stop)  # none is left to do
        result = finetune.finetune(compose(*RUN, f"run_dir={folder}"))
    for one in (whole, result):
        for key in ("seconds", "examples_per_second", "tokens_per_second"):
            del one["train"][key]
            one["zero_shot"].pop(key, None)
    assert result == whole
    assert not list(folder.glob("checkpoint*"))


def test_a_torn_last_line_of_the_log_is_dropped(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps({"step": 1}) + "\n" + json.dumps({"step": 2}) + "\n" + '{"step": 3, "tr')
    tracking.rewind(file, 2)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]
