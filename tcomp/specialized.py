"""A model some of whose extents stay open: compiled for each combination of them when it is first seen."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from .dtype import dtype
from .errors import InputError, InternalError, UnsupportedError
from .importers import Bound, ModelInput, ModelSource, NeedsValues
from .progress import terminal_bar
from .runtime.executable import Executable

Compile = Callable[..., Executable]
"""(what makes a module, progress=) -> its executable"""
log = logging.getLogger("tcomp")

MAX_BYTES = 1 << 16
"""Inputs whose values decide extents may be as large as this."""


class Specialized:
    """Calls as an Executable does; what it compiled for earlier calls of the same extents is kept, in a table of `limit` entries.

    Args:
        shapes: of the inputs, as `fixed_shapes` gives them. compile: what makes a module -> its executable.
        tells: whether `compile` tells of its progress itself; else a terminal shows a bar.
    """

    def __init__(
        self,
        source: ModelSource,
        shapes: Mapping[str, Any],
        compile: Compile,
        values: Sequence[str] = (),
        limit: int = 32,
        tells: bool = False,
    ) -> None:
        self.source = source
        self.shapes = dict(shapes)
        self.limit = limit
        self._tells = tells
        self._compile = compile
        self._values = dict.fromkeys(values)
        self._table: OrderedDict[Any, Executable] = OrderedDict()
        self._lock = Lock()

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        return f"<Specialized ({inputs}) -> {', '.join(self.source.outputs)}, {len(self._table)} compiled>"

    def export(self, path: Any, *options: Any, **named: Any) -> None:
        """Refused: a file holds the code for given extents.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"cannot export {self.source.name}",
            why="extents of its inputs are open",
            hint="compile with dims= or shapes=",
        )

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The inputs, with what stays open of their shapes."""
        return tuple(ModelInput(i.name, i.dtype, self.shapes[i.name]) for i in self.source.inputs)

    @property
    def compiled(self) -> tuple[Executable, ...]:
        """The executables that are kept, the one used last at the end."""
        return tuple(self._table.values())

    def __call__(self, *args: Any, **named: Any) -> Any:
        """The results for one array for each input, by place or by name.

        Raises:
            InputError: an argument does not fit.
        """
        arrays = self._bind(args, named)
        exe = self._executable(arrays)
        return exe(*(a for name, a in arrays.items() if name not in self._values))

    def executable(self, *args: Any, **named: Any) -> Executable:
        """The executable that such a call would run. It takes all inputs but those whose values decide extents."""
        return self._executable(self._bind(args, named))

    def named(self, *args: Any, **named: Any) -> dict[str, np.ndarray]:
        """The results by the model's names for them."""
        found = self(*args, **named)
        return dict(zip(self.source.outputs, found if isinstance(found, tuple) else (found,)))

    def _bind(self, args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, np.ndarray]:
        declared = self.inputs
        expected = ", ".join(map(str, declared))
        unknown = sorted(set(named) - {i.name for i in declared[len(args) :]})
        if unknown or len(args) > len(declared):
            what = f"input {unknown[0]!r} is unknown or given twice" if unknown else f"{len(args)} arguments given"
            raise InputError(what, why=f"the model takes {expected}")
        arrays: dict[str, np.ndarray] = {}
        for n, i in enumerate(declared):
            if n >= len(args) and i.name not in named:
                raise InputError(f"input {i.name!r} is missing", why=f"the model takes {expected}")
            arrays[i.name] = _fitting(args[n] if n < len(args) else named[i.name], i)
        return arrays

    def _executable(self, arrays: Mapping[str, np.ndarray]) -> Executable:
        with self._lock:
            while True:
                key = tuple((a.shape, a.tobytes() if name in self._values else None) for name, a in arrays.items())
                found = self._table.get(key)
                if found is not None:
                    self._table.move_to_end(key)
                    return found
                try:
                    found = self._compile_for(arrays)
                except NeedsValues as error:
                    self._note_values(error, arrays)
                    continue
                self._table[key] = found
                if len(self._table) > self.limit:
                    self._table.popitem(last=False)
                return found

    def _note_values(self, error: NeedsValues, arrays: Mapping[str, np.ndarray]) -> None:
        """Remember that values of more inputs decide extents."""
        if set(error.names) <= self._values.keys():
            raise InternalError(
                f"{self.source.name} asks again for the values of {', '.join(error.names)}", why=str(error)
            )
        for name in error.names:
            if arrays[name].nbytes > MAX_BYTES:
                raise InputError(
                    f"input {name!r} has {arrays[name].size} elements, and the values of all of them decide extents",
                    why=str(error),
                )
        self._values.update(dict.fromkeys(error.names))
        self._table.clear()

    def _compile_for(self, arrays: Mapping[str, np.ndarray]) -> Executable:
        values = {name: arrays[name] for name in self._values}
        shapes = {
            name: tuple(b if isinstance(b, Bound) else n for n, b in zip(a.shape, self.shapes[name] or a.shape))
            for name, a in arrays.items()
        }
        log.info("compiling %s for %s", self.source.name, ", ".join(f"{k}={list(s)}" for k, s in shapes.items()))
        if self._tells:
            return self._compile(lambda: self.source.build(shapes, values))
        with terminal_bar(f"compiling {self.source.name}") as note:
            return self._compile(lambda: self.source.build(shapes, values), progress=note)


def _fitting(value: Any, i: ModelInput) -> np.ndarray:
    """An argument as an array that fits what is declared.

    Raises:
        InputError: it does not.
    """
    array = np.asarray(value)
    if array.dtype != dtype(i.dtype).numpy:
        raise InputError(f"input {i.name!r} has dtype {array.dtype}", why=f"expected {i}")
    fits = i.shape is None or (
        len(i.shape) == array.ndim
        and all(
            n == e if isinstance(e, int) else n <= e.max if isinstance(e, Bound) else True
            for n, e in zip(array.shape, i.shape)
        )
    )
    if not fits:
        raise InputError(f"input {i.name!r} has shape {list(array.shape)}", why=f"expected {i}")
    return np.ascontiguousarray(array).reshape(array.shape)


def specialize(
    source: ModelSource, shapes: Mapping[str, Any], compile: Compile, tells: bool = False
) -> Executable | Specialized:
    """The executable of a model whose extents are all known; otherwise one that compiles when extents are seen."""
    closed = all(s is not None and all(isinstance(e, (int, Bound)) for e in s) for s in shapes.values())
    if not closed:
        return Specialized(source, shapes, compile, tells=tells)

    def make() -> Any:
        module = source.build(shapes, {})
        source.close()  # its weights need not stay while they are packed
        return module

    try:
        return compile(make)
    except NeedsValues as error:
        return Specialized(source, shapes, compile, error.names, tells=tells)
