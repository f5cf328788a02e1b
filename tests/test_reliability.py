"""A share of `python -m tests.reliability`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.reliability import AREAS, isolated


@pytest.mark.parametrize(
    "area", ["hostile", *(pytest.param(a, marks=pytest.mark.slow) for a in AREAS if a != "hostile")]
)
def test_nothing_goes_wrong(area: str) -> None:
    situations, failures = isolated(area, 0.01, seed=1)
    assert situations >= 1 and not failures
