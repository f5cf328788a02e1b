"""Differential fuzzing of graph passes: random graphs over all operators and dtypes, each pass alone, all together, and compiled.

A graph grows call by call. Each candidate is evaluated by the NumPy references, once in its own dtypes and once in float64, and is
kept only while the two agree and stay finite: what a pass then changes beyond rounding is the pass's fault.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import dtype as types
from ..compiler import compile
from ..dtype import DType
from ..errors import ShapeError
from ..ir.graph import OpCall, Operand, Value
from ..ir.module import IRModule
from ..ops import GraphBuilder
from ..ops.reference import evaluate, evaluate_call
from ..passes.base import Pipeline
from ..passes.batch import SplitBatch
from ..passes.pipeline import GRAPH
from .graph_loops import MOST_ROWS, add_cond, add_recurrence, add_scan, results_of_last
from .guards import Guards

CHUNK = 16
"""Graphs that a process takes at a time."""
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-47}
"""Rounding of each dtype; that of float64 with room for what its graphs amplify, since nothing more exact tells how much."""
STEEP = {"layer_norm": 300.0, "rms_norm": 300.0}
"""By how much operators may enlarge rounding errors: norms do by one over the root of their eps, where all elements are equal."""
LARGEST = 500.0
"""Values beyond it are not built upon: 16-bit floats are near their end, or have no fraction left."""
EXACT = {"reshape", "transpose", "broadcast_to", "concat", "slice", "pad", "flip", "dilate", "relu", "abs", "negative",
         "maximum", "minimum", "where", "take", "max", "min", "max_pool2d", "maximum_scalar", "minimum_scalar", "optimization_barrier"}  # fmt: skip
"""Operators that round nothing: results of others never reach one that jumps (a comparison, floor, a cast to an integer)."""
JUMPS = {"floor", "ceil", "round", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "argmax", "argmin",
         "logical_not"}  # fmt: skip
UNARY = ("exp", "log", "log1p", "sqrt", "tanh", "sin", "cos", "floor", "ceil", "round", "rsqrt", "erf", "sigmoid", "silu", "gelu",
         "negative", "abs", "relu", "logical_not", "expm1", "softplus", "mish", "hardswish", "elu", "softsign")  # fmt: skip
BINARY = ("add", "subtract", "multiply", "divide", "floor_divide", "power", "maximum", "minimum", "equal", "not_equal", "less",
          "less_equal", "greater", "greater_equal", "logical_and", "logical_or")  # fmt: skip
SCALAR = ("add_scalar", "multiply_scalar", "divide_scalar", "power_scalar", "maximum_scalar", "minimum_scalar")
REDUCTIONS = ("sum", "prod", "max", "min", "mean")


@dataclass
class Made:
    """An operand with its value in its own dtype and in float64."""

    operand: Operand
    own: np.ndarray
    exact: np.ndarray
    rounds: bool = False
    coarsest: float = 0.0

    @property
    def dtype(self) -> DType:
        return self.operand.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.own.shape


def wide(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.float64) if x.dtype.kind == "f" or x.dtype.name == "bfloat16" else x


@dataclass
class Graph:
    """A random graph as it grows."""

    rng: random.Random
    g: GraphBuilder = field(default_factory=GraphBuilder)
    pool: list[Made] = field(default_factory=list)
    inputs: list[np.ndarray] = field(default_factory=list)

    def values(self, shape: tuple[int, ...], d: DType) -> np.ndarray:
        draw = np.random.default_rng(self.rng.randrange(1 << 32))
        if d.is_bool:
            return draw.random(shape) < 0.5
        if d.is_int:
            return draw.integers(1 if d.kind == "uint" else -4, 9, shape).astype(d.numpy)
        x = np.asarray(draw.standard_normal(shape))
        return np.asarray(np.abs(x) + 0.25 if self.rng.random() < 0.3 else x).astype(d.numpy)

    def leaf(self, shape: tuple[int, ...], d: DType, constant: bool | None = None, values: Any = None) -> Made:
        array = self.values(shape, d) if values is None else np.asarray(values).astype(d.numpy)
        if self.rng.random() < 0.6 if constant is None else constant:
            operand: Operand = self.g.constant(array)
        else:
            operand = self.g.input(f"x{len(self.inputs)}", shape, d)
            self.inputs.append(array)
        return Made(operand, array, wide(array), False, EPS.get(d.name, 0.0))

    def call(self, op: str, *args: Made, **attrs: Any) -> Made | None:
        """The call, where it is one that can be judged."""
        if op in JUMPS and any(a.rounds for a in args):
            return None
        if op == "floor_divide" and not args[1].own.all():
            return None
        if op == "cast" and args[0].dtype.is_float and not types.dtype(attrs["dtype"]).is_float and args[0].rounds:
            return None
        before = len(self.g.bindings)
        try:
            result = self.g.op(op, *(a.operand for a in args), **attrs)
        except ShapeError:
            return None
        call = self.g.bindings[-1].call
        assert isinstance(call, OpCall)
        with np.errstate(all="ignore"):
            own = np.asarray(evaluate_call(call, [a.own for a in args])[0])
            to_float = op == "cast" and types.dtype(attrs["dtype"]).is_float
            exact = wide(
                args[0].exact.astype(np.float64) if to_float else evaluate_call(call, [a.exact for a in args])[0]
            )
        eps = max([EPS.get(result.type.dtype.name, 0.0), *(a.coarsest for a in args)])
        eps *= STEEP.get(op, 1.0)
        if not self._is_judged(own, exact, eps) or not (op in JUMPS or _is_steady(call, args, exact, eps)):
            del self.g.bindings[before:]
            return None
        made = Made(result, own, exact, op not in EXACT or any(a.rounds for a in args), eps)
        self.pool.append(made)
        return made

    def bind(self, known: Sequence[Made], results: Sequence[Value]) -> None:
        """Take up the results of the scan or cond that was bound last, where they can be judged.

        Args:
            known: its operands.
        """
        by_operand = {k.operand: k for k in known}
        args = [by_operand.get(a) or self.known_constant(a) for a in self.g.bindings[-1].call.args]
        own, exact = (results_of_last(self.g, [a.exact if e else a.own for a in args], e) for e in (False, True))
        eps = 64 * max([EPS.get(r.type.dtype.name, 0.0) for r in results] + [a.coarsest for a in args])
        if not all(self._is_judged(np.asarray(a), wide(b), eps) for a, b in zip(own, exact)):
            self.g.bindings.pop()
            return
        self.pool += [Made(r, np.asarray(a), wide(b), True, eps) for r, a, b in zip(results, own, exact)]

    def known_constant(self, a: Operand) -> Made:
        array = self.g.constants[a.name]
        return Made(a, array, wide(array))

    def _is_judged(self, own: np.ndarray, exact: np.ndarray, eps: float) -> bool:
        if own.size > 4096 or own.dtype.kind in "iub":
            return own.size <= 4096 and np.array_equal(own, exact)
        a = own.astype(np.float64)
        if not np.isfinite(a).all() or not np.isfinite(exact).all() or (a.size and np.abs(a).max() > LARGEST):
            return False
        scale = np.abs(exact).max() if exact.size else 0.0
        return bool(np.abs(a - exact).max() <= 16 * eps * scale) if a.size and scale else True


def _is_steady(call: OpCall, args: Sequence[Made], exact: np.ndarray, eps: float) -> bool:
    """Whether rounding the operands changes the result little: a mean that cancels to nearly nothing tells nothing."""
    if exact.dtype.kind != "f" or not exact.size:
        return True
    draw = np.random.default_rng(0)
    shaken = [
        a.exact * (1 + 2 * eps * draw.choice((-1.0, 1.0), a.exact.shape)) if a.exact.dtype.kind == "f" else a.exact
        for a in args
    ]
    with np.errstate(all="ignore"):
        change = np.abs(wide(evaluate_call(call, shaken)[0]) - exact).max()
    return bool(change <= 16 * eps * np.abs(exact).max())


def _elementwise(m: Graph, x: Made) -> None:
    r = m.rng
    kind = r.randrange(6)
    if kind == 0:
        m.call(r.choice(UNARY), x)
    elif kind in (1, 2):
        shape = tuple(1 if r.random() < 0.3 else s for s in x.shape)[
            r.randrange(len(x.shape) + 1) if r.random() < 0.3 else 0 :
        ]
        same = [p for p in m.pool if p.shape == x.shape and p.dtype == x.dtype]
        y = r.choice(same) if same and r.random() < 0.5 else m.leaf(shape, x.dtype)
        m.call(r.choice(BINARY), *((x, y) if r.random() < 0.7 else (y, x)))
    elif kind == 3:
        scalar = r.choice((1, 2, 3, 0, -1, 100)) if x.dtype.is_int else r.choice((1, 2, 3, 0.5, -1.5, 0.25))
        m.call(r.choice(SCALAR), x, scalar=scalar)
    elif kind == 4:
        m.call("cast", x, dtype=r.choice(types.ALL).name)
    else:
        m.call("where", m.leaf(x.shape, types.bool_), *r.sample([x, m.leaf(x.shape, x.dtype)], 2))


def _movement(m: Graph, x: Made) -> None:
    r, n = m.rng, len(x.shape)
    axes = r.sample(range(n), n)
    match r.randrange(9):
        case 0:
            m.call("transpose", x, axes=tuple(axes))
        case 1:
            m.call("reshape", x, shape=r.choice([(-1,), (x.own.size, 1), (1, -1), tuple(x.shape[a] for a in axes)]))
        case 2:
            m.call("broadcast_to", x, shape=(2, *x.shape))
        case 3 if n:
            m.call("concat", x, m.leaf(x.shape, x.dtype), axis=r.randrange(n))
        case 4 if n:
            m.call("slice", x, begin=(r.choice((0, 1)),), end=(x.shape[0],), strides=(r.choice((1, 2)),))
        case 5:
            m.call("pad", x, pad_width=tuple((r.randrange(2), r.randrange(3)) for _ in x.shape), value=r.choice((0, 1)))
        case 6 if n:
            m.call("flip", x, axes=(r.randrange(n),))
        case 7 if n:
            m.call("dilate", x, axes=(r.randrange(n),), dilation=2)
        case 8 if n and x.shape[-1]:
            index = m.leaf((3,), types.int64, values=[m.rng.randrange(-x.shape[-1], x.shape[-1]) for _ in range(3)])
            m.call("take", x, index, axis=-1)


def _reduction(m: Graph, x: Made) -> None:
    r, n = m.rng, len(x.shape)
    axes = tuple(sorted(r.sample(range(n), r.randrange(n + 1)))) if r.random() < 0.8 else None
    if r.random() < 0.2 and n:
        m.call(r.choice(("argmax", "argmin")), x, axis=r.randrange(n), keepdims=r.random() < 0.5)
    else:
        m.call(r.choice(REDUCTIONS), x, axes=axes, keepdims=r.random() < 0.5)


def _scaled(m: Graph, y: Made | None, channels: int, axis: int) -> None:
    """What rewrites look for behind a product: a bias, a factor for each channel, in the result's dtype."""
    if y is None:
        return
    shape = [1] * len(y.shape)
    shape[axis] = channels
    for op in m.rng.sample(("add", "multiply", "add", "relu"), m.rng.randrange(4)):
        if y is not None:
            d = y.dtype
            values = m.rng.choice((None, np.full(shape, 100 if d.is_int else 0.25)))
            y = m.call(op, y) if op == "relu" else m.call(op, y, m.leaf(tuple(shape), d, True, values))


