"""Differential fuzzing of schedules: random expressions, random primitives, three ways to run each.

The kernel as written and the scheduled kernel run in the interpreter, the scheduled kernel runs natively. All three must
agree; which of them differs names the layer at fault.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..compiler import compile
from ..ir.equal import structural_equal
from ..ir.expr import Const
from ..ir.interp import run
from ..ir.primfunc import PrimFunc
from ..ir.repro import as_python, from_python
from ..ir.verify import verify
from ..schedule.primitives import BlockRef
from ..schedule.schedule import Schedule
from .expressions import random_func

METHODS = (
    "split", "split", "fuse", "reorder", "reorder", "parallel", "vectorize", "vectorize", "unroll", "compute_inline",
    "compute_at", "compute_at", "reverse_compute_at", "cache_read", "cache_write", "decompose_reduction", "set_scope", "rfactor", "rfactor",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """A primitive and numbers that pick its arguments among what there is when it runs; so any subset of steps runs."""

    method: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel and steps."""

    seed: int
    choices: tuple[Choice, ...]


@dataclass
class Outcome:
    """What a case did.

    Attributes:
        layer: "" where all agreed; else "schedule" (a legal step failed or changed the answer), "lowering", "native"; "printer" where
            its reproducer builds something else.
    """

    case: Case
    layer: str = ""
    detail: str = ""
    trace: str = ""
    applied: int = 0
    refused: int = 0
    scheduled: PrimFunc | None = field(default=None, repr=False)


