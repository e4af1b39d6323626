"""Every command that the documents print is one that a recipe takes."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "conf").rglob("*.md")), ROOT / "recipes" / "README.md"]
COMMAND = re.compile(r"recipes/(\w+)\.py (-m )?([^`\n]+)")
# words that stand for what the reader types
STANDS_FOR = re.compile(r"\.\.\.|\b(TASK|RUN|DIR|FILE|KEY|NAME)\b|\$\{")


def commands():
    """Recipe, whether it is a multirun, and arguments of each."""
    found = {
        match for file in DOCUMENTS for match in COMMAND.findall(file.read_text()) if not STANDS_FOR.search(match[2])
    }
    for recipe, multirun, typed in sorted(found):
        args = [arg for arg in shlex.split(typed, comments=True) if re.match(r"[+~]*[\w./@]+=", arg)]
        if args:
            yield pytest.param(recipe, bool(multirun), args, id=f"{recipe} {' '.join(args)}")


def one_of(arg):
    """The first of several values, as a multirun's cell has it."""
    key, _, value = arg.partition("=")
    return arg if value[:1] in "['\"" else f"{key}={value.split(',')[0]}"


@pytest.mark.usefixtures("hydra_as_it_was")
@pytest.mark.parametrize(("recipe", "multirun", "args"), [*commands()])
def test_a_printed_command_is_taken(monkeypatch, capsys, recipe, multirun, args):
    # the files of conf/study/ have tests of their own
    typed = [one_of(arg) for arg in args if not arg.startswith("+study=")] if multirun else args
    monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *typed, "--cfg=job"])
    runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"))["main"]()
    assert "run_dir" in capsys.readouterr().out or recipe in ("report", "predict")


def test_commands_are_found():
    assert len([*commands()]) > 20
