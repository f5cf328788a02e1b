"""Extents that are known only when a model is called, as data: what an exported file can hold, and nothing that could run code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import InputError

Code = int | tuple
"""An integer; ("dim", number) for a symbolic extent; or (operator, operand, ...)."""

_OPERATORS: dict[str, Callable[..., int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": min,
    "max": max,
}
_LARGEST = 1 << 62


@dataclass(frozen=True, slots=True)
class Extent:
    """An extent as an expression of symbolic ones.

    Attributes:
        text: for people.
    """

    text: str
    code: Code

    def __str__(self) -> str:
        return self.text

    def dims(self) -> set[int]:
        """The numbers of the symbolic extents that it depends on."""
        return _dims(self.code)

    def value(self, dims: Sequence[int]) -> int:
        """Its value, given those of all symbolic extents."""
        return _value(self.code, dims)

    def solve(self, value: int, dims: list[int]) -> None:
        """Set the one extent that is still unknown (-1) in `dims`, where the expression's value settles it."""
        unknown = [d for d in self.dims() if dims[d] < 0]
        if len(unknown) != 1:
            return
        (d,) = unknown

        def at(n: int) -> int:
            try:
                return self.value([n if i == d else known for i, known in enumerate(dims)])
            except InputError:  # it divides by zero there
                return -1

        step = at(2) - at(1)
        guess = 1 + (value - at(1)) // step if step else -1
        found = guess if guess >= 0 and at(guess) == value else _root(at, value)
        # where neighbours have the value too, as n // 2 does, it settles nothing
        if found >= 0 and at(found + 1) != value and (found == 0 or at(found - 1) != value):
            dims[d] = found


def _root(at: Callable[[int], int], value: int) -> int:
    """Where a function that grows has a value, as n * n does; -1 where it does not, or does not grow."""
    low, high = 0, 1
    while at(high) < value:
        low, high = high, 2 * high
        if high > _LARGEST:
            return -1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if at(middle) < value else (low, middle)
    return low if at(low) == value else -1


def _dims(code: Code) -> set[int]:
    if isinstance(code, int):
        return set()
    if code[0] == "dim":
        return {code[1]}
    return set().union(*map(_dims, code[1:]))


def _value(code: Code, dims: Sequence[int]) -> int:
    if isinstance(code, int):
        return code
    if code[0] == "dim":
        return dims[code[1]]
    try:
        return _OPERATORS[code[0]](*(_value(c, dims) for c in code[1:]))
    except ZeroDivisionError:
        raise InputError("an extent of the model divides by zero for these inputs") from None


_DEEPEST = 100
"""Operations of an extent, one inside another, that are read from a file."""


def checked_code(code: object, num_dims: int, depth: int = 0) -> Code:
    """An extent's code that comes from a file.

    Raises:
        ValueError: it is no extent over so many symbolic ones.
    """
    if type(code) is int:
        return code
    if depth > _DEEPEST:
        raise ValueError(f"expected an extent of at most {_DEEPEST} operations one inside another")
    if not isinstance(code, (list, tuple)) or not code:
        raise ValueError(f"expected an extent, got {code!r}")
    if code[0] == "dim":
        if len(code) != 2 or type(code[1]) is not int or not 0 <= code[1] < num_dims:
            raise ValueError(f"expected one of {num_dims} symbolic extents, got {code!r}")
        return ("dim", code[1])
    if not isinstance(code[0], str) or code[0] not in _OPERATORS or len(code) != 3:
        raise ValueError(f"expected two operands of one of {', '.join(_OPERATORS)}, got {len(code) - 1} of {code[0]!r}")
    return (code[0], *(checked_code(c, num_dims, depth + 1) for c in code[1:]))


def computed(code: Code, dims: Sequence[int]) -> int:
    """The value of an extent's code, given those of all symbolic extents."""
    return _value(code, dims)


def evaluate_shape(shape: Sequence[int | Extent], dims: Sequence[int]) -> tuple[int, ...]:
    """The extents of a shape, given the symbolic ones."""
    return tuple(e if isinstance(e, int) else e.value(dims) for e in shape)
