"""Stores at places that are computed: a tensor with some elements changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..dtype import DType
from ..errors import ExprError
from ..ir.expr import Add, Expr, Max, Min, Mul, Var, as_expr, as_index
from ..ir.stmt import Attrs
from .tensor import Reduce, Tensor, TensorLoad, axes_of, check_annotations, check_body, shape_of

COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {"add": Add, "mul": Mul, "min": Min, "max": Max}
"""What a value may be combined with that was there, by name."""


@dataclass(frozen=True, eq=False, slots=True)
class Scatter:
    """A computation that begins with a tensor's elements, and at each point of a domain changes one of them.

    Attributes:
        base: what it begins with.
        axes, domain: the points, and the extents of their axes; they run in order, the last axis fastest.
        places: which element a point changes.
        value: what it is combined with, or what takes its place.
        combine: a key of COMBINE, or "set".
    """

    name: str
    base: Tensor
    axes: tuple[Var, ...]
    domain: tuple[Expr, ...]
    places: tuple[Expr, ...]
    value: Expr
    combine: str
    annotations: Attrs

    @property
    def shape(self) -> tuple[Expr, ...]:
        return self.base.shape

    @property
    def dtypes(self) -> tuple[DType, ...]:
        return (self.base.dtype,)

    @property
    def sources(self) -> tuple[Expr, ...]:
        """The expressions that it reads tensors in."""
        return (TensorLoad(self.base, tuple(as_index(0) for _ in self.shape)), *self.places, self.value)


def scatter(
    base: Tensor,
    domain: Any,
    f: Callable[..., tuple[Any, Any]],
    combine: str = "add",
    name: str = "scatter",
    annotations: Mapping[str, int | str] | None = None,
) -> Tensor:
    """A tensor with elements added to, or replaced, at computed places.

        W = te.placeholder((vocabulary, width), name="W")
        G = te.scatter(W, (n, width), lambda i, j: ((place[i], j), U[i, j]))

    An element that several points name gets their values one after another, in the order of the domain, whatever the schedule: sums
    are the same in each run.

    Args:
        base: what the result begins with; where the two lie in one place, nothing is copied.
        domain: extents of the axes.
        f: gets one Var an axis; returns the places, one index for each axis of `base`, each proved inside, and the value.
        combine: "add", "mul", "min" or "max" combines values with what was there; "set" puts them in its place.
        name, annotations: as for `compute`.

    Raises:
        ExprError: `f` takes another number of axes, gives another number of places, or a reduction; `combine` is unknown.
    """
    extents = shape_of(domain, f"scatter {name}")
    axes = axes_of(f, len(extents), name)
    made = f(*axes)
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], tuple):
        raise ExprError(f"scatter {name}: the function returns (places, value)", hint="((index[i], j), value)")
    places, value = tuple(as_index(p) for p in made[0]), as_expr(made[1])
    if len(places) != base.ndim:
        raise ExprError(f"scatter {name}: {len(places)} places for the {base.ndim} axes of {base.name}")
    if value.dtype != base.dtype:
        raise ExprError(f"scatter {name}: a {value.dtype} value for elements of {base.dtype}", hint="cast the value")
    if combine != "set" and combine not in COMBINE:
        raise ExprError(f"scatter {name}: combine={combine!r}", hint=f"one of {', '.join(COMBINE)}, set")
    if combine != "set" and base.dtype.is_bool:
        raise ExprError(f"scatter {name}: truths cannot be combined", hint='combine="set"')
    for e in (*places, value):
        check_body(e, name)
        if isinstance(e, Reduce):
            raise ExprError(f"scatter {name}: a reduction is a stage of its own", hint="compute it as its own tensor")
    op = Scatter(name, base, axes, extents, places, value, combine, check_annotations(annotations, name))
    return Tensor(name, base.shape, base.dtype, op)
