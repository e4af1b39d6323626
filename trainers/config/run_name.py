"""The name of a run's folder: the seed, and the settings that were typed and change the run's numbers."""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from trainers.config.dataset_name import OWN_FILES
from trainers.config.finetune import SPEED_ONLY

MOST_BYTES = 200  # of a folder's name; file systems allow 255, and endings such as .old1 are added to it
MOST_CHARACTERS = 24  # of a value that is written out; a longer one is shortened and gets a hash

# Settings that the folder's path has already. objective= follows from the recipe or the backbone.
IN_PATH = ("seed", "task.name", "backbone.name", "objective", "study")
# backbone.lstm is read with ablation=lstm alone, but the name follows from what was typed, even if it is not read.
NOT_IN_NAME = tuple(key for key in SPEED_ONLY if key != "backbone.lstm")
DEFAULTS = ("ablation=none", "peft=none")  # a study types them, and a run that is started by itself leaves them out


def run_name(seed: int | str, overrides: Iterable[str]) -> str:
    """The last part of a run's folder, from the command line's overrides; at most MOST_BYTES long.

    >>> run_name(3, ["task=mnli", "optim.lr=1e-5", "objective.lm_coef=0", "tracking=wandb", "seed=3"])
    'seed3_objective.lm_coef=0,optim.lr=1e-05'
    >>> run_name(0, ["task=single", "data.files.train='my files/train.csv'"])
    'seed0_data.files.train=train.csv-59d486,task=single'
    """
    parts = sorted(_part(override) for override in overrides if _is_in_name(override))
    slug = ",".join(parts)
    if len(f"seed{seed}_{slug}".encode()) > MOST_BYTES:
        kept = slug.encode()[: MOST_BYTES - 40].decode(errors="ignore").rstrip("-.,")
        slug = f"{kept}-{_digits(slug, 8)}"
    return f"seed{seed}_{slug}" if slug else f"seed{seed}"


def is_under(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key is one of the names or within one.

    >>> is_under("task.labels", ["seed", "task"]), is_under("task_name", ["task"])
    (True, False)
    """
    return _is_under(key, tuple(names))


@cache  # a report asks the same of every run
def _is_under(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _is_in_name(override: str) -> bool:
    key, value = _split(override)
    if f"{key}={value}" in DEFAULTS or re.match(r"hydra([./]|$)", key):
        return False
    if key == "task":
        return value in OWN_FILES  # the path then has the name of the dataset, not of the task
    if key == "backbone":
        return not re.fullmatch(r"[\w.-]+", value)  # a name, which the path has
    return key not in IN_PATH and not is_under(key, NOT_IN_NAME)


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~").split("@")[0], value.strip("'\"")


def _part(override: str) -> str:
    key, value = _split(override)
    name = _safe(key)
    name = name if name == key else f"{name}-{_digits(key, 6)}"
    return f"{name}={_short(value)}" if "=" in override else name


def _short(value: str) -> str:
    """A value as one part of a file name; what is left out of it is in six digits of a hash.

    >>> _short("outputs/a/model"), _short("outputs/b/model"), _short("[premise,hypothesis]"), _short("1e-3")
    ('model-55dbcf', 'model-cd6616', 'premise-hypothesis-bd0a90', '0.001')
    """
    if value.lower() in ("true", "false", "null"):
        return value.lower()
    try:
        return value if value.lstrip("-").isdigit() else str(float(value))  # a sweep hands on 0.001 for 1e-3
    except ValueError:
        pass
    if _safe(value) == value and len(value) <= MOST_CHARACTERS:
        return value
    last = _safe(Path(value.strip("[]'\"")).name)
    return f"{last[-MOST_CHARACTERS:].strip('-.')}-{_digits(value, 6)}"


def _safe(text: str) -> str:
    """Without the characters that a file system or a shell treats specially."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") if text else text


def _digits(text: str, n: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:n]