def make_case(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(seed * 7919 + 1)
    steps = rng.randint(1, 14)
    return Case(
        seed, tuple(Choice(rng.choice(METHODS), tuple(rng.randrange(1 << 16) for _ in range(5))) for _ in range(steps))
    )


def _arguments(sch: Schedule, choice: Choice) -> tuple[Any, ...] | None:
    """The arguments of a step, as its check takes them; None where there is nothing to choose from."""
    loops, blocks = list(sch.func.loops), list(sch.func.blocks)
    a, b, c, d, _ = choice.numbers
    block = BlockRef(blocks[a % len(blocks)])
    buffers = (*sch.func.buffers, *sch.func.allocs)
    if choice.method in ("compute_inline",):
        return (block,)
    if choice.method in ("cache_read", "cache_write", "set_scope"):
        return block, buffers[b % len(buffers)], ("global", "local")[c % 2]
    if not loops:
        return None
    loop = loops[b % len(loops)]
    if choice.method in ("compute_at", "reverse_compute_at", "decompose_reduction", "rfactor"):
        return block, loop
    if choice.method == "split":
        factor = (2, 3, 4, 5, 8, 16)[c % 6]
        return loop, ((None, factor), (factor, None), (None, 2, factor))[d % 3]
    if choice.method == "fuse":
        nest = sch.func.loops[loop].body
        return (loop, nest.var) if hasattr(nest, "extent") else (loop, loops[c % len(loops)])
    if choice.method == "reorder":
        picked = {loop: None, loops[c % len(loops)]: None, loops[d % len(loops)]: None}
        return tuple(picked)
    return (loop,)


def _too_big(func: PrimFunc) -> bool:
    """Whether unrolled copies would make the program needlessly long."""
    copies = 1
    for s in func.loops.values():
        if s.kind == "unrolled" and isinstance(s.extent, Const):
            copies *= s.extent.value
    return copies > 64


def apply_choices(sch: Schedule, choices: Sequence[Choice], outcome: Outcome) -> None:
    """Apply each step that its check accepts."""
    for choice in choices:
        args = _arguments(sch, choice)
        if args is None:
            continue
        if sch.refusal(choice.method, *args) is not None:
            outcome.refused += 1
            continue
        before = sch.copy()
        getattr(sch, choice.method)(*((args[0], list(args[1])) if choice.method == "split" else args))
        if _too_big(sch.func):
            sch.func, sch.trace, sch._consumed = before.func, before.trace, before._consumed
            continue
        verify(sch.func)
        outcome.applied += 1


def make_inputs(func: PrimFunc, seed: int) -> list[np.ndarray]:
    """Small whole numbers, so that sums and products are exact in every dtype and in every order."""
    rng = np.random.default_rng(seed)
    arrays = []
    for b in func.inputs:
        shape = tuple(e.value for e in b.shape)
        low = 0 if b.dtype.kind == "uint" else -2
        arrays.append(rng.integers(low, 3, shape).astype(b.dtype.numpy))
    return arrays


def agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two results are equal, up to rounding of elementary functions in floating point."""
    x, y = np.asarray(a), np.asarray(b)
    if x.dtype.kind in "iub":
        return bool(np.array_equal(x, y))
    x, y = x.astype(np.float64), y.astype(np.float64)
    return bool(np.allclose(x, y, rtol=2e-4, atol=2e-4, equal_nan=True))


def run_case(case: Case, native: bool = True) -> Outcome:
    """Run a case all ways and compare."""
    outcome = Outcome(case)
    func = random_func(case.seed)
    sch = Schedule(func)
    stage = "schedule"
    try:
        apply_choices(sch, case.choices, outcome)
        outcome.trace, outcome.scheduled = str(sch.trace), sch.func
        if not structural_equal(from_python(as_python(sch.func)), sch.func):
            outcome.layer, outcome.detail = "printer", "the reproducer builds another program"
            return outcome
        inputs = make_inputs(func, case.seed)
        want = run(func, inputs)
        got = run(sch.func, inputs)
        if not all(map(agree, got, want)):
            return _differs(outcome, "schedule", got, want)
        if native:
            stage = "native"
            result = compile(sch)(*inputs)
            got = list(result) if isinstance(result, tuple) else [result]
            if not all(map(agree, got, want)):
                return _differs(outcome, "native", got, want)
    except Exception as error:
        outcome.layer, outcome.detail = stage, f"{type(error).__name__}: {error}"
    return outcome


def _differs(outcome: Outcome, layer: str, got: Sequence[Any], want: Sequence[Any]) -> Outcome:
    for a, b in zip(got, want):
        if not agree(a, b):
            bad = np.argwhere(
                ~np.isclose(a.astype(np.float64), b.astype(np.float64), rtol=2e-4, atol=2e-4, equal_nan=True)
            )
            where = tuple(int(i) for i in bad[0]) if len(bad) else ()
            outcome.detail = (
                f"{len(bad)} of {a.size} elements differ, the first at {where}: {a[where]} against {b[where]}"
            )
    outcome.layer = layer
    return outcome


def shrink(case: Case, layer: str, native: bool = True) -> Case:
    """The case without the steps that the failure does not need."""
    choices = list(case.choices)
    i = 0
    while i < len(choices):
        fewer = Case(case.seed, tuple(choices[:i] + choices[i + 1 :]))
        if run_case(fewer, native).layer == layer:
            choices = list(fewer.choices)
        else:
            i += 1
    return Case(case.seed, tuple(choices))


def script(outcome: Outcome) -> str:
    """A failure as a Python script: the kernel, the schedule, the comparison."""
    func = random_func(outcome.case.seed)
    steps = "\n".join(line for line in outcome.trace.splitlines())
    return (
        as_python(func, "func")
        + "\nfrom tcomp import Schedule, compile\nfrom tcomp.ir.interp import run\nfrom tcomp.tools.fuzz import agree, make_inputs\n"
        + f"sch = Schedule(func)\n{steps}\nprint(sch)\ninputs = make_inputs(func, {outcome.case.seed})\n"
        + "want = run(func, inputs)\nprint('interpreter agrees:', all(map(agree, run(sch.func, inputs), want)))\n"
        + "out = compile(sch)(*inputs)\nprint('native agrees:', all(map(agree, out if isinstance(out, tuple) else [out], want)))\n"
    )


def _outcome(seed: int) -> Outcome:
    """The outcome of a seed, as it travels between processes. Here and not in `__main__`, which they cannot import."""
    result = run_case(make_case(seed))
    result.scheduled = None
    return result


def outcomes(first: int, count: int, jobs: int) -> Iterator[Outcome]:
    """The outcomes of consecutive seeds, computed in several processes."""
    seeds = range(first, first + count)
    if jobs <= 1:
        yield from map(_outcome, seeds)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_outcome, seeds, chunksize=16)
