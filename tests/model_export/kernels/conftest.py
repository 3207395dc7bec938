"""The kernels run in Triton's interpreter here; tests/conftest.py selects it."""

import os

import pytest


@pytest.fixture(autouse=True)
def _interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", "tests/conftest.py should have set it"
