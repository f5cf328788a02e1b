"""Checks that stages of one program agree on random inputs, by the references and the interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, assert_never

import numpy as np

from ..errors import InternalError
from ..ir.graph import Cond, FuncCall, Function, OpCall, Operand, Scan, TensorType, Value
from ..ir.interp import run
from ..ir.module import IRModule
from ..ir.primfunc import PrimFunc
from ..ops.reference import evaluate, evaluate_call, run_scan

TOLERANCE = 1e-3


def random_array(t: TensorType, rng: np.random.Generator) -> np.ndarray:
    """A random array: normal numbers, small integers, random bools."""
    if t.dtype.is_float:
        return np.asarray(rng.standard_normal(t.extents)).astype(t.dtype.numpy)
    if t.dtype.is_bool:
        return rng.random(t.extents) < 0.5
    return rng.integers(0, 5, t.extents).astype(t.dtype.numpy)


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


def run_kernels(
    module: IRModule,
    inputs: Sequence[Any],
    kernels: Mapping[str, PrimFunc] | None = None,
    entry: str | None = None,
) -> list[np.ndarray]:
    """The results of a lowered module, its kernels run by the interpreter."""
    func = module.graph(entry or module.entry)
    values: dict[Operand, Any] = dict(zip(func.params, inputs))
    for b in func.bindings:
        args = [values[a] if isinstance(a, Value) else module.constants[a.name] for a in b.call.args]
        match b.call:
            case FuncCall():
                f = (kernels or {}).get(b.call.callee) or module.functions[b.call.callee]
                assert isinstance(f, PrimFunc)
                results: Sequence[Any] = run(f, args)
            case Scan():
                results = run_scan(b, args, partial(run_kernels, module, kernels=kernels, entry=b.call.body))
            case Cond():
                results = run_kernels(module, args[1:], kernels, b.call.then if args[0] else b.call.orelse)
            case OpCall():
                results = evaluate_call(b.call, args)
            case _:
                assert_never(b.call)
        values.update(zip(b.results, results))
    return [values[r] if isinstance(r, Value) else module.constants[r.name] for r in func.results]


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
