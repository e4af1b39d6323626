"""The space of a sweep file of W&B, as Optuna searches it."""

import itertools
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from trainers.choose import choose

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FILES = Path(__file__).resolve().parents[2] / "conf" / "sweep"
METHODS: dict[str, None] = dict.fromkeys(("grid", "random", "bayes"))
GOALS: dict[str, Literal["minimize", "maximize"]] = {"minimize": "minimize", "maximize": "maximize"}
LOGARITHMIC = {"uniform": False, "log_uniform_values": True}


@dataclass(frozen=True)
class Space:
    """How it is searched, towards what, what is the same in all runs, and what is tried, as the file has it."""

    method: str
    direction: Literal["minimize", "maximize"]
    fixed: dict[str, Any]
    tried: dict[str, dict[str, Any]]

    def without(self, keys: Collection[str]) -> "Space":
        """What is left of it where some settings are not its own to choose."""
        fixed, tried = ({k: v for k, v in part.items() if k not in keys} for part in (self.fixed, self.tried))
        return replace(self, fixed=fixed, tried=tried)

    def points(self) -> list[dict[str, Any]] | None:
        """All points of a grid; None where it is not searched as one."""
        if self.method != "grid":
            return None
        values = itertools.product(*(parameter["values"] for parameter in self.tried.values()))
        return [dict(zip(self.tried, point, strict=True)) for point in values]

    def distributions(self) -> "dict[str, BaseDistribution]":
        """What Optuna draws each setting from."""
        return {key: distribution(key, parameter) for key, parameter in self.tried.items()}


def read_space(name: str) -> Space:
    """The space of a file of conf/sweep/.

    Raises:
        InputError: there is no such file, or it is searched in a way that is not known here.
    """
    files = {file.stem: file for file in sorted(FILES.glob("*.yaml"))}
    found = yaml.safe_load(choose(files, name, what="file of conf/sweep/", where="space").read_text())
    where, metric = f"conf/sweep/{name}.yaml", found["metric"]
    choose(METHODS, found["method"], what="method", where=where)
    choose(dict.fromkeys(["primary"]), metric["name"], what="metric", where=where)  # what a run returns
    parameters = found["parameters"]
    return Space(
        method=found["method"],
        direction=choose(GOALS, metric["goal"], what="goal", where=where),
        fixed={key: parameter["value"] for key, parameter in parameters.items() if "value" in parameter},
        tried={key: parameter for key, parameter in parameters.items() if "value" not in parameter},
    )


def distribution(key: str, parameter: dict[str, Any]) -> "BaseDistribution":
    """What Optuna draws a parameter of a sweep file from.

    Raises:
        InputError: it is of a distribution that is not known here.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "values" in parameter:
        return CategoricalDistribution(parameter["values"])
    low, high = parameter["min"], parameter["max"]
    kind = parameter.get("distribution", "int_uniform" if isinstance(low, int) else "uniform")  # as W&B reads it
    if kind == "int_uniform":
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=choose(LOGARITHMIC, kind, what="distribution", where=key))
