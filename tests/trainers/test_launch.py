"""A command line's way to a recipe's function."""

import re
import sys

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig

from trainers.config import FinetuneConfig
from trainers.launch import recipe
from trainers.overrides import CONF


@pytest.mark.parametrize(
    ("typed", "mode"), [((), "RUN"), (("-m",), "MULTIRUN"), (("hydra.mode=MULTIRUN",), "MULTIRUN")]
)
def test_a_run_is_composed_once_and_its_mode_is_what_is_typed(monkeypatch, tmp_path, typed, mode):
    composed, modes, of_hydra = [], [], Hydra.get_mode
    load = ConfigLoaderImpl.load_configuration
    monkeypatch.setattr(
        ConfigLoaderImpl, "load_configuration", lambda self, *a, **k: composed.append(1) or load(self, *a, **k)
    )
    settings = ["task=cola", "data=sample", "backbone=tiny", f"run_dir={tmp_path}/run", f"hydra.sweep.dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["finetune.py", *typed, *settings])
    recipe("finetune", FinetuneConfig)(lambda config: modes.append(HydraConfig.get().mode.name) or {})()
    assert modes == [mode]
    assert Hydra.get_mode is of_hydra
    assert len(composed) == 1 or mode == "MULTIRUN"


def test_no_file_says_that_it_is_a_multirun():
    """A command line does; so it need not be composed to know."""
    assert not [file for file in CONF.rglob("*.yaml") if re.search(r"hydra\.mode|^  mode:", file.read_text(), re.M)]
