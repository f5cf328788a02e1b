"""What an Executable runs, as plain data: it can be written down as JSON, with the constants' bytes beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np

from ..dtype import dtype
from ..errors import TcompError
from .arguments import IndexCheck, Spec
from .extents import Extent, checked_code

ENTRY = "tcomp_main"
"""The symbol of a program's entry function."""
VERSION = 2
"""Of the JSON form."""
TABLES = ("args", "consts", "arena", "dims")
_DEEPEST = 60
"""Loops and branches, one inside another, that are read from a file."""


@dataclass(frozen=True, slots=True)
class Argument:
    """What a kernel receives.

    Attributes:
        kind: "args" (inputs, then outputs) or "consts": pointer number `index` of a table; "arena": the byte offset `index` in the
            workspace; "dims": extent number `index`, an i64 by value.
        strides: inside loops, (loop, bytes): how far each trip moves the address. Loops are numbered from the outermost one.
    """

    kind: str
    index: int
    strides: tuple[tuple[int, int | Extent], ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel call: symbol(arguments...).

    Attributes:
        name: the kernel's name in the module.
        flops, nbytes: the least work that the call must do.
        origin: the nodes of the source model that it computes, by their names there.
    """

    name: str
    symbol: str
    arguments: tuple[Argument, ...]
    flops: int = 0
    nbytes: int = 0
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes of a result that is not computed in place."""

    source: Argument
    target: Argument
    nbytes: int | Extent


@dataclass(frozen=True, slots=True)
class Clear:
    """Bytes that become zero."""

    target: Argument
    nbytes: int | Extent


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that run once for each of `length` rows.

    Attributes:
        reverse: from the last row to the first.
        count: where an i64 lies that tells how many rows, from the first, are run at most; or None for all.
    """

    length: int | Extent
    steps: tuple[Step, ...]
    reverse: bool = False
    count: Argument | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """Steps that run where a byte is not zero, and those that run where it is."""

    condition: Argument
    then: tuple[Step, ...]
    orelse: tuple[Step, ...]


Step = Launch | Copy | Clear | Loop | Branch


def launches(steps: Sequence[Step]) -> Iterator[Launch]:
    """The kernel calls of steps and of those inside them, in order."""
    for s in steps:
        match s:
            case Launch():
                yield s
            case Loop():
                yield from launches(s.steps)
            case Branch():
                yield from launches((*s.then, *s.orelse))
            case Copy() | Clear():
                pass
            case _:
                assert_never(s)


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled model without its code.

    Attributes:
        dims: the names of symbolic extents, in the order in which the entry gets them.
        constants: the weights, in the order of the table "consts".
        steps: in the order of a run.
        arena_bytes: size of the workspace; total_bytes: what its tensors would take, each on its own.
        fused_from: operators of the model before fusion.
        updates: (input, result) pairs: the result is written where the input lies.
        checks: the inputs that serve as indices, tested before each run.
        scratch: buffers that kernels make while they run, of a size that the symbolic extents decide: their names and bytes.
        flush_denormals: whether denormal numbers count as zero during a run.
        dim_max: the largest value of each symbolic extent, for which the workspace is made; 0 for no bound.
    """

    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    dims: tuple[str, ...]
    constants: tuple[np.ndarray, ...]
    steps: tuple[Step, ...]
    arena_bytes: int
    total_bytes: int
    fused_from: int = 0
    updates: tuple[tuple[int, int], ...] = ()
    checks: tuple[IndexCheck, ...] = ()
    scratch: tuple[tuple[str, Extent], ...] = ()
    flush_denormals: bool = False
    dim_max: tuple[int, ...] = ()

    @property
    def kernels(self) -> tuple[Launch, ...]:
        """The kernel calls, in the order in which they stand; those of a loop once."""
        return tuple(launches(self.steps))

    def to_json(self) -> str:
        """The program as JSON; of constants, shapes and dtypes only."""
        data = {
            "version": VERSION,
            "inputs": [_spec_data(s) for s in self.inputs],
            "outputs": [_spec_data(s) for s in self.outputs],
            "dims": self.dims,
            "constants": [{"shape": c.shape, "dtype": dtype(c.dtype).name} for c in self.constants],
            "steps": [_step_data(s) for s in self.steps],
            "arena_bytes": self.arena_bytes,
            "total_bytes": self.total_bytes,
            "fused_from": self.fused_from,
            "updates": self.updates,
            "checks": [{"input": c.input, "low": c.low, "high": c.high, "reader": c.reader} for c in self.checks],
            "scratch": [[name, _extent_data(e)] for name, e in self.scratch],
            "flush_denormals": self.flush_denormals,
            "dim_max": self.dim_max,
        }
        return json.dumps(data)

    @staticmethod
    def from_json(text: str, constants: Sequence[np.ndarray]) -> Program:
        """The program that `to_json` wrote down. The text is checked and never run: every index stands for something that exists.

        Args:
            constants: the arrays of `Program.constants`.

        Raises:
            TcompError: the text is no program of this version, or the constants are not its.
        """
        try:
            return _Reader(json.loads(text)).program(constants)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, TcompError) as error:
            raise TcompError("cannot read the program", why=f"{type(error).__name__}: {error}") from error


def _extent_data(e: int | Extent) -> Any:
    return e if isinstance(e, int) else {"text": e.text, "code": e.code}


def _spec_data(s: Spec) -> dict[str, Any]:
    return {"name": s.name, "shape": [_extent_data(e) for e in s.shape], "dtype": s.dtype}


