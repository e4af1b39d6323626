"""Real rows (ABLATUNE_DATA, laid out as the hub lays data sets out) and real weights (ABLATUNE_MODELS, likewise)."""

import os
from pathlib import Path

import pytest


def folder(variable):
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{variable} names no folder: real rows and weights are not here")
    return Path(value)


@pytest.fixture(scope="session")
def data():
    return folder("ABLATUNE_DATA")


@pytest.fixture(scope="session")
def models():
    return folder("ABLATUNE_MODELS")
