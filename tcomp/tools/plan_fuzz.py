"""Random decisions of the default rules over random kernels: each is refused, or computes what the operators say."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

import numpy as np

from .. import dtype as types
from ..backends import backend_of
from ..compiler import compile
from ..driver import lower
from ..errors import InternalError, ScheduleError, TcompError
from ..ir.graph import Operand
from ..ir.module import IRModule
from ..ops import GraphBuilder
from ..ops.reference import evaluate
from ..passes import before_packing
from ..schedule import Trace
from ..schedule.rules.cpu.layout import CpuLayout
from ..target import CpuTarget, Target
from ..tuner.build import LocalExecutor
from ..tuner.database import Database, Key, Record
from ..tuner.layouts import layers_of
from ..tuner.measure import Interval
from ..tuner.source import TunedSchedules
from ..tuner.space import Candidate, Space
from .graph_fuzz import differs, random_graph
from .guards import Guards

TARGETS = (
    "cpu",
    "cpu -num-cores=1",
    "llvm -mcpu=haswell -num-cores=2",
    "llvm -mcpu=nehalem -num-cores=2",
    "llvm -mcpu=skylake-avx512",
)
"""What decisions are for; those that this machine cannot run are left out."""
LIMIT_S = 60.0
MEMORY = 8 << 30
EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Outcome:
    """One graph.

    Attributes:
        kinds: how many candidates of each rule were "right", "refused" (by a step), "unfit" (by the compiler) or took "long". wrong: what is
            wrong with the results, and by which candidates; "" where nothing is.
    """

    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: str = ""


def _extent(r: random.Random, most: int = 130) -> int:
    """Small ones as often as large ones, and those around vectors."""
    return min(most, max(1, round(2 ** r.uniform(0, 7.1)) + r.choice((0, 0, 0, -1, 1))))


def operator_graph(seed: int, kinds: Sequence[Kind] = ()) -> tuple[IRModule, list[np.ndarray], list[float]]:
    """One operator of a kind that has a rule of its own, with extents of any size, and often one that follows it."""
    r, rng, g = random.Random(seed), np.random.default_rng(seed), GraphBuilder()
    inputs: list[np.ndarray] = []

    def leaf(*shape: int) -> Operand:
        array = rng.integers(-2, 3, shape).astype(np.float32)
        if r.random() < 0.4:
            return g.constant(array)
        inputs.append(array)
        return g.input(f"x{len(inputs)}", shape)

    y = r.choice(kinds or _KINDS)(r, g, leaf)
    if r.random() < 0.4:
        y = g.relu(y)
    module = g.build(y)
    # a row of equal numbers is normalised by what rounding leaves
    is_normed = any(b.call.op == "layer_norm" for b in module.main.bindings)
    return module, inputs, [4 * EPS if is_normed else EPS]


Leaf = Callable[..., Operand]
Kind = Callable[[random.Random, GraphBuilder, Leaf], Operand]


def _matmul(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    m, k, n = (_extent(r) for _ in range(3))
    stack = r.choice(((), (), (r.randrange(1, 4),)))
    return g.matmul(leaf(*stack, m, k), leaf(*stack, k, n))


def _few_rows(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    """With a matrix that some L2 caches hold, and some do not."""
    k, n = r.randrange(60, 900), r.randrange(60, 900)
    return g.matmul(leaf(r.randrange(1, 9), k), leaf(k, n))


def _sum_of_rows(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    return g.op("sum", leaf(r.randrange(60, 900), r.randrange(60, 900)), axes=(0,))


def _conv3x3(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    """Of a constant weight and some channels, which may go by Winograd's algorithm."""
    c, o = r.randrange(16, 70), r.randrange(16, 70)
    weight = np.random.default_rng(r.randrange(1 << 30)).integers(-2, 3, (o, c, 3, 3)).astype(np.float32)
    return g.op("conv2d", leaf(1, c, r.randrange(6, 30), r.randrange(6, 30)), g.constant(weight), padding=1)


