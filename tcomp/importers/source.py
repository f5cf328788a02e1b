"""What a model from elsewhere is, whatever it was written with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..dtype import DType
from ..errors import ShapeError, UnsupportedError
from ..ir.expr import Var
from ..ir.module import IRModule

Open = int | str | None
"""An extent as a model declares it: a number, a name, or nothing."""


@dataclass(frozen=True, slots=True)
class Bound:
    """An extent that each call decides, up to a bound."""

    name: str
    max: int


@dataclass(frozen=True, slots=True)
class ModelInput:
    """An input as the model declares it.

    Attributes:
        shape: None where not even the number of axes is declared.
    """

    name: str
    dtype: DType
    shape: tuple[Open, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name}: {self.dtype}[...]"
        return f"{self.name}: {self.dtype}[{', '.join('?' if e is None else str(e) for e in self.shape)}]"


class NeedsValues(Exception):
    """The values of some inputs must be known to read the model: they decide extents.

    Attributes:
        names: of the inputs.
    """

    def __init__(self, names: Sequence[str], why: str) -> None:
        super().__init__(why)
        self.names = tuple(names)


class ModelSource(Protocol):
    """A model that can be read for given shapes.

    Attributes:
        name: for people.
        inputs: what calls give; outputs: the names of the results.
        beside: files besides its own that it was read from so far, by their places in its folder.
    """

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> tuple[ModelInput, ...]: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    @property
    def beside(self) -> tuple[str, ...]: ...

    def operators(self) -> list[str]:
        """The operator of each node, those of loops' and branches' bodies included."""
        ...

    def build(self, shapes: Mapping[str, tuple[int | Bound, ...]], values: Mapping[str, Any]) -> IRModule:
        """The module for inputs of these shapes.

        Args:
            values: of inputs that are known: they are no inputs of the module then.

        Raises:
            NeedsValues: more inputs must be known. UnsupportedError: something that cannot be compiled. ShapeError: a malformed model.
        """
        ...

    def close(self) -> None:
        """Let go of the weights: no module will be built any more."""
        ...


def fixed_shapes(
    source: ModelSource,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    shapes: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, tuple[Open | Bound, ...] | None]:
    """The shapes of a model's inputs, with what a caller says of them; what stays open is a name or None.

    Args:
        dims: extents by the names that the model gives them: a number, or (1, bound) for any number up to the bound.
        shapes: whole shapes by the inputs' names; None, or a name, leaves an axis open.

    Raises:
        ShapeError: an unknown name, or something that the model does not allow.
    """
    dims, shapes = dict(dims or {}), dict(shapes or {})
    names = {e for i in source.inputs for e in i.shape or () if isinstance(e, str)}
    names |= {e for s in shapes.values() for e in s if isinstance(e, str)}
    for what, given, known in (("extent", dims, names), ("input", shapes, {i.name for i in source.inputs})):
        unknown = sorted(set(given) - known)
        if unknown:
            raise ShapeError(
                f"{source.name} has no {what} {unknown[0]!r}", hint=f"one of {', '.join(sorted(known)) or 'none'}"
            )
    found: dict[str, tuple[Open | Bound, ...] | None] = {}
    for i in source.inputs:
        given = shapes.get(i.name)
        if given is None and i.shape is None:
            found[i.name] = None
            continue
        shape = tuple(given if given is not None else i.shape or ())
        if i.shape is not None:
            agrees = len(shape) == len(i.shape) and all(
                a == b for a, b in zip(shape, i.shape) if isinstance(a, int) and isinstance(b, int)
            )
            if not agrees:
                raise ShapeError(f"input {i.name!r} cannot have the shape {list(shape)}", why=f"the model declares {i}")
            shape = tuple(b if a is None else a for a, b in zip(shape, i.shape))
        found[i.name] = tuple(_extent(e, dims, i) for e in shape)
    return found


def _extent(e: Any, dims: Mapping[str, int | tuple[int, int]], i: ModelInput) -> Open | Bound:
    given = dims.get(e, e) if isinstance(e, str) else e
    if isinstance(given, tuple) and isinstance(e, str):
        if len(given) != 2 or not all(isinstance(v, int) for v in given) or not 0 <= given[0] <= given[1]:
            raise ShapeError(f"extent {e!r} cannot be {given!r}", hint="(1, 512): any number up to 512")
        return Bound(e, given[1])
    if isinstance(given, bool) or not (
        given is None or isinstance(given, str) or (isinstance(given, int) and given >= 0)
    ):
        raise ShapeError(f"input {i.name!r} cannot have an extent {given!r}", hint="a number that is not negative")
    return given


def refusal(name: str, problems: list[str]) -> UnsupportedError:
    """The error that tells all problems of a model at once."""
    unique = list(dict.fromkeys(problems))
    shown = unique[:40] + ([f"and {len(unique) - 40} more"] if len(unique) > 40 else [])
    return UnsupportedError(f"{name} cannot be compiled", why=f"{len(unique)} problems", excerpt="\n".join(shown))


def declared(shape: Sequence[int | Bound], symbols: dict[str, Var], dim: Any) -> tuple[Any, ...]:
    """A shape with a builder's `dim`s for bounded extents."""
    found: list[Any] = []
    for e in shape:
        if isinstance(e, Bound):
            if e.name not in symbols:
                symbols[e.name] = dim(e.name, e.max)
            found.append(symbols[e.name])
        else:
            found.append(e)
    return tuple(found)
