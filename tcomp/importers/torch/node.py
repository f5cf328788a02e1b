"""One call of a PyTorch program, as converters see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dtype import DType, dtype
from ...errors import UnsupportedError
from ...ir.graph import ConstRef, Operand, Value
from ..calls import Calls


def is_tensor(x: Any) -> bool:
    return isinstance(x, (Value, ConstRef))


@dataclass
class Node(Calls):
    """A call of an operator.

    Attributes:
        dtypes: of its results, as PyTorch tells them.
        shape: of its first result.
    """

    dtypes: tuple[DType, ...] = ()
    shape: tuple[Any, ...] = ()

    @property
    def dtype(self) -> DType:
        return self.dtypes[0]

    def tensor(self, x: Any, d: DType | None = None) -> Operand:
        """A tensor, or a number as one, in a dtype."""
        wanted = d or self.dtype
        if not is_tensor(x):
            return self.constant(np.asarray(x), wanted)
        return self.cast(x, wanted)

    def both(self, a: Any, b: Any) -> tuple[Operand, Operand]:
        """Two arguments of a comparison, in the dtype that they meet in."""
        tensors = [x for x in (a, b) if is_tensor(x)]
        kinds = [x.type.dtype for x in tensors]
        ranked = [x for x in tensors if x.type.ndim] or tensors
        best = max((x.type.dtype for x in ranked), key=_rank)
        if len(kinds) == 1 and not best.is_float and isinstance((a, b)[is_tensor(a)], float):
            best = dtype("float32")
        return self.tensor(a, best), self.tensor(b, best)

    def axes(self, given: Any, ndim: int) -> tuple[int, ...]:
        """Axes from 0 on; all of them for None or an empty list."""
        if given is None or given == []:
            return tuple(range(ndim))
        return self.places([given] if isinstance(given, int) else list(given), ndim)

    def each(self, value: Any, count: int) -> list[int]:
        """One number for each of some dimensions."""
        if isinstance(value, int):
            return [value] * count
        found = list(value)
        return found * count if len(found) == 1 else found

    def numbers(self, *values: Any) -> None:
        """Raises UnsupportedError where one is a tensor: what they say must be known."""
        if any(map(is_tensor, values)):
            raise UnsupportedError(f"{self.op} with a tensor where a number must be known")


def _rank(d: DType) -> tuple[int, int]:
    """Where a dtype stands when tensors of several meet."""
    return (2 if d.is_float else 1 if d.is_int else 0, d.bits)