def _product(m: Graph, x: Made) -> None:
    r = m.rng
    d = x.dtype
    other = r.choice((types.int8, types.uint8)) if d.is_int and d.bits == 8 else d
    columns = r.choice((1, 3, 8, 17))
    if not x.shape:
        return
    if r.random() < 0.7 and len(x.shape) >= 2:
        out = {"out_dtype": r.choice((None, None, d.accumulator.name))}
        y = m.call("matmul", x, m.leaf((x.shape[-1], columns), other), **out)
        _scaled(m, y, columns, -1)
    else:
        bias = [m.leaf((columns,), d.accumulator if d.is_int else d)] if r.random() < 0.5 else []
        _scaled(m, m.call("linear", x, m.leaf((columns, x.shape[-1]), other), *bias), columns, -1)


def _image(m: Graph, x: Made) -> None:
    """Convolutions, pools and batch normalisation, over an image of the operand's dtype."""
    r, d = m.rng, x.dtype
    layout = r.choice(("NCHW", "NHWC"))
    c, o, k = r.choice((1, 4)), r.choice((3, 8)), r.choice((1, 3))
    axis = 1 if layout == "NCHW" else 3
    images = [p for p in m.pool if len(p.shape) == 4 and p.dtype == d and all(p.shape)]
    image = r.choice(images) if images and r.random() < 0.6 else m.leaf((1, c, 5, 6) if axis == 1 else (1, 5, 6, c), d)
    c = image.shape[axis]
    match r.randrange(4):
        case 0 | 1:
            other = r.choice((types.int8, types.uint8)) if d.is_int and d.bits == 8 else d
            hwio = r.random() < 0.5
            weight = m.leaf((k, k, c, o) if hwio else (o, c, k, k), other)
            y = m.call(
                "conv2d", image, weight, padding=k // 2, stride=r.choice((1, 2)), layout=layout,
                kernel_layout="HWIO" if hwio else "OIHW",
            )  # fmt: skip
            if y is not None and d.is_float and r.random() < 0.5:
                stats = [m.leaf((o,), d, True) for _ in range(3)] + [m.leaf((o,), d, True, np.full(o, 0.8))]
                y = m.call("batch_norm", y, *stats, axis=axis)
            _scaled(m, y, o, axis)
        case 2:
            m.call(r.choice(("max_pool2d", "avg_pool2d")), image, kernel=2, stride=r.choice((1, 2)), layout=layout)
        case 3:
            m.call("global_avg_pool2d", image, layout=layout)


