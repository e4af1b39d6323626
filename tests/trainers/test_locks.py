"""A run folder is one process's at a time, and nobody's once that process has ended, however it did."""

import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from heads.errors import InputError
from trainers.config import LmConfig, PerplexityConfig, PretrainConfig
from trainers.finetune import finetune
from trainers.finetune_lm import finetune_lm
from trainers.launch import register
from trainers.locks import LOCK, give_back, take
from trainers.overrides import CONF
from trainers.perplexity import perplexity
from trainers.pretrain import pretrain
from trainers.runs import open_folder, read_settings
from trainers.zero_shot.run import zero_shot

ROOT = Path(__file__).parents[2]
RUN = ("task=sst2", "data=sample", "backbone=tiny", "train.max_steps=1")
HOLD = "import sys, pathlib, trainers.locks as l; k = l.take(pathlib.Path(sys.argv[1]), 'trained'); print(1); input()"


def composed(entry, schema, *overrides):
    register(entry, schema)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_object(hydra.compose(entry, overrides=list(overrides)))


TEXT = ("backbone=tiny", "corpus=sample")
KINDS = {
    "finetune": (finetune, lambda compose, run: compose(*RUN, run)),
    "zero_shot": (zero_shot, lambda compose, run: compose(*RUN, "zero_shot=likelihood", run)),
    "pretrain": (pretrain, lambda compose, run: composed("pretrain", PretrainConfig, *TEXT, run)),
    "finetune_lm": (finetune_lm, lambda compose, run: composed("finetune_lm", LmConfig, *TEXT, run)),
    "zero_shot_lm": (perplexity, lambda compose, run: composed("zero_shot_lm", PerplexityConfig, *TEXT, run)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_in_which_another_process_trains_is_refused(compose, tmp_path, kind):
    recipe, config = KINDS[kind]
    lock = take(tmp_path, "trained")
    with pytest.raises(InputError, match=rf"^{tmp_path} is being trained by another process: wait for it"):
        recipe(config(compose, f"run_dir={tmp_path}"))
    assert not (tmp_path / "config.yaml").exists()
    give_back(lock, tmp_path)


def test_the_folder_of_a_process_that_was_killed_is_free(compose, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    other = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "1\n"
    config = compose(*RUN, f"run_dir={tmp_path}")
    with pytest.raises(InputError, match=r"is being trained by another process"):
        finetune(config)
    other.kill()
    other.communicate()
    assert (tmp_path / LOCK).exists()
    finetune(config)
    assert not (tmp_path / LOCK).exists()  # a finished folder holds the run alone
    with pytest.raises(InputError, match=r"holds a finished run"):
        finetune(config)
    assert not (tmp_path / LOCK).exists()
    finetune(compose(*RUN, f"run_dir={tmp_path}", "overwrite=true"))
    aside = tmp_path.with_name(f"{tmp_path.name}.old1")
    assert not (tmp_path / LOCK).exists()
    assert not (aside / LOCK).exists()


def test_a_folder_stays_its_process_s_own_while_an_older_run_in_it_is_set_aside(compose, tmp_path):
    folder = tmp_path / "run"
    asked = ("task=sst2", "backbone=tiny", f"run_dir={folder}", "overwrite=true")
    with open_folder(folder, compose(*asked)):
        (folder / "result.json").write_text("{}")
    config = compose(*asked, "seed=2")
    with (
        open_folder(folder, config),
        pytest.raises(InputError, match=r"is being trained by another process"),
        open_folder(folder, compose(*asked, "seed=3")),
    ):
        pass
    assert read_settings(folder / "config.yaml", type(config))["seed"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.old1"]
