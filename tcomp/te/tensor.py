"""Tensor expressions: what to compute, element by element, with no word on how.

A = te.placeholder((n, k), name="A")
B = te.placeholder((k, m), name="B")
r = te.reduce_axis(k, "r")
C = te.compute((n, m), lambda i, j: te.sum(A[i, r] * B[r, j], axis=r), name="C")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from ..dtype import DType, dtype, float32
from ..errors import ExprError
from ..ir.expr import Const, Expr, Var, as_expr, as_index
from ..ir.node import atom, identity_node, node, unique_nodes, walk
from ..ir.query import MAX_HEIGHT, height
from ..ir.stmt import Attrs
from .reducers import Reducer


@identity_node
class ReduceAxis(Var):
    """A variable that a reduction runs over 0 <= var < extent."""

    extent: Expr = None


@identity_node
class Tensor:
    """An input, or one output of a computation. Index it to use an element in an expression.

    Attributes:
        op: None for a placeholder, else the computation that defines it.
        index: which output of that it is.
    """

    name: str
    shape: tuple[Expr, ...]
    dtype: DType
    op: Computation | None = None
    index: int = 0

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, indices: Any) -> Expr:
        indices = indices if isinstance(indices, tuple) else (indices,)
        if len(indices) != self.ndim:
            raise ExprError(f"tensor {self.name} has {self.ndim} dimensions, got {len(indices)} indices")
        return TensorLoad(self, tuple(as_index(i) for i in indices))

    def __call__(self, *indices: Any) -> Expr:
        return self[indices]

    def __expr__(self) -> Expr:
        if self.ndim:
            raise ExprError(
                f"tensor {self.name} of {self.ndim} dimensions stands for a scalar", hint=f"index it: {self.name}[...]"
            )
        return self[()]


@node
class TensorLoad(Expr):
    """An element of a tensor; create_prim_func turns it into a load of the tensor's buffer."""

    tensor: Tensor = atom()
    indices: tuple[Expr, ...]

    @property
    def dtype(self) -> DType:
        return self.tensor.dtype

    def __text__(self, show: Callable[[Expr], str]) -> str:
        return f"{self.tensor.name}[{', '.join(map(show, self.indices))}]"


@node
class Reduce(Expr):
    """The `index`-th result of combining `sources` over all values of the axes."""

    reducer: Reducer = atom()
    sources: tuple[Expr, ...]
    axes: tuple[ReduceAxis, ...] = atom()
    index: int = 0

    @property
    def dtype(self) -> DType:
        return self.sources[self.index].dtype

    def __text__(self, show: Callable[[Expr], str]) -> str:
        axes = ", ".join(a.name for a in self.axes)
        return f"{self.reducer.name}({', '.join(map(show, self.sources))}, over {axes})"