def _rows(m: Graph, x: Made) -> None:
    r, d = m.rng, x.dtype
    if not x.shape or not d.is_float:
        return
    n = x.shape[-1]
    match r.randrange(5):
        case 0:
            m.call(r.choice(("softmax", "log_softmax")), x, axis=r.randrange(len(x.shape)))
        case 1:
            m.call("layer_norm", x, m.leaf((n,), d), m.leaf((n,), d))
        case 2:
            m.call("rms_norm", x, m.leaf((n,), d))
        case 3 if len(x.shape) >= 2:
            _attention(m, x)
        case 4 if len(x.shape) == 2 and n:
            labels = m.leaf((x.shape[0],), types.int64, values=[r.randrange(n) for _ in range(x.shape[0])])
            m.call("cross_entropy", x, labels)


def _attention(m: Graph, x: Made) -> None:
    """As one call, or as its parts."""
    r, d, stack = m.rng, x.dtype, x.shape[:-2]
    keys, values = m.leaf((*stack, 5, x.shape[-1]), d), m.leaf((*stack, 5, 4), d)
    if r.random() < 0.5:
        m.call("attention", x, keys, values, causal=r.random() < 0.5)
        return
    turned = (*range(len(stack)), len(stack) + 1, len(stack))
    scores = m.call("matmul", x, m.call("transpose", keys, axes=turned) or keys)
    if scores is not None and r.random() < 0.5:
        scores = m.call("multiply_scalar", scores, scalar=0.3)
    if scores is not None and r.random() < 0.5:
        scores = m.call("add", scores, m.leaf(r.choice(((5,), (x.shape[-2], 1), ())), d))
    weights = scores and m.call("softmax", scores, axis=-1)
    if weights is not None:
        m.call("matmul", weights, values)


