"""Why a dataset of the hub, or a local copy of it, cannot be read: one line that names what exists or what to do."""

import re

from trainers.choose import nearest

LOG_IN = "log in with an account that may read it (hf auth login, or HF_TOKEN=...)"


def why_unreadable(error: BaseException, path: str, config: str | None, local: bool) -> str:
    """The message for a user; path is OWNER/NAME, or the folder of a local copy.

    >>> error = ValueError("BuilderConfig 'colaa' not found. Available: ['cola', 'sst2']")
    >>> why_unreadable(error, "nyu-mll/glue", "colaa", local=False)
    "nyu-mll/glue has no configuration 'colaa'. Did you mean 'cola'? It has: cola, sst2 (task.config)"
    """
    text = str(error)
    if "BuilderConfig" in text and "not found" in text:
        names = _listed(text)
        close = nearest(config or "", names)
        return f"{path} has no configuration '{config}'.{close} It has: {_joined(names)} (task.config)"
    if "Config name is missing" in text:
        return f"{path} has several configurations: type task.config=NAME, with one of {_joined(_listed(text))}"
    lacking = re.findall(r"'([^']+)': \(None, ", text) or re.findall(r"^Unable to find '([^']+)'", text)
    if lacking:
        return f"{path} lacks files that its README.md lists, {_joined(lacking)}: copy them, or correct README.md"
    if "Dataset scripts are no longer supported" in text:
        return (
            f"{path} is a Python script, which the datasets library no longer runs: use a copy of the dataset as "
            "Parquet, CSV or JSON files"
        )
    if local:
        return f"{path}{_named(config)} cannot be read: {_first_line(error)}"
    return _why_not_on_hub(error, path, config)


def _why_not_on_hub(error: BaseException, hub: str, config: str | None) -> str:
    text = str(error)
    if "gated dataset" in text and "ask for access" not in text:
        return f"{hub} is gated: accept its terms at https://huggingface.co/datasets/{hub}, then {LOG_IN}"
    if "gated dataset" in text:
        return f"{hub} is gated, and your account has no access to it: ask at https://huggingface.co/datasets/{hub}"
    if "doesn't exist on the Hub" in text or "401 Unauthorized" in text:
        return f"{hub} does not exist on the hub, or is private: check the name (task.hub), or {LOG_IN}"
    if type(error).__name__ == "HFValidationError":
        return f"task.hub={hub} is not the name of a dataset: type OWNER/NAME as the hub has it"
    if type(error).__name__ in ("NonMatchingSplitsSizesError", "UnexpectedSplitsError", "ExpectedMoreSplitsError"):
        return f"{hub}{_named(config)}: its files do not have the rows that its README.md states: {_first_line(error)}"
    return (
        f"{hub} cannot be read from the hub or its cache ({_first_line(error)}): check the network, or give "
        "data.root=DIR (a mirror), data.files.train=FILE or data=sample"
    )


def _named(config: str | None) -> str:
    return f", configuration {config}," if config else ""


def _listed(text: str) -> list[str]:
    """The names in the first list of Python strings of a message."""
    found = re.search(r"\[(.*?)\]", text, re.DOTALL)
    return re.findall(r"'([^']*)'", found[1]) if found else []


def _joined(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _first_line(error: BaseException) -> str:
    """The first line of an error's own cause, which says more than the library's wrapping of it."""
    cause = error.__cause__ if type(error).__name__.startswith("DatasetGeneration") and error.__cause__ else error
    return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0][:200]}"
