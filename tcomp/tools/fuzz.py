"""Differential fuzzing of schedules: random expressions, random primitives, three ways to run each.

The kernel as written and the scheduled kernel run in the interpreter, the scheduled kernel runs natively, or as CUDA C on the emulator.
All three must agree; which of them differs names the layer at fault.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from ..analysis.check import check
from ..analysis.regions import blocks_under
from ..codegen.lowering import lower
from ..compiler import compile
from ..errors import TargetError, UnsupportedError
from ..ir.equal import structural_equal
from ..ir.expr import Var
from ..ir.interp import OutOfBounds, evaluate, poisoned, run
from ..ir.primfunc import PrimFunc
from ..ir.repro import as_python, from_python
from ..ir.stmt import Allocate, For, walk_statements
from ..schedule import BlockRef, Refusal, Trace
from ..schedule.primitives import ALL
from ..schedule.primitives.annotate import crosses_threads
from ..schedule.schedule import Schedule
from .expressions import random_kernel
from .guards import Guards
from .proposals import LATER_RECIPES, METHODS, RECIPES, Choice, proposals, too_big
from .races import races

CHUNK = 16
"""Cases that a process takes at a time."""
CASE_SECONDS = 120
SHORT = 4
"""The largest extents of kernels whose loops are written out."""


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel and steps.

    Attributes:
        kernel: Python that builds it (`ir.repro`); by default the seed's random kernel.
        sizes: the values of that kernel's symbolic extents.
    """

    seed: int
    choices: tuple[Choice, ...]
    kernel: str = field(default="", repr=False)
    sizes: tuple[int, ...] = ()

    def build(self) -> tuple[PrimFunc, dict[Var, int]]:
        """The kernel and its symbolic extents' values."""
        if not self.kernel:
            is_short = any(c.method in LATER_RECIPES for c in self.choices)  # written out whole
            return random_kernel(self.seed, 0.1, SHORT) if is_short else random_kernel(self.seed)
        func = from_python(self.kernel)
        return func, dict(zip(func.dims, self.sizes, strict=True))


@dataclass
class Outcome:
    """What a case did.

    Attributes:
        layer: "" where all agreed; else "kernel" (it is refused), "schedule" (a legal step failed or changed the answer), "race" (a loop was accepted
            whose iterations depend on one another), "lowering", "native"; "replay" where the trace gives something else;
            "printer" where its reproducer builds something else.
        steps: the names of the steps that were applied.
        refused: name and reason of those that were not.
        harmless: of the refused ones that were applied all the same, those that did no harm; None where none was tried.
        unsupported: why the target has no code for the schedule; "" where it has.
    """

    case: Case
    layer: str = ""
    detail: str = ""
    trace: str = ""
    steps: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    harmless: list[tuple[str, str]] | None = None
    tried: int = 0
    unsupported: str = ""
    scheduled: PrimFunc | None = field(default=None, repr=False)


BINDINGS = ("bind", "bind", "bind", "cache_read", "cache_write", "set_scope", "compute_at")
"""Steps of which a GPU's schedule has more than others."""


def make_case(seed: int, target: str = "cpu") -> Case:
    """The case of a seed; for a GPU, with threads besides."""
    rng = random.Random(seed * 7919 + 1)
    methods = [rng.choice(METHODS) for _ in range(rng.randint(1, 14))]
    if rng.random() < 0.4:
        methods[0] = rng.choice(tuple(RECIPES))  # many recipes work only before anything else was done
    later = random.Random(seed * 7919 + 2)
    if later.random() < 0.06:
        methods[0] = later.choice(tuple(LATER_RECIPES))
    if target.startswith("cuda"):
        methods += rng.choices(BINDINGS, k=rng.randint(1, 6))
    return Case(seed, tuple(Choice(m, tuple(rng.randrange(1 << 16) for _ in range(5))) for m in methods))


def apply_choices(
    sch: Schedule,
    choices: Sequence[Choice],
    outcome: Outcome,
    on_refusal: Callable[[Schedule, str, tuple[Any, ...], Refusal], None] | None = None,
) -> None:
    """Apply each step that its check accepts."""
    for choice in choices:
        for name, args in proposals(sch, choice):
            if any(_gone(sch, v) for v in args):
                continue  # an earlier step of a recipe was refused, or consumed the handle
            refusal = sch.why_not(name, *args)
            if refusal is not None:
                outcome.refused.append((name, refusal.why))
                if on_refusal is not None:
                    on_refusal(sch, name, args, refusal)
                continue
            before = sch.copy()
            _name_loops(sch, args)
            getattr(sch, name)(*args)
            if too_big(sch.func):
                sch.restore(before)
                continue
            check(sch.func)
            outcome.steps.append(name)


