"""The table of docs/math.md holds."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import tcomp
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


@pytest.mark.parametrize("target", ["cpu", "llvm -mcpu=haswell", "llvm -mcpu=x86-64"])
def test_gelu_is_as_exact_as_documented(target: str) -> None:
    x = np.concatenate([np.linspace(-9, 9, 100003), [0.0, np.inf, -np.inf, np.nan, 1e38, -1e38, 1e-40, 6, -6]])
    x = x.astype("float32")
    g = tcomp.GraphBuilder()
    got = tcomp.compile(g.build(g.gelu(g.input("x", x.shape))), target=target)(x).astype("float64")
    wide = np.where(np.isfinite(x), x, 0).astype("float64")
    exact = np.maximum(wide, 0) - 0.5 * np.abs(wide) * np.vectorize(math.erfc)(np.abs(wide) * math.sqrt(0.5))
    finite = np.isfinite(x)
    error = np.abs(got - exact)
    assert (error[finite & (x > 0)] <= 4 * np.spacing(exact.astype("float32"))[finite & (x > 0)]).all()
    assert (error[finite & (x <= 0)] <= 1e-7).all() and not got[x < -6].any()
    assert got[x == np.inf] == np.inf and np.isnan(got[np.isnan(x)]).all()
