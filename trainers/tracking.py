"""Where metrics go: log.jsonl always, W&B and TensorBoard by choice, all through Accelerate's trackers."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process

from heads.errors import InputError
from trainers.config import TrackingConfig
from trainers.results import finite


class JsonLines(GeneralTracker):
    """One line of log.jsonl for each call: the step and its values."""

    name = "jsonl"
    requires_logging_directory = False

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    @property
    def tracker(self) -> Path:
        """The file."""
        return self.file

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """The config has a file of its own."""

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Append a line."""
        with self.file.open("a") as stream:
            stream.write(json.dumps(finite({"step": step} | values)) + "\n")


def rewind(file: Path, step: int) -> None:
    """Take lines after a step out of log.jsonl, so that a resumed run writes them once."""
    if not file.exists():
        return
    whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]  # a kill can tear one
    kept = [line for line in whole if json.loads(line)["step"] <= step]
    partial = file.with_suffix(".partial")
    partial.write_text("".join(kept))
    os.replace(partial, file)


def trackers(config: TrackingConfig, folder: Path) -> list[Any]:
    """What Accelerator's log_with takes.

    Raises:
        InputError: a tracker does not exist or its package is not installed.
    """
    for name in config.trackers:
        if name not in ("wandb", "tensorboard"):
            raise InputError(f"tracking.trackers names '{name}': wandb and tensorboard are known")
        if name == "tensorboard":
            try:
                import tensorboard  # noqa: F401
            except ImportError:
                raise InputError("tracking=tensorboard needs its package: pip install -e .[tensorboard]") from None
    return [JsonLines(folder / "log.jsonl"), *config.trackers]


def start(
    accelerator: Accelerator, config: TrackingConfig, folder: Path, settings: dict[str, Any], dataset: str = ""
) -> None:
    """Open the trackers of a run; W&B without a key records offline, in the run's folder.

    W&B has the name of the data set in the run's name, and among its settings, where runs are filtered by it.
    """
    settings = settings | ({"dataset": dataset} if dataset else {})
    plain = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in settings.items()}
    options: dict[str, Any] = {}
    if "wandb" in config.trackers:
        chosen = {"mode": config.mode or _wandb_mode(), "id": _wandb_id(folder)}
        options["wandb"] = {
            "dir": str(folder),
            "name": " ".join(filter(None, [dataset, folder.name])),
            "resume": "allow",
        } | chosen
    accelerator.init_trackers(config.project, config=plain, init_kwargs=options)


def _wandb_id(folder: Path) -> str | None:
    """The run's id at W&B, kept in its folder, so that a resumed run goes on in the same curves.

    None where W&B has been told one, as each run of a sweep is by its agent.
    """
    if os.environ.get("WANDB_RUN_ID"):
        return None
    file = folder / ".wandb_id"
    if not file.exists():
        file.write_text(uuid.uuid4().hex[:12])
    return file.read_text()


def _wandb_mode() -> str | None:
    """None (W&B's own choice, online) with a key or a chosen mode, else offline."""
    if os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY"):
        return None
    from requests.utils import get_netrc_auth

    return None if get_netrc_auth("https://api.wandb.ai") else "offline"