class Computation(Protocol):
    """What defines tensors: a `Compute` or a `Scatter`.

    Attributes:
        shape, dtypes: of its results; sources: the expressions in which it reads other tensors.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[Expr, ...]: ...

    @property
    def dtypes(self) -> tuple[DType, ...]: ...

    @property
    def sources(self) -> tuple[Expr, ...]: ...


@dataclass(frozen=True, eq=False, slots=True)
class Compute:
    """A computation: at each point of `axes`, one value for each output tensor."""

    name: str
    axes: tuple[Var, ...]
    shape: tuple[Expr, ...]
    bodies: tuple[Expr, ...]
    annotations: Attrs

    @property
    def reduce_axes(self) -> tuple[ReduceAxis, ...]:
        body = self.bodies[0]
        return body.axes if isinstance(body, Reduce) else ()

    @property
    def dtypes(self) -> tuple[DType, ...]:
        return tuple(b.dtype for b in self.bodies)

    @property
    def sources(self) -> tuple[Expr, ...]:
        return self.bodies


def shape_of(shape: Any, where: str) -> tuple[Expr, ...]:
    """Extents as expressions.

    Raises:
        ExprError: one is negative or read from a tensor, or the shape has too many elements.
    """
    extents = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    out = tuple(as_index(e) for e in extents)
    if prod(e.value for e in out if isinstance(e, Const)) >= 2**62:
        raise ExprError(f"{where}: the shape {tuple(extents)} has more elements than can be counted")
    for e in out:
        if height(e) > MAX_HEIGHT:
            raise ExprError(f"{where}: an extent of more than {MAX_HEIGHT} operations, one inside another")
        if isinstance(e, Const) and e.value < 0:
            raise ExprError(f"{where}: a negative extent in the shape {tuple(extents)}")
        if any(isinstance(x, TensorLoad) for x in walk(e)):
            raise ExprError(f"{where}: an extent is read from a tensor", why="extents are known before the kernel runs")
    return out


def var(name: str = "n") -> Var:
    """A symbolic extent: an int64 that is known only when the compiled kernel is called."""
    return Var(name)


def placeholder(shape: Any, dtype: Any = float32, name: str = "A") -> Tensor:
    """An input tensor.

    Args:
        shape: extents; ints or int64 expressions of symbolic Vars.
        dtype: element type.
    """
    return Tensor(name, shape_of(shape, f"placeholder {name}"), _dtype(dtype))


_dtype = dtype


def reduce_axis(extent: Any, name: str = "k") -> ReduceAxis:
    """An axis to reduce over: 0 <= axis < extent.

    Raises:
        ExprError: a negative extent, or one read from a tensor.
    """
    (e,) = shape_of((extent,), f"reduce_axis {name}")
    return ReduceAxis(name, extent=e)


def compute(
    shape: Any,
    f: Callable[..., Any],
    name: str = "compute",
    annotations: Mapping[str, int | str] | None = None,
    *,
    role: str = "",
) -> Any:
    """A tensor whose element at (i, j, ...) is f(i, j, ...).

    Args:
        shape: extents of the result.
        f: gets one Var an axis (named as its own parameters) and returns an expression, or a tuple of expressions for
            several tensors of one shape computed together.
        annotations: notes on the block that computes it, which schedules may read; they change no meaning.
        role: what the block is in an algorithm, as its annotation "role": by it rules find the stages that they know.

    Returns:
        A Tensor, or a tuple of them.

    Raises:
        ExprError: `f` takes another number of axes, a reduction stands inside a larger expression, or an annotation is no name with
            an integer or a text.
    """
    extents = shape_of(shape, f"compute {name}")
    notes = check_annotations({**(annotations or {}), **({"role": role} if role else {})}, name)
    axes = axes_of(f, len(extents), name)
    raw = f(*axes)
    bodies = tuple(as_expr(b) for b in (raw if isinstance(raw, tuple) else (raw,)))
    for body in bodies:
        check_body(body, name)
    if len({type(b) is Reduce and b.axes for b in bodies}) > 1:
        raise ExprError(f"compute {name}: tensors computed together must share one reduction")
    op = Compute(name, axes, extents, bodies, notes)
    suffix = [""] if len(bodies) == 1 else [f"_{i}" for i in range(len(bodies))]
    tensors = tuple(Tensor(name + s, extents, b.dtype, op, i) for i, (s, b) in enumerate(zip(suffix, bodies)))
    return tensors if isinstance(raw, tuple) else tensors[0]


def check_annotations(annotations: Mapping[str, int | str] | None, name: str) -> Attrs:
    """Notes on a block.

    Raises:
        ExprError: one is no name with an integer or a text.
    """
    for key, value in (annotations or {}).items():
        if not isinstance(key, str) or not isinstance(value, (int, str)):
            raise ExprError(
                f"compute {name}: annotation {key!r}: {value!r}", hint="a name, and an integer or a text as its value"
            )
    return Attrs.of(annotations)


def axes_of(f: Callable[..., Any], ndim: int, name: str) -> tuple[Var, ...]:
    """Variables named as a function's parameters."""
    return tuple(Var(n) for n in _axis_names(f, ndim, name))


def _axis_names(f: Callable[..., Any], ndim: int, name: str) -> Sequence[str]:
    params = list(inspect.signature(f).parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in params):
        fixed = [p.name for p in params if p.kind is not p.VAR_POSITIONAL]
        return fixed + [f"i{d}" for d in range(len(fixed), ndim)]
    required = [p for p in params if p.default is p.empty]
    if len(required) != ndim:
        raise ExprError(f"compute {name}: the shape has {ndim} axes but the function takes {len(required)}")
    return [p.name for p in required]


def check_body(body: Expr, name: str) -> None:
    """Raises ExprError where an element is a vector, or a reduction stands inside of it."""
    for source in body.sources if isinstance(body, Reduce) else (body,):
        nodes = [e for e in unique_nodes(source) if isinstance(e, Expr)]
        vector = next((e.dtype for e in nodes if e.dtype.lanes > 1), None)
        if vector is not None:
            raise ExprError(
                f"compute {name}: {vector} is a vector, elements are scalars", hint="schedules make vectors"
            )
        if any(isinstance(e, Reduce) for e in nodes):
            raise ExprError(
                f"compute {name}: a reduction stands inside a larger expression",
                why="each reduction is a stage of its own",
                hint="compute the reduction as its own tensor and use that tensor's elements",
            )
