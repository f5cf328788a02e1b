"""Worst errors of the elementary functions, in units in the last place, over float32 arguments.

python -m benchmarks.math [--step 997]     # every step-th bit pattern; --step 1 is exhaustive
"""

from __future__ import annotations

import math

import numpy as np
import typer

import tcomp
from tcomp import te

REFERENCES = {
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1.0 + np.exp(-np.abs(x))),
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "sin": np.sin,
    "cos": np.cos,
    "atan": np.arctan,
    "pow": np.power,
}
"""In float64."""


def compiled(name: str) -> object:
    """The function, compiled for arrays of any length."""
    n = te.var("n")
    args = [te.placeholder((n,), name=f"x{i}") for i in range(2 if name == "pow" else 1)]
    out = te.compute((n,), lambda i: tcomp.ir.expr.call(name, *(a[i] for a in args)), name="out")
    return tcomp.compile(te.create_prim_func([*args, out], name))


def ulp_error(out: np.ndarray, want: np.ndarray) -> np.ndarray:
    """|out - want| in units of the spacing of float32 at `want`; infinite where only one is NaN or infinite."""
    with np.errstate(all="ignore"):
        rounded = want.astype(np.float32)
        spacing = np.abs(np.spacing(np.where(np.isfinite(rounded), rounded, 1).astype(np.float32))).astype(np.float64)
        error = np.abs(out.astype(np.float64) - want) / spacing
    special = ~np.isfinite(rounded) | ~np.isfinite(out)
    same = (out == rounded) | (np.isnan(out) & np.isnan(rounded))
    # a result at the edge of overflow may round either way
    edge = np.isinf(out) & (np.abs(want) > np.float64(np.finfo(np.float32).max) * (1 - 2**-22))
    return np.where(special, np.where(same | edge, 0.0, np.inf), error)


def arguments(name: str, step: int) -> list[np.ndarray]:
    """Every step-th float32 bit pattern, with the special values; for pow, pairs of them and of moderate numbers."""
    bits = np.arange(0, 1 << 32, step, dtype=np.uint64).astype(np.uint32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-45, -1e-45, 3.4028235e38], np.float32)
    x = np.concatenate([bits.view(np.float32), special])
    if name != "pow":
        return [x]
    rng = np.random.default_rng(0)
    base = np.concatenate([rng.permutation(x), np.abs(rng.standard_normal(len(x))).astype(np.float32) * 4])
    power = np.concatenate([rng.permutation(x), rng.standard_normal(len(x)).astype(np.float32) * 20])
    a, b = np.meshgrid(special, np.concatenate([special, np.array([2, 3, 0.5, -2, -3, -0.5], np.float32)]))
    return [np.concatenate([base, a.ravel()]), np.concatenate([power, b.ravel()])]


def worst(name: str, step: int) -> tuple[float, tuple[float, ...]]:
    """The largest error of a function, and the arguments at which it occurs."""
    xs = arguments(name, step)
    out = compiled(name)(*xs)
    with np.errstate(all="ignore"):
        want = REFERENCES[name](*(x.astype(np.float64) for x in xs))
    error = ulp_error(out, want)
    at = int(np.argmax(error))
    return float(error[at]), tuple(float(x[at]) for x in xs)


def main(step: int = 997) -> None:
    """Print the table of docs/math.md."""
    print("| function | worst error (ulp) | at |\n| --- | --- | --- |")
    for name in REFERENCES:
        error, at = worst(name, step)
        print(f"| {name} | {error:.2f} | {', '.join(f'{x:.9g}' for x in at)} |")


if __name__ == "__main__":
    typer.run(main)