def _argument_data(a: Argument) -> list[Any]:
    return [a.kind, a.index, *([loop, _extent_data(nbytes)] for loop, nbytes in a.strides)]


def _step_data(s: Step) -> dict[str, Any]:
    place = _argument_data
    match s:
        case Launch():
            return {
                "launch": s.name, "symbol": s.symbol, "arguments": [place(a) for a in s.arguments],
                "flops": s.flops, "nbytes": s.nbytes, "origin": s.origin,
            }  # fmt: skip
        case Copy():
            return {"copy": place(s.source), "to": place(s.target), "nbytes": _extent_data(s.nbytes)}
        case Clear():
            return {"clear": place(s.target), "nbytes": _extent_data(s.nbytes)}
        case Loop():
            count = None if s.count is None else place(s.count)
            steps = [_step_data(x) for x in s.steps]
            return {"loop": _extent_data(s.length), "steps": steps, "reverse": s.reverse, "count": count}
        case Branch():
            then, orelse = ([_step_data(x) for x in steps] for steps in (s.then, s.orelse))
            return {"if": place(s.condition), "then": then, "else": orelse}
        case _:
            assert_never(s)


class _Reader:
    """Reads the JSON form, doubting every part."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        if data["version"] != VERSION:
            raise ValueError(f"it is of version {data['version']!r}, this tcomp reads version {VERSION}")
        self.data = data
        self.dims = tuple(_is(str, d) for d in data["dims"])

    def program(self, constants: Sequence[np.ndarray]) -> Program:
        data = self.data
        inputs, outputs = (tuple(self.spec(s) for s in data[key]) for key in ("inputs", "outputs"))
        wanted = [(tuple(map(_count, c["shape"])), dtype(c["dtype"]).numpy) for c in data["constants"]]
        if wanted != [(c.shape, c.dtype) for c in constants]:
            raise ValueError(f"{len(constants)} constants were given that are not those of the program: {wanted}")
        arena = _count(data["arena_bytes"])
        dim_max = tuple(map(_count, data["dim_max"]))
        if len(dim_max) != len(self.dims):
            raise ValueError(f"{len(dim_max)} bounds for {len(self.dims)} symbolic extents")
        sizes = dict(zip(TABLES, (len(inputs) + len(outputs), len(constants), arena, len(self.dims))))
        return Program(
            inputs,
            outputs,
            self.dims,
            tuple(constants),
            self.steps(data["steps"], sizes),
            arena,
            _count(data["total_bytes"]),
            _count(data["fused_from"]),
            tuple((_below(a, len(inputs)), _below(b, len(outputs))) for a, b in data["updates"]),
            tuple(
                IndexCheck(
                    _below(c["input"], len(inputs)), _is(int, c["low"]), _is(int, c["high"]), _is(str, c["reader"])
                )
                for c in data["checks"]
            ),
            tuple((_is(str, name), self.open_extent(e)) for name, e in data["scratch"]),
            _is(bool, data["flush_denormals"]),
            dim_max,
        )

    def spec(self, s: Mapping[str, Any]) -> Spec:
        shape = tuple(map(self.extent, s["shape"]))
        return Spec(_is(str, s["name"]), shape, dtype(s["dtype"]).name)

    def extent(self, e: Any) -> int | Extent:
        return self.open_extent(e) if isinstance(e, dict) else _count(e)

    def open_extent(self, e: Mapping[str, Any]) -> Extent:
        return Extent(_is(str, e["text"]), checked_code(e["code"], len(self.dims)))

    def steps(self, data: Sequence[Any], sizes: Mapping[str, int], depth: int = 0) -> tuple[Step, ...]:
        if depth > _DEEPEST:
            raise ValueError(f"steps stand more than {_DEEPEST} deep inside one another")
        return tuple(self.step(s, sizes, depth) for s in data)

    def step(self, s: Mapping[str, Any], sizes: Mapping[str, int], depth: int) -> Step:
        def place(data: Any) -> Argument:
            kind, index, *strides = data
            moves = tuple((_below(loop, depth), self.extent(nbytes)) for loop, nbytes in strides)
            return Argument(kind, _below(index, sizes[kind]), moves)

        if "copy" in s:
            return Copy(place(s["copy"]), place(s["to"]), self.extent(s["nbytes"]))
        if "clear" in s:
            return Clear(place(s["clear"]), self.extent(s["nbytes"]))
        if "loop" in s:
            count = None if s["count"] is None else place(s["count"])
            inner = self.steps(s["steps"], sizes, depth + 1)
            return Loop(self.extent(s["loop"]), inner, _is(bool, s["reverse"]), count)
        if "if" in s:
            return Branch(place(s["if"]), self.steps(s["then"], sizes, depth), self.steps(s["else"], sizes, depth))
        name, symbol, origin = (_is(str, s[key]) for key in ("launch", "symbol", "origin"))
        return Launch(name, symbol, tuple(map(place, s["arguments"])), _count(s["flops"]), _count(s["nbytes"]), origin)


def _is(kind: type, x: Any) -> Any:
    if type(x) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {x!r}")
    return x


def _count(x: Any) -> int:
    if _is(int, x) < 0:
        raise ValueError(f"expected a count, got {x}")
    return x


def _below(x: Any, end: int) -> int:
    if _count(x) >= end:
        raise ValueError(f"{x} is out of range, there are {end}")
    return x