def _slices(m: Graph, x: Made) -> None:
    """Slices added to a tensor, or put in their places."""
    r, d = m.rng, x.dtype
    if not x.shape or not x.shape[0] or d.is_bool:
        return
    count = r.randrange(1, 9)
    places = [r.randrange(-x.shape[0], x.shape[0]) for _ in range(count)]
    index = m.leaf((count,), r.choice((types.int64, types.int32)), values=places)
    m.call(r.choice(("scatter_add", "scatter")), x, index, m.leaf((count, *x.shape[1:]), d))


def _control(m: Graph, x: Made) -> None:
    """A scan over an operand, or a cond."""
    r, d = m.rng, x.dtype
    if d.is_bool or x.own.size > 256:
        return
    if not x.shape or x.shape[0] > MOST_ROWS or r.random() < 0.3:
        pred = m.leaf((), types.bool_)
        operands = [x, m.leaf(x.shape, d)]
        m.bind((pred, *operands), add_cond(m, pred.operand, [o.operand for o in operands]))
        return
    if d.is_float and r.random() < 0.4:
        trips, n, a, b = r.randrange(1, 5), r.randrange(1, 4), r.randrange(2, 7), r.randrange(2, 7)
        leaves = [m.leaf(shape, d) for shape in ((n, b), (a, b), (b,), (trips, n, a), (a, b))]
        m.bind(leaves, add_recurrence(m, *(leaf.operand for leaf in leaves)))
        return
    row = x.shape[1:]
    carried = [m.leaf(row, d) for _ in range(r.randrange(1, 3))]
    scanned = [x] + ([m.leaf(x.shape, d)] if r.random() < 0.4 else [])
    others = [m.leaf((row[-1], r.choice((2, row[-1]))) if len(row) == 2 else row, d) for _ in range(r.randrange(2))]
    groups = (carried, scanned, others)
    results = add_scan(m, *([o.operand for o in group] for group in groups))
    m.bind([*carried, *scanned, *others], results)


