"""One page that needs nothing else: tables that sort, plots, and each run's settings, rendered when asked for."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from trainers.config import flat
from trainers.reports.command import command
from trainers.reports.figures import Plot
from trainers.reports.tables import Table
from trainers.results import finite
from trainers.studies.found_runs import FinishedRun, Found

ROOM = Path(__file__).resolve().parent


def render(runs: Path, found: Found, tables: Sequence[Table], plots: Sequence[Plot]) -> str:
    """The page as text; whatever a run holds is escaped, and the page may load nothing and run nothing but its own."""
    script, style = ((ROOM / name).read_text() for name in ("page.js", "page.css"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((ROOM / "page.html").read_text()).render(
        folder=str(runs),
        date=date.today().isoformat(),
        n_finished=len(found.runs),
        n_unfinished=len(found.unfinished),
        tables={table.name: table for table in tables},
        plots=[(plot, Markup(plot.inline)) for plot in plots],
        rows=[_row(run) for run in found.runs],
        data=run_details(found.runs),
        script=Markup(script),
        style=Markup(style),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def recipe_of(run: FinishedRun) -> str:
    """Which file of conf/ a run began with, by what its result holds."""
    recipe = next((stage for stage in ("finetune", "zero_shot") if stage in run.result), "pretrain")
    return recipe if recipe == "pretrain" or "task.name" in run.settings else f"{recipe}_lm"


def _row(run: FinishedRun) -> dict[str, Any]:
    """What the list of runs shows of one."""
    recipe = recipe_of(run)
    perplexity = run.result.get("held_out", {}).get("perplexity") if recipe == "pretrain" else None
    primary = run.result.get("primary", {"metric": "perplexity" if perplexity else "", "value": perplexity})
    return {
        "folder": str(run.folder),
        "recipe": recipe,
        "task": run.dataset,
        "backbone": run.settings["backbone.name"],
        "ablation": run.settings.get("ablation", "none"),
        "seed": run.seeds_said,
        "metric": primary["metric"],
        "value": primary["value"],
        "degenerate": run.result.get("degenerate_reason") or "",
    }


def run_details(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Each run's command, numbers and settings; settings that all runs share are there once."""
    first = runs[0].settings if runs else {}
    shared = {key: value for key, value in first.items() if all(_has(run, key, value) for run in runs)}
    return {
        "shared": finite(shared),
        "runs": [
            {
                "command": command(recipe_of(run), run.settings),
                "settings": finite({key: value for key, value in run.settings.items() if key not in shared}),
                "numbers": _numbers(run),
            }
            for run in runs
        ],
    }


def _has(run: FinishedRun, key: str, value: Any) -> bool:
    return key in run.settings and run.settings[key] == value


def _numbers(run: FinishedRun) -> dict[str, Any]:
    """The scores of a run as its result.json has them, undefined ones too."""
    scores = {stage: run.result[stage] for stage in ("finetune", "held_out", "train") if stage in run.result}
    asked = run.result.get("zero_shot", {})
    splits = {split: asked[split] for split in asked.get("chance", asked) if isinstance(asked[split], dict)}
    return flat(scores | ({"zero_shot": splits} if splits else {}))
