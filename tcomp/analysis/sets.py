"""Integer sets (islpy) built from index expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.arith import can_prove
from ..ir.expr import (
    EQ,
    LE,
    LT,
    NE,
    Add,
    And,
    Call,
    Const,
    Expr,
    FloorDiv,
    FloorMod,
    Max,
    Min,
    Mul,
    Not,
    Or,
    Sub,
    Var,
)
from ..ir.query import free_vars
from ..lazy import lazy_module

isl = lazy_module("islpy")


class NotAffineError(Exception):
    """An expression that integer sets cannot hold; the question has no proven answer."""


class Space:
    """A set space with some parameters and some dimensions.

    Args:
        params: variables whose value is fixed but unknown.
        dims: number of dimensions.
    """

    def __init__(self, params: Sequence[Var], dims: int) -> None:
        self.params = {v: i for i, v in enumerate(params)}
        space = isl.Space.set_alloc(isl.DEFAULT_CONTEXT, len(params), dims)
        for i, v in enumerate(params):
            space = space.set_dim_name(isl.dim_type.param, i, f"p{i}_{v.name}")
        self.space = space
        self.local = isl.LocalSpace.from_space(space)

    def universe(self) -> Any:
        return isl.Set.universe(self.space)

    def ranged(self, ranges: Mapping[Var, tuple[Expr, Expr]], at: Mapping[Var, int]) -> Any:
        """The points at which variables, dimensions where `at` says so, else parameters, lie in inclusive ranges."""
        points = self.universe()
        for v, (low, high) in ranges.items():
            place = self._place(v, at)
            # with few operations: islpy leaks a little in each
            if place is not None and isinstance(low, Const) and isinstance(high, Const):
                points = points.lower_bound_val(*place, isl.Val.int_from_si(isl.DEFAULT_CONTEXT, low.value))
                points = points.upper_bound_val(*place, isl.Val.int_from_si(isl.DEFAULT_CONTEXT, high.value))
                continue
            value = self.affine(v, at)
            points = points.intersect(value.ge_set(self.affine(low, {})))
            points = points.intersect(value.le_set(self.affine(high, {})))
        return points

    def _place(self, v: Var, at: Mapping[Var, int]) -> tuple[Any, int] | None:
        """Which dimension or parameter a variable is."""
        if v in at:
            return isl.dim_type.set, at[v]
        return (isl.dim_type.param, self.params[v]) if v in self.params else None

    def constant(self, value: int) -> Any:
        return isl.PwAff.from_aff(
            isl.Aff.zero_on_domain(self.local).add_constant_val(isl.Val.int_from_si(isl.DEFAULT_CONTEXT, value))
        )

    def dim(self, position: int) -> Any:
        return isl.PwAff.from_aff(isl.Aff.var_on_domain(self.local, isl.dim_type.set, position))

    def affine(self, e: Expr, positions: Mapping[Var, int]) -> Any:
        """The expression as a piecewise affine function; `positions` places variables among the dimensions.

        Raises:
            NotAffineError: a product of variables, a value from memory...
        """
        match e:
            case Const() if e.dtype.kind == "int":
                return self.constant(e.value)
            case Var():
                if e in positions:
                    return self.dim(positions[e])
                if e in self.params:
                    return isl.PwAff.from_aff(isl.Aff.var_on_domain(self.local, isl.dim_type.param, self.params[e]))
                raise NotAffineError(e.name)
            case Add(a, b):
                return self.affine(a, positions).add(self.affine(b, positions))
            case Sub(a, b):
                return self.affine(a, positions).sub(self.affine(b, positions))
            case Mul(a, Const(value=k)) | Mul(Const(value=k), a):
                return self.affine(a, positions).scale_val(isl.Val.int_from_si(isl.DEFAULT_CONTEXT, k))
            case FloorDiv(a, Const(value=k)) if k > 0:
                return self.affine(a, positions).scale_down_val(isl.Val.int_from_si(isl.DEFAULT_CONTEXT, k)).floor()
            case FloorMod(a, Const(value=k)) if k > 0:
                return self.affine(a, positions).mod_val(isl.Val.int_from_si(isl.DEFAULT_CONTEXT, k))
            case Min(a, b):
                return self.affine(a, positions).min(self.affine(b, positions))
            case Max(a, b):
                return self.affine(a, positions).max(self.affine(b, positions))
            case Call(op="neg", args=(a,)):
                return self.affine(a, positions).neg()
            case _:
                raise NotAffineError(type(e).__name__)

    def condition(self, e: Expr, positions: Mapping[Var, int]) -> Any:
        """The set of points at which a condition holds."""
        match e:
            case And(a, b):
                return self.condition(a, positions).intersect(self.condition(b, positions))
            case Or(a, b):
                return self.condition(a, positions).union(self.condition(b, positions))
            case Not(a):
                return self.condition(a, positions).complement()
            case LT(a) | LE(a) | EQ(a) | NE(a) if a.dtype.kind != "int":
                raise NotAffineError(f"a comparison of {a.dtype}")
            case LT(a, b):
                return self.affine(a, positions).lt_set(self.affine(b, positions))
            case LE(a, b):
                return self.affine(a, positions).le_set(self.affine(b, positions))
            case EQ(a, b):
                return self.affine(a, positions).eq_set(self.affine(b, positions))
            case NE(a, b):
                return self.affine(a, positions).ne_set(self.affine(b, positions))
            case Const():
                return self.universe() if e.value else isl.Set.empty(self.space)
            case _:
                raise NotAffineError(type(e).__name__)


def sample(points: Any, count: int) -> list[int]:
    """The coordinates of one point of a set that is not empty."""
    point = points.sample_point()
    return [point.get_coordinate_val(isl.dim_type.set, i).to_python() for i in range(count)]


def always(condition: Expr, env: Mapping[Var, tuple[Expr, Expr]]) -> bool:
    """Whether a condition holds for all values in the ranges: by arithmetic, else with integer sets."""
    if can_prove(condition, env):
        return True
    if not free_vars(condition):
        return False
    space = Space(list(env), 0)
    try:
        return space.ranged(env, {}).is_subset(space.condition(condition, {}))
    except NotAffineError:
        return False