STEPS: tuple[Callable[[Graph, Made], None], ...] = (_elementwise, _elementwise, _elementwise, _movement, _movement, _reduction,
                                                    _product, _product, _image, _rows, _slices, _control)  # fmt: skip


def random_graph(seed: int) -> tuple[IRModule, list[np.ndarray], list[float]]:
    """A module, its inputs, and the coarsest rounding behind each of its results."""
    m = Graph(random.Random(seed))
    favoured = m.rng.choice(types.ALL)
    for shape in ((4, 6), (2, 3, 5)):
        m.pool.append(m.leaf(shape, favoured if m.rng.random() < 0.7 else m.rng.choice(types.ALL), False))
    for _ in range(m.rng.randint(3, 12)):
        recent = m.pool[-3:] if m.rng.random() < 0.7 else m.pool
        m.rng.choice(STEPS)(m, m.rng.choice(recent))
    used = {a for b in m.g.bindings for a in b.call.args}
    results = [p for p in m.pool if p.operand not in used] or m.pool[-1:]
    results += [p for p in m.pool[2:] if p.operand in used and m.rng.random() < 0.15]
    return m.g.build(*(p.operand for p in results)), m.inputs, [p.coarsest for p in results]


def differs(got: Any, want: Any, eps: float) -> str:
    """What is wrong with a result; "" where nothing is."""
    got, want = np.asarray(got), np.asarray(want)
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if want.dtype.kind in "iub":
        return "" if np.array_equal(got, want) else f"{got.ravel()[:4]} instead of {want.ravel()[:4]}"
    a, b = got.astype(np.float64), want.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return "infinities or NaN"
    scale = np.abs(b).max() if b.size else 0.0
    error = float(np.abs(a - b).max()) if b.size else 0.0
    return "" if error <= 64 * eps * (scale + 1e-6) else f"largest difference {error:.3g} of {scale:.3g}"


def run_graph(seed: int, native: bool = True) -> str:
    """The first stage that changes the answer of a seed's graph, with what is wrong; "" where all agree."""
    module, inputs, eps = random_graph(seed)
    want = evaluate(module, inputs)

    def judge(stage: str, got: list[Any]) -> str:
        wrong = (
            f"{stage}: result {i}: {d}" for i, (a, b, e) in enumerate(zip(got, want, eps)) if (d := differs(a, b, e))
        )
        return next(wrong, "")

    try:
        for p in GRAPH.passes:
            if p.requires <= module.facts:  # the others see it in the pipeline below
                verdict = judge(type(p).__name__, evaluate(Pipeline((p,), module.facts).run(module), inputs))
                if verdict:
                    return verdict
        stages: list[str] = []
        split = SplitBatch(near_bytes=1)  # whatever the sizes are
        Pipeline((*GRAPH.passes, split)).run(
            module, lambda name, after: stages.append(judge(f"after {name}", evaluate(after, inputs)))
        )
        verdict = next((s for s in stages if s), "")
        if verdict or not native:
            return verdict
        exe, guards = compile(module, num_threads=1), Guards()
        out = guards.around_all(np.full(o.shape, 77, types.dtype(o.dtype).numpy) for o in exe.outputs)
        exe(*guards.around_all(inputs), out=tuple(out) if len(out) > 1 else out[0])
        return judge("native", out) or (f"native: {guards.damage()}" if guards.damage() else "")
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _judge(seeds: range) -> list[tuple[int, str]]:
    return [(seed, run_graph(seed)) for seed in seeds]


def verdicts(first: int, count: int, jobs: int = 1) -> Iterator[tuple[int, str]]:
    """(seed, what is wrong or "") of consecutive seeds, computed in several processes."""
    chunks = [range(i, min(i + CHUNK, first + count)) for i in range(first, first + count, CHUNK)]
    if jobs <= 1:
        for chunk in chunks:
            yield from _judge(chunk)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(_judge, chunks):
            yield from part
