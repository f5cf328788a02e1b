"""Batches whose tensors are too large for the caches run their first layers some samples at a time.

The idea is that of depth-first tiling (K. Goetschalckx et al., DepFiN: A 12-nm Depth-First, High-Resolution CNN Processor for IO-Efficient
Inference, JSSC 2023, and before it M. Alwani et al., Fused-layer CNN accelerators, MICRO 2016), along the batch alone: samples do not
depend on each other, so that nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import InternalError
from ..ir.arith import divisors
from ..ir.graph import Binding, ConstRef, Function, OpCall, Operand, TensorType, Value
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ir.stmt import Attrs
from ..ops.builder import GraphBuilder
from ..ops.registry import get

_COMPUTES = ("anchor", "reduction", "row_reduction")
"""Kinds of operators that read their operands from memory, whatever made them."""
_BY_SAMPLE = frozenset(
    {"conv2d", "conv1d", "conv3d", "conv2d_transpose", "max_pool2d", "avg_pool2d", "global_avg_pool2d"}
)


@dataclass(frozen=True, slots=True)
class Split:
    """How a batch is split.

    Attributes:
        samples: in a trip of the loop; trips: how many there are.
        end: the bindings before this one run in the loop, but for those that do not depend on samples.
        attrs: of each call in the loop, for that many samples.
        given: inputs and constants that the loop reads sample by sample. live: what the rest of the graph reads of the loop's.
    """

    samples: int
    trips: int
    end: int
    attrs: Mapping[int, Attrs]
    given: tuple[Operand, ...]
    live: tuple[Value, ...]


@dataclass(frozen=True)
class SplitBatch:
    """Run the first layers of a batch in a loop over samples, where their tensors for all of it leave the caches that weights and one
    sample's tensors stay in.

    Attributes:
        near_bytes: what operands and result of a layer may take to count as near; 0 to split nothing.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset()
    near_bytes: int

    def run(self, module: IRModule) -> IRModule:
        split = plan_split(module.main, self.near_bytes)
        return module if split is None else _apply(module, split)


# what may be split