def _gone(sch: Schedule, handle: Any) -> bool:
    if isinstance(handle, BlockRef):
        return handle.name not in sch.func.blocks
    return isinstance(handle, Var) and handle not in sch.func.loops


def _name_loops(sch: Schedule, args: tuple[Any, ...]) -> None:
    """Fetch loops as a user would, so that the trace can name them."""
    for v in args:
        if isinstance(v, Var) and not sch.trace.knows(v):
            sch.get_loops(blocks_under(sch.func.loops[v])[0].name)


def make_inputs(func: PrimFunc, seed: int, dims: Mapping[Var, int] | None = None) -> list[np.ndarray]:
    """Small whole numbers, so that sums and products are exact in every dtype and in every order."""
    rng = np.random.default_rng(seed)
    arrays = []
    for b in func.inputs:
        shape = tuple(evaluate(e, dims or {}) for e in b.shape)
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


def run_case(case: Case, native: bool = True, anyway: bool = False, target: str = "cpu") -> Outcome:
    """Run a case all ways and compare.

    Args:
        target: what native code is for.
        anyway: try refused steps all the same, to find needless refusals.
    """
    outcome = Outcome(case)
    stage = "kernel"
    try:
        func, dims = case.build()
        sch = Schedule(func)
        stage = "schedule"
        inputs = make_inputs(func, case.seed, dims)
        want = run(func, inputs, dims)
        probe = Probe(inputs, dims, want) if anyway else None
        apply_choices(sch, case.choices, outcome, probe)
        if probe is not None:
            outcome.harmless, outcome.tried = probe.harmless, probe.tried
        outcome.trace, outcome.scheduled = str(sch.trace), sch.func
        if not structural_equal(from_python(as_python(sch.func)), sch.func):
            outcome.layer, outcome.detail = "printer", "the reproducer builds another program"
            return outcome
        again = Trace.from_json(sch.trace.as_json()).replay(Schedule(func))
        if not structural_equal(again.func, sch.func):
            outcome.layer, outcome.detail = "replay", "the trace builds another program"
            return outcome
        got = run(sch.func, inputs, dims)
        if not all(map(agree, got, want)):
            return _differs(outcome, "schedule", got, want)
        found = races(sch.func, inputs, dims, cooperating(sch.func))
        if found:
            outcome.layer, outcome.detail = "race", found[0]
            return outcome
        if native:
            stage = "native"
            got = _run_native(sch, inputs, dims, target)
            if not all(map(agree, got, want)):
                return _differs(outcome, "native", got, want)
    except (UnsupportedError, TargetError) as error:
        if stage != "native":
            raise
        outcome.unsupported = f"{error.what}: {error.why}"
    except Exception as error:
        outcome.layer, outcome.detail = stage, f"{type(error).__name__}: {error}"
    return outcome


def _run_native(sch: Schedule, inputs: Sequence[np.ndarray], dims: Mapping[Var, int], target: str) -> list[np.ndarray]:
    """The results of the compiled kernel; what it does not write stays poison.

    Raises:
        OutOfBounds: it wrote beside its arrays.
    """
    guards = Guards()
    out = guards.around_all(poisoned(sch.func, dims))
    compile(sch, target=target)(*guards.around_all(inputs), out=tuple(out) if len(out) > 1 else out[0])
    if guards.damage():
        raise OutOfBounds(guards.damage())
    return out


def cooperating(func: PrimFunc) -> frozenset[Var]:
    """The loops whose iterations reduce together, as threads of a GPU."""
    return frozenset(v for v, s in func.loops.items() if s.thread.startswith("threadIdx") and crosses_threads(func, s))


