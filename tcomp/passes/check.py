"""Checks that stages of one program agree on random inputs, by the references and the interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InternalError
from ..ir.graph import FuncCall, Function, Operand, TensorType, Value
from ..ir.interp import run
from ..ir.module import IRModule
from ..ir.primfunc import PrimFunc
from ..ops.reference import evaluate, evaluate_call

TOLERANCE = 1e-3


def random_array(t: TensorType, rng: np.random.Generator) -> np.ndarray:
    """A random array: normal numbers, small integers, random bools."""
    if t.dtype.is_float:
        return np.asarray(rng.standard_normal(t.shape)).astype(t.dtype.numpy)
    if t.dtype.is_bool:
        return rng.random(t.shape) < 0.5
    return rng.integers(0, 5, t.shape).astype(t.dtype.numpy)


def relative_error(out: Any, ref: Any) -> float:
    """||out - ref|| / ||ref||; infinite where NaN or infinities stand in different places."""
    a, b = np.asarray(out, np.float64), np.asarray(ref, np.float64)
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf")
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite & ~np.isnan(b)], b[~finite & ~np.isnan(b)]):
        return float("inf")
    scale = float(np.linalg.norm(b[finite]))
    return float(np.linalg.norm(a[finite] - b[finite])) / (scale or 1.0)


def run_kernels(module: IRModule, inputs: list[Any], kernels: Mapping[str, PrimFunc] | None = None) -> list[np.ndarray]:
    """The results of a lowered module, its kernels run by the interpreter."""
    main = module.main
    values: dict[Operand, Any] = dict(zip(main.params, inputs))
    for b in main.bindings:
        args = [values[a] if isinstance(a, Value) else module.constants[a.name] for a in b.call.args]
        if isinstance(b.call, FuncCall):
            f = (kernels or {}).get(b.call.callee) or module.functions[b.call.callee]
            assert isinstance(f, PrimFunc)
            values.update(zip(b.results, run(f, args)))
        else:
            values.update(zip(b.results, evaluate_call(b.call, args)))
    return [values[r] if isinstance(r, Value) else module.constants[r.name] for r in main.results]


def check_equivalence(stages: Mapping[str, IRModule], lowered: IRModule, scheduled: Mapping[str, PrimFunc]) -> None:
    """Run every stage on one random input.

    Raises:
        InternalError: a stage changed the answer; the error names the first one.
    """
    rng = np.random.default_rng(0)
    first = next(iter(stages.values()))
    assert isinstance(first.main, Function)
    inputs = [random_array(p.type, rng) for p in first.main.params]
    want = evaluate(first, inputs, exact=True)
    for name, module in stages.items():
        _compare(name, evaluate(module, inputs, exact=True), want)
    _compare("loops", run_kernels(lowered, inputs), want)
    _compare("scheduled", run_kernels(lowered, inputs, scheduled), want)


def _compare(name: str, got: list[Any], want: list[Any]) -> None:
    for i, (a, b) in enumerate(zip(got, want)):
        error = relative_error(a, b)
        if error > TOLERANCE:
            raise InternalError(
                f"stage {name!r} changed result {i}", why=f"relative error {error:.3g} against the reference"
            )
