"""One node of an ONNX graph, as converters see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ShapeError, UnsupportedError
from ...ir.graph import Operand, TensorType
from ...ir.query import as_int
from ..calls import Calls
from ..extents import Extents
from ..source import NeedsValues

Given = Operand | Extents | None


class Attributes(Mapping[str, Any]):
    """A node's attributes, which remembers those that were asked for: what nobody asked for changes the meaning unseen."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self._seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self._seen.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def unread(self) -> list[str]:
        """The names that nobody asked for."""
        return sorted(self._values.keys() - self._seen)


@dataclass
class Node(Calls):
    """A node with its inputs.

    Attributes:
        label: how messages name it.
        version: of its domain's operators.
        inputs: None for an optional one that is not given.
        attrs: Python numbers, texts, lists, arrays; graphs as protocol buffers.
        body: (graph, names of its inputs and what they are) -> its results, read with another builder: for loops and branches.
    """

    label: str
    version: int
    inputs: tuple[Given, ...]
    attrs: Mapping[str, Any]
    num_outputs: int
    body: Callable[..., Any] | None = None

    # inputs

    def has(self, i: int) -> bool:
        """Whether an input is given."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def __getitem__(self, i: int) -> Operand:
        """A tensor that must be given."""
        given = self.inputs[i] if i < len(self.inputs) else None
        if given is None:
            raise ShapeError(f"{self.op} lacks its input {i}")
        return given.as_operand(self.g) if isinstance(given, Extents) else given

    def get(self, i: int) -> Operand | None:
        """A tensor, or None."""
        return self[i] if self.has(i) else None

    def all(self, start: int = 0) -> list[Operand]:
        """All tensors from an input on."""
        return [self[i] for i in range(start, len(self.inputs))]

    def type_of(self, i: int) -> TensorType:
        return self[i].type

    def shape(self, i: int = 0) -> tuple[Any, ...]:
        return self[i].type.shape

    def static(self, i: int = 0) -> tuple[int, ...]:
        """A shape of integers.

        Raises:
            UnsupportedError: an extent is known only when the model is called.
        """
        t = self.type_of(i)
        if not t.is_static:
            raise UnsupportedError(f"{self.op} needs integers as extents, not {t}", hint="dims= or shapes= fix them")
        return t.extents

    def value(self, i: int) -> np.ndarray:
        """What a tensor holds, which must be known now.

        Raises:
            NeedsValues: it depends on inputs of the model.
        """
        x = self[i]
        known = self.g.known(x)
        if known is None:
            names = self.g.inputs_behind(x)
            found = None if names else self.g.computed(x)
            if found is not None:
                return found
            if not names:
                raise UnsupportedError(
                    f"{self.op} needs the value of its input {i}, which is computed when the model runs"
                )
            raise NeedsValues(names, f"{self.op} needs the value of its input {i}, which depends on {', '.join(names)}")
        return known

    def known(self, i: int) -> np.ndarray | None:
        """What a tensor holds, where that is known."""
        return self.g.known(self[i]) if self.has(i) else None

    def extents(self, i: int) -> list[Any]:
        """A list of integers, some of which may be symbolic."""
        given = self.inputs[i]
        if isinstance(given, Extents):
            return list(given.values.reshape(-1))
        return [int(v) for v in self.value(i).reshape(-1)]

    def integers(self, i: int) -> list[int]:
        """A list of integers that must be known now."""
        if isinstance(self.inputs[i], Extents):
            found = [as_int(v) if not isinstance(v, int) else v for v in self.extents(i)]
            if any(v is None for v in found):
                raise UnsupportedError(f"{self.op} needs integers as its input {i}", hint="dims= or shapes= fix them")
            return [int(v) for v in found if v is not None]
        return [int(v) for v in self.value(i).reshape(-1)]

    # attributes

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute; of the default's type, where there is one.

        Raises:
            ShapeError: it has another type.
        """
        if name not in self.attrs:
            return default
        value = self.attrs[name]
        if isinstance(default, float) and isinstance(value, int):
            return float(value)
        if default is not None and not isinstance(value, list if isinstance(default, (list, tuple)) else type(default)):
            raise ShapeError(
                f"{self.op}: attribute {name!r} is a {type(value).__name__}", why=f"expected {type(default).__name__}"
            )
        return value

    def needed(self, name: str, kind: type) -> Any:
        """An attribute that must be given.

        Raises:
            ShapeError: it is not, or has another type.
        """
        if not isinstance(self.attrs.get(name), kind):
            raise ShapeError(f"{self.op} needs the attribute {name!r}, of type {kind.__name__}")
        return self.attrs[name]

    def ints(self, name: str, default: Sequence[int] | None = None) -> list[int] | None:
        """A list of integers.

        Raises:
            ShapeError: it holds something else.
        """
        value = self.attrs.get(name, default)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or any(not isinstance(v, int) for v in value):
            raise ShapeError(f"{self.op}: attribute {name!r} is no list of integers")
        return list(value)

    def axis(self, i: int = 0, default: int = 0, name: str = "axis") -> int:
        """The attribute `axis` as a place from 0 on, of an axis of input i."""
        return self.place(self.attr(name, default), len(self.shape(i)))