def _conv(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    c, o, size = _extent(r, 40), _extent(r, 40), (r.randrange(3, 24), r.randrange(3, 24))
    kernel, groups = r.choice((1, 3, 3, 3, 5, 7)), r.choice((1, 1, 2, 0))
    if groups == 0:  # depthwise
        groups, per, o = c, 1, c
    else:
        c, o, per = c * groups, o * groups, c
    stride = r.choice((1, 1, 2))
    kernel = min(kernel, *size)
    how = {"padding": r.randrange(kernel // 2 + 1), "stride": stride, "groups": groups}
    return g.op("conv2d", leaf(r.choice((1, 1, 2)), c, *size), leaf(o, per, kernel, kernel), **how)


def _pool(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    kernel = r.choice((2, 3))
    how = {"kernel": kernel, "stride": r.choice((1, 2)), "padding": r.randrange(2)}
    image = leaf(1, _extent(r, 70), r.randrange(4, 30), r.randrange(4, 30))
    return g.op(r.choice(("max_pool2d", "avg_pool2d")), image, **how)


def _rows(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    x, n = leaf(_extent(r), n := _extent(r, 300)), n
    kind = r.choice(("softmax", "softmax", "layer_norm", "sum", "max", "mean"))
    if kind == "layer_norm":
        return g.op(kind, x, leaf(n), leaf(n))
    return g.op(kind, x, axis=-1) if kind == "softmax" else g.op(kind, x, axes=r.choice(((0,), (1,), (0, 1))))


def _move(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    if r.random() < 0.5:
        shape = [_extent(r, 60) for _ in range(r.choice((2, 3)))]
        axes = list(range(len(shape)))
        r.shuffle(axes)
        return g.op("transpose", leaf(*shape), axes=tuple(axes))
    rows, axis = _extent(r, 60), r.randrange(2)
    parts = [leaf(*((_extent(r, 60), rows) if axis == 0 else (rows, _extent(r, 60)))) for _ in range(r.randrange(2, 5))]
    return g.concat(*parts, axis=axis)


def _attention(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    stack, rows, keys, features = r.randrange(1, 4), _extent(r), _extent(r), _extent(r, 70)
    other = lambda: leaf(stack, keys, features)
    return g.attention(leaf(stack, rows, features), other(), other(), causal=r.random() < 0.3)


def _halves(r: random.Random, g: GraphBuilder, leaf: Leaf) -> Operand:
    """A product of 16-bit floats, its operands turned or not, and large enough for matrix instructions more often than not."""
    m, k, n = (r.randrange(10, 120) for _ in range(3))
    stack, kind = r.choice(((), (), (r.randrange(1, 4),))), r.choice(("float16", "bfloat16"))

    def operand(rows: int, columns: int) -> Operand:
        if r.random() < 0.5:
            return g.op("cast", leaf(*stack, rows, columns), dtype=kind)
        axes = (*range(len(stack)), len(stack) + 1, len(stack))
        return g.transpose(g.op("cast", leaf(*stack, columns, rows), dtype=kind), axes=axes)

    return g.op("cast", g.matmul(operand(m, k), operand(k, n), out_dtype="float32"), dtype="float32")


_KINDS: tuple[Kind, ...] = (
    _matmul, _few_rows, _few_rows, _sum_of_rows, _conv, _conv, _conv3x3, _conv3x3, _pool, _rows, _rows, _move, _attention,
)  # fmt: skip


_GPU_KINDS: tuple[Kind, ...] = (
    _matmul, _halves, _halves, _halves, _conv, _pool, _rows, _rows, _move, _attention, _sum_of_rows,
)  # fmt: skip
"""Kinds for a GPU's rules."""


def _candidate(space: Space, rng: np.random.Generator) -> Candidate:
    """Anything, or something near the default: what is far from it is refused more often."""
    assert space.default is not None
    return space.random(rng) if rng.random() < 0.5 else space.mutated(space.default, rng, int(rng.integers(1, 4)))


def _layouts(module: IRModule, target: CpuTarget, rng: np.random.Generator, told: dict[str, Candidate]) -> Database:
    """Any layouts of the weights of a graph, as records; Winograd's algorithm, which errs more, only where it is the default."""
    records, usual = Database(), CpuLayout(target)
    for layer in layers_of(before_packing(usual).run(module)):
        is_exact = not dict(layer.default(usual).decisions)["tile"]
        choices = [c for c in layer.candidates(target, True) if not (is_exact and dict(c.decisions)["tile"])]
        chosen = choices[int(rng.integers(len(choices)))]
        key = Key.of(layer.question.key, target, None)
        records.accept(Record(key, layer.name, chosen, Interval(1.0, 1.0, 1.0), 0.0, {}))
        told[layer.name] = chosen
    return records


def run_case(seed: int, gpu: str = "") -> Outcome:
    """A graph of a seed, its kernels scheduled by random decisions.

    Args:
        gpu: the target, if it is one; by default CPUs are drawn by chance.
    """
    rng = np.random.default_rng(seed)
    kinds = _GPU_KINDS if gpu else _KINDS
    module, inputs, eps = random_graph(seed) if rng.random() < 0.3 else operator_graph(seed, kinds)
    usable = [t for t in map(Target.parse, TARGETS) if isinstance(t, CpuTarget) and not t.missing_here()]
    target = Target.parse(gpu) if gpu else usable[int(rng.integers(len(usable)))]
    if module.main.dims:
        return Outcome()
    found, traces = Outcome(), {}
    told: dict[str, Candidate] = {}
    has_layouts = isinstance(target, CpuTarget) and rng.random() < 0.5
    records = _layouts(module, target, rng, told) if has_layouts else Database()
    lowered = lower(lambda: module, backend_of(target), True, tuned=TunedSchedules(records))
    for name, func in lowered.module.kernels.items():
        space = Space(func, target)
        if space.default is None:
            continue
        candidate = _candidate(space, rng)
        try:
            traces[name] = Trace(list(space.schedule(candidate).trace.steps))
            told[name] = candidate
        except ScheduleError:
            found.kinds[candidate.rule, "refused"] += 1
    try:
        exe = compile(module, target=target, num_threads=int(rng.integers(1, 3)), schedules=traces, database=records)
    except TcompError as error:
        if isinstance(error, InternalError):
            return Outcome(found.kinds, _named(seed, f"{error.what}: {error.why}", told, gpu))
        found.kinds.update((c.rule, "unfit") for c in told.values())
        return found
    guards = Guards()
    out = guards.around_all(np.full(o.shape, 77, types.dtype(o.dtype).numpy) for o in exe.outputs)
    exe(*guards.around_all(inputs), out=tuple(out) if len(out) > 1 else out[0])
    for got, want, e in zip(out, evaluate(module, inputs, exact=True), eps):
        wrong = differs(got, np.asarray(want).astype(got.dtype), e) or guards.damage()
        if wrong:
            return Outcome(found.kinds, _named(seed, wrong, told, gpu))
    found.kinds.update((c.rule, "right") for c in told.values())
    return found


def _named(seed: int, wrong: str, told: dict[str, Candidate], gpu: str) -> str:
    plans = "".join(f"\n  {name}: {c.to_json()}" for name, c in told.items())
    target = f" --target '{gpu}'" if gpu else ""
    return f"seed {seed}: {wrong}{plans}\n  replay: python -m tcomp.tools plan-fuzz --cases 1 --seed {seed}{target}"


def outcomes(first: int, count: int, jobs: int, gpu: str = "") -> Iterator[Outcome]:
    """Those of consecutive seeds, in processes that may be lost: what takes too long is counted, a crash is wrong."""
    with LocalExecutor(jobs, LIMIT_S, MEMORY) as workers:
        waiting: dict[Future[Outcome], int] = {}
        for seed in range(first, first + count):
            waiting[workers.submit(run_case, seed, gpu)] = seed
            if len(waiting) >= 4 * jobs:
                yield from _ended(waiting)
        while waiting:
            yield from _ended(waiting)


def _ended(waiting: dict[Future[Outcome], int]) -> Iterator[Outcome]:
    for job in wait(waiting, return_when=FIRST_COMPLETED).done:
        seed = waiting.pop(job)
        try:
            yield job.result()
        except TimeoutError:
            yield Outcome(Counter({("", "long"): 1}))
        except Exception as error:
            yield Outcome(wrong=f"seed {seed}: {type(error).__name__}: {error}")
