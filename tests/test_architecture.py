"""The shape of the house: who imports whom, what the files are called, what is loaded when."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from heads import zero_shot
from trainers import adapters, config, metrics, objectives, optim
from trainers.overrides import CONF
from trainers.zero_shot import baselines, method

ROOT = CONF.parent
HEADS = sorted((ROOT / "heads").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
SOURCES = [path for room in ("heads", "trainers", "recipes", "tests") for path in sorted((ROOT / room).rglob("*.py"))]
ALLOWED = {
    *("pyproject.toml", "conf", "trainers", "heads", "recipes", "tests", "outputs"),
    *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "constraints.txt"),
}
BUILT = re.compile(r"\..*|.*\.egg-info|__pycache__|build|dist|wandb")  # dot files, and what tools leave behind


def imported(source):
    """Top-level names of the packages that a module imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    sources = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {name.split(".")[0] for name in plain | sources}


def test_files_were_found():
    assert {"layouts.py", "collate.py", "structures.py", "table.py"} <= {path.name for path in HEADS}
    assert "finetune.py" in {path.name for path in RECIPES}
    assert {"loop.py", "encode.py", "transfer.py", "test_architecture.py"} <= {path.name for path in SOURCES}


def test_imports_are_found_wherever_they_stand():
    source = "import a.b as x\nfrom c.d import e\nfrom . import f\ndef g():\n    if g:\n        from h import i\n"
    assert imported(source) == {"a", "c", "h"}


@pytest.mark.parametrize("path", HEADS, ids=lambda path: path.name)
def test_heads_import_nothing_of_trainers(path):
    assert not imported(path.read_text()) & {"trainers", "recipes", "tests", "datasets", "hydra", "omegaconf"}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[-2] != "recipes"], ids=lambda p: p.name)
def test_nothing_is_imported_from_recipes(path):
    assert "recipes" not in imported(path.read_text())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_thin(path):
    assert len(path.read_text().splitlines()) <= 60


def dependencies():
    """Modules that the project's dependencies, extras included, bring to the top level."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() for requirement in needed}
    brought = {m for m, dists in packages_distributions().items() if names & {dist.lower() for dist in dists}}
    return brought | {name.replace("-", "_") for name in names}


def test_dependencies_were_found():
    assert {"torch", "evaluate", "hydra", "sklearn", "datasets", "pytest"} <= dependencies()


def test_no_recipe_hides_a_module():
    # a script's own folder comes first on the path: recipes/evaluate.py would be what "import evaluate" finds
    taken = dependencies() | sys.stdlib_module_names | {"trainers", "heads"}
    assert not {path.stem for path in RECIPES} & taken


def test_every_file_is_named_after_a_concept():
    assert not [path for path in SOURCES if path.stem in {"utils", "common", "helpers", "core", "misc"}]


def test_the_top_level_holds_only_what_it_should():
    found = {path.name for path in ROOT.iterdir() if not BUILT.fullmatch(path.name)}
    assert {"conf", "trainers", "heads", "recipes", "tests", "pyproject.toml"} <= found
    assert found <= ALLOWED


@pytest.mark.parametrize("module", ["trainers.config", "trainers.launch"])
def test_a_config_is_checked_before_anything_heavy_is_loaded(module):
    code = f"import sys, json, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert {"trainers", "omegaconf"} <= loaded
    assert not loaded & {"torch", "transformers", "datasets", "accelerate", "peft"}


def test_a_run_on_rows_that_were_encoded_before_imports_neither_datasets_nor_scikit_learn(tmp_path):
    own = {"ABLATUNE_CACHE": str(tmp_path / "cache")}
    for n, expected in enumerate([True, False]):
        typed = ["task=sst2", "data=sample", "backbone=tiny", "train.max_steps=1", "zero_shot=none"]
        code = (
            f"import runpy, sys; sys.argv[1:] = {[*typed, f'run_dir={tmp_path / str(n)}']}\n"
            "runpy.run_path('recipes/finetune.py', run_name='__main__')\n"
            "heavy = {'datasets', 'pandas', 'sklearn'}\n"
            "print(heavy <= sys.modules.keys(), not heavy & sys.modules.keys())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ | own
        )
        assert done.stdout.split()[-2:] == [str(expected), str(not expected)]


def test_the_names_that_a_config_knows_are_those_of_the_tables():
    assert set(config.OPTIMIZERS) == set(optim.OPTIMIZERS)
    assert set(config.LOSSES) == {"auto", *objectives.LOSSES}
    assert set(config.ADAPTERS) == {"none", *adapters.ADAPTERS}
    assert set(config.zero_shot.NORMALIZATIONS) == set(zero_shot.NORMALIZATIONS)
    assert set(config.zero_shot.METHODS) == set(method.ORDER)
    assert {file.stem for file in (ROOT / "conf" / "zero_shot").glob("*.yaml")} == {"none", "auto", *method.ORDER}
    assert set(baselines.CHANCE) == set(metrics.METRICS)
