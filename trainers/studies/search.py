"""A search for settings by Optuna: a multirun whose cells are chosen one after the other, by what the last ones scored.

Hydra's own Optuna sweeper asks for an Optuna before version 3, and a sweeper of ours would have to be installed as a
plugin; so this stands in the place of Hydra's sweeper, between its launcher and its callbacks.
"""

import hashlib
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from heads.errors import InputError
from trainers.config import SPEED_ONLY, SearchConfig
from trainers.locks import alone
from trainers.runs import is_under
from trainers.studies.space import Space, read_space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

JOURNAL = "optuna.log"  # in the search's folder: the trials of every search there


def search(
    asked: SearchConfig, typed: Sequence[str], conf: Path, entry: str, task: Callable[[DictConfig], float | None]
) -> None:
    """Run the trials that are missing, and say which settings are best.

    typed are settings of all trials, which are then not tried. The same command goes on where it was interrupted, and
    repeats no trial that has finished.

    Raises:
        InputError: Optuna is not installed, several processes were launched, several values or a study are typed, or
            another process searches in the same folder.
    """
    if find_spec("optuna") is None:
        raise InputError("recipes/search.py needs Optuna: pip install -e '.[optuna]'")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("a search is led by one process: start it by python recipes/search.py")
    own = _by_key(typed)
    space = read_space(asked.space).without(own)
    of_hydra = [one for key, one in own.items() if key.startswith("hydra")]
    same = [*(one for one in own.values() if one not in of_hydra), *_typed(space.fixed)]
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        usual = ["hydra.mode=MULTIRUN", f"hydra.sweep.dir=outputs/searches/{asked.space}"]
        config = loader.load_configuration(entry, [*same, *usual, *of_hydra], RunMode.MULTIRUN)
        space = _fitting(space, config)
        with alone(Path(config.hydra.sweep.dir), "searched"):
            study = _open(Path(config.hydra.sweep.dir), space, same)
            callbacks = Callbacks(config)
            finished = [_numbers([*same, *_typed(trial.params)]) for trial in _finished(study)]
            callbacks.on_multirun_start(
                config=config,
                config_name=entry,
                kept=lambda overrides: _numbers(overrides) in finished,
                tried=list(space.tried),
            )
            launcher = Plugins.instance().instantiate_launcher(
                HydraContext(config_loader=loader, callbacks=callbacks), task, config
            )
            _run_missing(study, space, asked, same, launcher)
            _say_best(study, same)
            callbacks.on_multirun_end(config=config, config_name=entry)


def _fitting(space: Space, config: DictConfig) -> Space:
    """The space without what the backbone has not: an auxiliary LM loss, unless it is causal."""
    backbone, key = config.backbone, "objective.lm_coef"
    if backbone.family == "causal" or key not in space.tried:
        return space
    print(
        f"{key} is not tried: the auxiliary LM loss needs a causal backbone, and {backbone.name} is {backbone.family}"
    )
    return space.without([key])


def _run_missing(study: "Study", space: Space, asked: SearchConfig, same: Sequence[str], launcher: Launcher) -> None:
    """Run the trials that have not finished, each batch chosen by what the last ones scored."""
    first = _interrupted(study) if space.points() is None else _unfinished(study, space)
    missing = len(first) if space.points() else asked.trials - len(_finished(study))
    for done in range(0, missing, asked.at_once):
        trials = []
        for _ in range(min(asked.at_once, missing - done)):
            if first:
                study.enqueue_trial(first.pop(0))
            trials.append(study.ask(space.distributions()))
        jobs = [[*same, *_typed(trial.params)] for trial in trials]
        for trial, job in zip(trials, launcher.launch(jobs, initial_job_idx=done), strict=True):
            _tell(study, trial.number, job.return_value)


def _by_key(typed: Sequence[str]) -> dict[str, str]:
    """What was typed, by its key."""
    found = {}
    for override in OverridesParser.create().parse_overrides(list(typed)):
        if override.is_sweep_override():
            raise InputError(
                f"{override.input_line} has several values, and a search is over those of space=: give one"
            )
        if override.key_or_group == "study":
            raise InputError(f"{override.input_line} is a grid of its own: leave it out of a search")
        found[override.key_or_group] = str(override.input_line)
    return found


def _open(folder: Path, space: Space, same: Sequence[str]) -> "Study":
    """The search with this space and these settings, new or as it was left."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    content = json.dumps([space.method, space.direction, space.tried, _numbers(same)], sort_keys=True)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        study_name=hashlib.sha256(content.encode()).hexdigest()[:16],
        direction=space.direction,
        load_if_exists=True,
    )
    sampler = optuna.samplers.TPESampler if space.method == "bayes" else optuna.samplers.RandomSampler
    study.sampler = sampler(seed=len(study.get_trials(deepcopy=False)))  # a search that goes on draws no point again
    return study


def _numbers(overrides: Sequence[str]) -> list[str]:
    """Those that change a run's numbers, in one order."""
    return sorted(one for one in overrides if not is_under(one.split("=")[0].lstrip("+"), SPEED_ONLY))


def _interrupted(study: "Study") -> list[dict[str, Any]]:
    """The settings of trials that never ended, which are tried first; their runs go on where they stopped.

    No other process is at them: the folder is locked.
    """
    from optuna.trial import TrialState

    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in running:
        study.tell(trial.number, state=TrialState.FAIL)
    return [trial.params for trial in running]


def _unfinished(study: "Study", space: Space) -> list[dict[str, Any]]:
    """The points of a grid that have no finished trial."""
    _interrupted(study)
    done = [trial.params for trial in _finished(study)]
    return [point for point in space.points() or () if point not in done]


def _finished(study: "Study") -> "list[FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _typed(settings: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def _tell(study: "Study", number: int, value: float | None) -> None:
    """Tell Optuna a trial's score: none where its run failed, or where its metric is not defined."""
    from optuna.trial import TrialState

    if value is None or math.isnan(value):
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, value)


def _say_best(study: "Study", same: Sequence[str]) -> None:
    finished = _finished(study)
    if not finished:
        return
    best = _typed(study.best_params)
    print(f"best of {len(finished)}: {study.best_value:.4f} with {' '.join(best)}")
    command = ["python", str(Path(sys.argv[0]).with_name("finetune.py")), *same, *best, "overwrite=true"]
    print(f"again: {shlex.join(command)}")
