"""Tensors of extents that calls decide: what `Shape` makes, and the arithmetic of it, while a model is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..ir.arith import simplify
from ..ir.expr import Const, Expr, as_expr
from ..ir.graph import Operand
from .builder import FoldingBuilder


@dataclass(frozen=True, eq=False)
class Extents:
    """An int64 tensor whose elements are integers or expressions of symbolic extents.

    Attributes:
        values: an array of objects.
    """

    values: np.ndarray

    @staticmethod
    def of(values: Any) -> Extents:
        """From nested lists, or an array."""
        flat = np.asarray(values, dtype=object)
        return Extents(np.vectorize(plain, otypes=[object])(flat) if flat.size else flat)

    @property
    def is_known(self) -> bool:
        return all(isinstance(v, int) for v in self.values.reshape(-1))

    def as_operand(self, g: FoldingBuilder) -> Operand:
        """The tensor itself.

        Raises:
            UnsupportedError: an element is symbolic.
        """
        if not self.is_known:
            shown = ", ".join(map(str, self.values.reshape(-1)))
            raise UnsupportedError(f"the extents ({shown}) are used as a tensor", hint="dims= or shapes= fix them")
        return g.constant(self.values.astype(np.int64))


def plain(e: Any) -> int | Expr:
    """An element: an integer where it is known."""
    if isinstance(e, Expr):
        e = simplify(e, {})
        return int(e.value) if isinstance(e, Const) else e
    return int(e)


def joined(parts: Sequence[Extents], axis: int) -> Extents:
    return Extents.of(np.concatenate([p.values for p in parts], axis))


def elementwise(f: Any, *args: Extents) -> Extents:
    """A function of numbers and expressions, element by element, with broadcasting."""
    arrays = np.broadcast_arrays(*(a.values for a in args))
    out = np.empty(arrays[0].shape, dtype=object)
    for i in np.ndindex(out.shape):
        out[i] = plain(f(*(a[i] for a in arrays)))
    return Extents(out)


def divide(a: Any, b: Any) -> Any:
    """The quotient of extents, which are not negative."""
    return a // b if isinstance(a, int) and isinstance(b, int) else as_expr(a) // as_expr(b)