class Probe:
    """Applies refused steps all the same, and tells those that would have done no harm."""

    def __init__(self, inputs: Sequence[np.ndarray], dims: Mapping[Var, int], want: Sequence[np.ndarray]) -> None:
        self.inputs, self.dims, self.want = inputs, dims, want
        self.tried = 0
        self.harmless: list[tuple[str, str]] = []

    def __call__(self, sch: Schedule, name: str, args: tuple[Any, ...], refusal: Refusal) -> None:
        self.tried += 1
        try:
            func, _ = ALL[name].apply(sch.func, *args)
            if structural_equal(func, sch.func) or too_big(func):
                return
            check(func)
            lowered = lower(func)
            if not (self._is_modest(func) and self._is_modest(lowered)):
                return
            if any(isinstance(x, For) and x.kind == "vectorized" for x in walk_statements(lowered.body)):
                return  # there are no vectors of vectors
            results = [run(f, self._flat(f), self.dims) for f in (func, lowered)]
            right = all(agree(a.reshape(-1), b.reshape(-1)) for got in results for a, b in zip(got, self.want))
            if right and not races(func, self._flat(func), self.dims, cooperating(func)):
                self.harmless.append((name, refusal.why))
        except Exception:
            return  # it cannot be done at all

    def _is_modest(self, func: PrimFunc) -> bool:
        """Whether its buffers fit into memory."""
        inner = [x.buffer for x in walk_statements(func.body) if isinstance(x, Allocate)]
        return all(prod(evaluate(e, self.dims) for e in b.shape) < 1 << 20 for b in (*func.allocs, *inner))

    def _flat(self, func: PrimFunc) -> list[np.ndarray]:
        # copies: what is refused may well write to an input
        return [(a.reshape(-1) if b.ndim == 1 else a).copy() for a, b in zip(self.inputs, func.inputs)]


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


def shrink(case: Case, layer: str, native: bool = True, target: str = "cpu") -> Case:
    """The case without the steps that the failure does not need."""
    choices = list(case.choices)
    i = 0
    while i < len(choices):
        fewer = replace(case, choices=tuple(choices[:i] + choices[i + 1 :]))
        if run_case(fewer, native, target=target).layer == layer:
            choices = list(fewer.choices)
        else:
            i += 1
    return replace(case, choices=tuple(choices))


def script(outcome: Outcome) -> str:
    """A failure as a Python script: the kernel, the schedule, the comparison."""
    func, dims = outcome.case.build()
    sizes = ", ".join(f"func.dims[{i}]: {dims[v]}" for i, v in enumerate(func.dims))
    return (
        as_python(func, "func")
        + "\nfrom tcomp import Schedule, compile\nfrom tcomp.ir.interp import run\nfrom tcomp.tools.fuzz import agree, make_inputs\n"
        + f"sch = Schedule(func)\n{outcome.trace}\nprint(sch)\ndims = {{{sizes}}}\n"
        + f"inputs = make_inputs(func, {outcome.case.seed}, dims)\nwant = run(func, inputs, dims)\n"
        + "print('interpreter agrees:', all(map(agree, run(sch.func, inputs, dims), want)))\n"
        + "out = compile(sch)(*inputs)\nprint('native agrees:', all(map(agree, out if isinstance(out, tuple) else [out], want)))\n"
    )


def _outcomes(seeds: Sequence[int], anyway: bool, target: str) -> list[Outcome]:
    """The outcomes of some seeds, as they travel between processes. Here and not in `__main__`, which those cannot import."""
    results = []
    for seed in seeds:
        with _time_limit(CASE_SECONDS):
            results.append(run_case(make_case(seed, target), anyway=anyway, target=target))
        results[-1].scheduled = None
    return results


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """A case that does not end becomes one that fails (where the system has alarms)."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError(f"the case took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcomes(first: int, count: int, jobs: int, anyway: bool = False, target: str = "cpu") -> Iterator[Outcome]:
    """The outcomes of consecutive seeds, computed in several processes; a case that kills its process is one of them."""
    chunks = [range(i, min(i + CHUNK, first + count)) for i in range(first, first + count, CHUNK)]
    if jobs <= 1:
        for chunk in chunks:
            yield from _outcomes(chunk, anyway, target)
        return
    while chunks:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(_outcomes, chunk, anyway, target) for chunk in chunks]
            try:
                for future in futures:
                    yield from future.result()
                    chunks.pop(0)
                return
            except BrokenProcessPool:
                pass  # found one by one, then the rest goes on in a new pool
        for seed in chunks.pop(0):
            yield _alone(seed, anyway, target)


def _alone(seed: int, anyway: bool, target: str) -> Outcome:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_outcomes, [seed], anyway, target).result()[0]
        except BrokenProcessPool:
            return Outcome(make_case(seed, target), "native", "the process died")
