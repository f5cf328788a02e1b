"""The table of docs/math.md holds."""

import re
from pathlib import Path

import pytest

from benchmarks.math import REFERENCES, worst

DOC = (Path(__file__).resolve().parents[2] / "docs" / "math.md").read_text()
BOUNDS = {
    name: (float(bound), float(measured))
    for name, bound, measured in re.findall(r"\| (\w+) \| ([\d.]+) \| ([\d.]+) \|", DOC)
}


def test_the_table_lists_every_function() -> None:
    assert BOUNDS.keys() == REFERENCES.keys()


@pytest.mark.parametrize("name", REFERENCES)
def test_worst_error_is_within_the_documented_bound(name: str) -> None:
    bound, measured = BOUNDS[name]
    error, at = worst(name, 9973)
    assert error <= bound, f"{name}{at} is off by {error} ulp"
    assert bound <= 4 and measured <= bound


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_worst_error_over_many_arguments(name: str) -> None:
    error, at = worst(name, 499)
    assert error <= BOUNDS[name][0], f"{name}{at} is off by {error} ulp"