def plan_split(main: Function, near_bytes: int) -> Split | None:
    """Which layers of a graph run some samples at a time; None where all of it stays as it is.

    A layer is large where an operand of it is another layer's result, it and the layer's result take more than `near_bytes`, and one
    sample's share of them is no less than the weights, which every trip reads again. The loop ends after the last large layer, where
    a single tensor goes on that is in memory anyway.
    """
    batch = next((p.type.shape[0] for p in main.params if p.type.ndim > 1), 1)
    if not near_bytes or not isinstance(batch, int) or batch < 2 or main.dims or main.attrs.get("updates"):
        return None
    seen = _Samples(main, batch)
    large = [i for i in seen.nbytes if seen.weights[i] * batch <= seen.nbytes[i] > near_bytes]
    if not large:
        return None
    ends = [i + 1 for i in seen.attrs if i >= large[-1]]
    end = next((e for e in ends if _is_seam(main, seen, e)), None)
    if end is None:
        return None
    most = max(seen.nbytes[i] for i in large) // batch
    samples = divisors(batch, max(1, near_bytes // max(most, 1)))[-1]
    if samples == batch:
        return None
    attrs = {i: _sized(a, batch, samples) for i, a in seen.attrs.items() if i < end}
    read = dict.fromkeys(a for i in attrs for a in main.bindings[i].call.args)
    given = tuple(a for a in read if a in seen.given)
    return Split(samples, batch // samples, end, attrs, given, _live(main, seen, end))


@dataclass
class _Samples:
    """The calls from the first on that treat samples alike and apart: their first axis is the batch, or the batch times something.

    Attributes:
        given: inputs that have an element for each sample, and constants beside them; values: and all that depends on samples;
        computed: what layers made, and what was made of that.
        attrs: of each such call, by its place, as a rule tells them.
        nbytes: of the operands and the result that depend on samples, for layers that read what other layers wrote; weights: of
            the other operands.
    """

    main: Function
    batch: int
    given: set[Operand] = field(default_factory=set)
    values: set[Operand] = field(default_factory=set)
    computed: set[Operand] = field(default_factory=set)
    attrs: dict[int, Attrs] = field(default_factory=dict)
    nbytes: dict[int, int] = field(default_factory=dict)
    weights: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.given |= {p for p in self.main.params if p.type.ndim and p.type.shape[0] == self.batch}
        self.values |= self.given
        for i, b in enumerate(self.main.bindings):
            if not any(a in self.values for a in b.call.args):
                continue
            beside = {a for a in b.call.args if isinstance(a, ConstRef) and self._has_samples(a, b)}
            self.given |= beside
            self.values |= beside
            own = [a for a in b.call.args if a in self.values]
            attrs = self._attrs(b, [a in self.values for a in b.call.args])
            if attrs is None:
                return
            self.values |= set(b.results)
            self.attrs[i] = attrs
            is_layer, follows = _kind(b) in _COMPUTES, any(a in self.computed for a in own)
            if is_layer or follows:
                self.computed |= set(b.results)
            if is_layer and follows:
                self.nbytes[i] = sum(t.type.nbytes for t in (*own, *b.results))
                self.weights[i] = sum(a.type.nbytes for a in b.call.args if a not in self.values)

    def _has_samples(self, a: Operand, b: Binding) -> bool:
        """Whether a constant has an element, or several, for each sample of a call's result."""
        is_beside = isinstance(b.call, OpCall) and (b.call.op == "concat" or get(b.call.op).kind == "elementwise")
        out = b.results[0].type
        return is_beside and 0 < a.type.ndim == out.ndim and a.type.shape[0] == out.shape[0] != 1

    def _attrs(self, b: Binding, own: Sequence[bool]) -> Attrs | None:
        """The attributes of a call of some samples; None where it does not treat them apart."""
        if not isinstance(b.call, OpCall) or not all(
            r.type.ndim and r.type.extents[0] % self.batch == 0 for r in b.results
        ):
            return None
        rule = _RULES.get(b.call.op) or (_elementwise if get(b.call.op).kind == "elementwise" else None)
        return None if rule is None else rule(b.call, own, b.results[0].type)


Treats = Callable[[OpCall, Sequence[bool], TensorType], Attrs | None]
"""(call, which arguments depend on samples, result type) -> the attributes for any number of samples, shapes yet to be sized; None where
samples are not treated alike and apart."""


def _elementwise(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    def fits(t: TensorType, is_own: bool) -> bool:
        if is_own:
            return t.ndim == out.ndim and t.shape[0] == out.shape[0]
        return t.ndim < out.ndim or t.shape[0] == 1

    return call.attrs if all(fits(a.type, o) for a, o in zip(call.args, own)) else None


def _first_alone(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    return call.attrs if own[0] and not any(own[1:]) else None


def _matmul(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    x, y = (a.type for a in call.args)
    if all(own):
        return call.attrs if x.ndim == y.ndim == out.ndim > 2 and x.shape[0] == y.shape[0] else None
    is_row = own[0] and y.ndim == 2 and (x.ndim > 2 or not call.attrs["transposed"][0])
    return call.attrs if is_row else None


def _attention(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    q, k, v, *mask = (a.type for a in call.args)
    if not all(own[:3]) or any(t.ndim != out.ndim or t.shape[0] != out.shape[0] for t in (q, k, v)) or out.ndim < 3:
        return None
    return call.attrs if not mask or _elementwise(call, own, out) is not None else None


def _along(name: str) -> Treats:
    """An operator with one axis, or several, in an attribute: not the first, and all of the arguments but those depend on samples."""

    def treats(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
        ndim, given = call.args[0].type.ndim, call.attrs[name]
        axes = () if given is None else (given,) if isinstance(given, int) else given
        return call.attrs if all(own) and axes and all(a % ndim for a in axes) else None

    return treats


def _rows(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    return _first_alone(call, own, out) if out.ndim > 1 else None


def _take(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    return _first_alone(call, own, out) if call.attrs["axis"] % call.args[0].type.ndim else None


def _transpose(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    return call.attrs if call.attrs["axes"][0] == 0 else None


def _reshape(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    return call.attrs.with_(shape=out.shape) if out.size else None


def _slice(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    whole = out.shape[0] == call.args[0].type.shape[0] and (call.attrs["strides"] or (1,))[0] > 0
    if not whole:
        return None
    return call.attrs.with_(**{k: (None, *call.attrs[k][1:]) for k in ("begin", "end") if call.attrs[k]})


def _pad(call: OpCall, own: Sequence[bool], out: TensorType) -> Attrs | None:
    return call.attrs if tuple(call.attrs["pad_width"][0]) == (0, 0) else None


_RULES: dict[str, Treats] = {
    **dict.fromkeys(_BY_SAMPLE, _first_alone),
    **dict.fromkeys(("sum", "prod", "max", "min", "mean"), _along("axes")),
    **dict.fromkeys(("softmax", "log_softmax", "argmax", "argmin", "concat", "split"), _along("axis")),
    **dict.fromkeys(("layer_norm", "rms_norm"), _rows),
    "matmul": _matmul,
    "attention": _attention,
    "take": _take,
    "transpose": _transpose,
    "reshape": _reshape,
    "slice": _slice,
    "pad": _pad,
}


# where the loop ends


def _live(main: Function, seen: _Samples, end: int) -> tuple[Value, ...]:
    """The tensors of the loop that something after it reads."""
    made = {r: None for i in seen.attrs if i < end for r in main.bindings[i].results}
    later = [b for i, b in enumerate(main.bindings) if i >= end or i not in seen.attrs]
    used = {*main.results, *(a for b in later for a in b.call.args)}
    return tuple(v for v in made if v in used)


def _is_seam(main: Function, seen: _Samples, end: int) -> bool:
    """Whether one tensor alone goes on, which is in memory anyway: a layer reads it, or who calls; or a layer made it, and no elementwise
    call joins that."""
    live = _live(main, seen, end)
    if len(live) != 1:
        return False
    readers, pending = set(), [live[0]]
    while pending:
        v = pending.pop()
        if v in main.results:
            return True
        for b in main.bindings[end:]:
            if v in b.call.args:
                readers.add(_kind(b))
                pending += b.results if _kind(b) == "view" else ()
    maker = next(_kind(b) for b in main.bindings if live[0] in b.results)
    return bool(readers & set(_COMPUTES)) or (maker in _COMPUTES and "elementwise" not in readers)


def _kind(b: Binding) -> str:
    """How a call fuses; loops and branches do not."""
    return get(b.call.op).kind if isinstance(b.call, OpCall) else "anchor"


# the graph with the loop


def _sized(attrs: Attrs, batch: int, samples: int) -> Attrs:
    """The shape among attributes, for so many samples."""
    shape = attrs.get("shape")
    return attrs if shape is None else attrs.with_(shape=(shape[0] // batch * samples, *shape[1:]))


def _apply(module: IRModule, split: Split) -> IRModule:
    main = module.main
    g = GraphBuilder(module.entry)
    g.constants = dict(module.constants)
    g.bodies = {name: f for name, f in module.functions.items() if isinstance(f, Function) and name != module.entry}
    known, mapping = set(g.bodies), dict[Operand, Operand]()
    first, rest = main.bindings[: split.end], main.bindings[split.end :]
    for i, b in enumerate(first):
        if i not in split.attrs:
            g.bindings.append(b)
    xs = [
        g.op("reshape", a, shape=(split.trips, a.type.extents[0] // split.trips, *a.type.shape[1:]))
        for a in split.given
    ]

    def body(inner: GraphBuilder, carried: Any, rows: Any) -> Any:
        own: dict[Operand, Operand] = dict(zip(split.given, rows))
        for i, attrs in split.attrs.items():
            b = first[i]
            assert isinstance(b.call, OpCall)
            with inner.origin(b.origin):
                made = inner.op(b.call.op, *(own.get(a, a) for a in b.call.args), **attrs)
            for old, new in zip(b.results, made if isinstance(made, tuple) else (made,), strict=True):
                extent, *others = old.type.extents
                if new.type.extents != (extent // split.trips, *others):
                    raise InternalError(
                        f"{b.call.op} of {split.samples} samples makes {new.type}", why=f"of all {old.type}"
                    )
                own[old] = new
        return (), tuple(own[v] for v in split.live)

    _, stacked = g.scan(body, (), xs)
    for old, new in zip(split.live, stacked):
        mapping[old] = g.op("reshape", new, shape=old.type.shape)
    for b in rest:
        args = tuple(mapping.get(a, a) for a in b.call.args)
        g.bindings.append(with_fields(b, call=with_fields(b.call, args=args)))
    entry = with_fields(main, bindings=tuple(g.bindings), results=tuple(mapping.get(r, r) for r in main.results))
    bodies = {name: f for name, f in g.bodies.items() if name not in known}
    return with_fields(module, functions={**module.functions, **bodies, module.entry: entry}, constants=g.constants)
