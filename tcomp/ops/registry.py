"""What an operator is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ExprError, ShapeError, TcompError, UnsupportedError
from ..ir.graph import Operand, TensorType
from ..ir.stmt import Attrs
from ..te import Tensor

FusionKind = Literal[
    "elementwise", "injective", "reduction", "anchor", "row_reduction", "source", "view", "composite", "scatter"
]
"""How an operator fuses.

elementwise: each output element needs the elements at its own (broadcast) position; injective: it needs one element of
each input, somewhere; reduction: a sum or the like over axes; anchor: matmul, convolution, pooling: keeps elementwise
followers in its write-back; row_reduction: several reductions over the same rows (softmax, layer norm); source: made of
next to nothing, at a price (random numbers): joins elementwise calls, but no product or reduction; view: the same bytes
under another shape, never a kernel; composite: made of other operators, expanded before all else; scatter: stores at computed places:
elementwise and injective calls that lead to it join it, none that follows.
"""

Types = TensorType | tuple[TensorType, ...]
"""The type of a call's result, or those of several."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator. Where it has several results, their types, tensors and arrays are tuples; those of an elementwise one have one
    shape.

    Attributes:
        infer: (argument types, attributes) -> result type; raises ShapeError.
        compute: (argument tensors, attributes, result type) -> result, as a tensor expression.
        reference: (arrays, attributes) -> array, in NumPy, in the arrays' dtype.
        arity: number of arguments; None for any number above 0.
        defaults: attributes and their default values; a `...` has no default.
        flops: (argument types, type of the first result, attributes) -> floating-point operations.
        expand: of a composite: (builder, operands, attributes) -> its results.
    """

    name: str
    infer: Callable[[Sequence[TensorType], Attrs], Any]
    compute: Callable[[Sequence[Tensor], Attrs, Any], Any]
    reference: Callable[..., Any]
    kind: FusionKind
    arity: int | None = 1
    defaults: Mapping[str, Any] = field(default_factory=dict)
    flops: Callable[[Sequence[TensorType], TensorType, Attrs], int] = lambda args, out, attrs: out.size
    expand: Callable[[Any, Sequence[Operand], Attrs], Any] | None = None


OPERATORS: dict[str, Operator] = {}


def register(op: Operator) -> Operator:
    """Add an operator to the table."""
    OPERATORS[op.name] = op
    return op


def get(name: str) -> Operator:
    """The operator of that name.

    Raises:
        UnsupportedError: there is none.
    """
    op = OPERATORS.get(name)
    if op is None:
        near = [n for n in OPERATORS if n.startswith(name[:3])] or sorted(OPERATORS)
        raise UnsupportedError(f"no operator {name!r}", hint=f"one of {', '.join(near)}")
    return op


def attributes(op: Operator, given: Mapping[str, Any]) -> Attrs:
    """The attributes of a call, defaults filled in.

    Raises:
        ShapeError: an unknown attribute, or a missing one.
    """
    unknown = given.keys() - op.defaults.keys()
    if unknown:
        known = ", ".join(op.defaults) or "none"
        raise ShapeError(f"{op.name} has no attribute {sorted(unknown)[0]!r}", why=f"its attributes are {known}")
    merged = {k: given.get(k, v) for k, v in op.defaults.items()}
    missing = [k for k, v in merged.items() if v is ...]
    if missing:
        raise ShapeError(f"{op.name} needs the attribute {missing[0]!r}")
    return Attrs.of({k: tuple(v) if isinstance(v, list) else v for k, v in merged.items()})


def infer(name: str, args: Sequence[TensorType], given: Mapping[str, Any]) -> tuple[tuple[TensorType, ...], Attrs]:
    """The result types and the complete attributes of a call.

    Raises:
        UnsupportedError: no such operator. ShapeError: the arguments do not fit.
    """
    op = get(name)
    if (op.arity is not None and len(args) != op.arity) or not args:
        raise ShapeError(f"{name} takes {op.arity or 'one or more'} arguments, got {len(args)}")
    attrs = attributes(op, given)
    if all(t.is_static for t in args):
        return as_tuple(op.infer(args, attrs)), attrs
    with symbolic(name):
        return as_tuple(op.infer(args, attrs)), attrs


@contextmanager
def symbolic(name: str) -> Iterator[None]:
    """What an operator does not foresee of extents that calls decide is an UnsupportedError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, TcompError) and not isinstance(error, ExprError):
            raise
        first, *_ = str(error).splitlines() or [""]
        raise UnsupportedError(
            f"{name} cannot have symbolic extents there",
            why=f"{type(error).__name__}: {first}",
            hint="give the extents as integers",
        ) from error


def as_tuple(x: Any) -> tuple[Any, ...]:
    """The results of an operator, be it one or several."""
    return x if isinstance(x, tuple) else (x,)


def mismatch(name: str, why: str, *args: TensorType, hint: str = "") -> ShapeError:
    """The error for arguments that do not fit each other."""
    shown = ", ".join(f"argument {i}: {t}" for i, t in enumerate(args))
    return ShapeError(f"cannot apply {name} to {' and '.join(str(t) for t in args)}", why=f"{why} ({shown})", hint=hint)
