"""What an Executable runs, as plain data: it can be written down as JSON, with the constants' bytes beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtype import dtype
from ..errors import TcompError
from .arguments import IndexCheck, Spec
from .extents import Extent, checked_code

ENTRY = "tcomp_main"
"""The symbol of a program's entry function."""
VERSION = 1
"""Of the JSON form."""
TABLES = ("args", "consts", "arena", "dims")


@dataclass(frozen=True, slots=True)
class Argument:
    """What a kernel receives.

    Attributes:
        kind: "args" (inputs, then outputs) or "consts": pointer number `index` of a table; "arena": the byte offset `index` in the
            workspace; "dims": extent number `index`, an i64 by value.
    """

    kind: str
    index: int


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


Step = Launch | Copy


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
        """The kernel calls, in the order of a run."""
        return tuple(s for s in self.steps if isinstance(s, Launch))

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


def _step_data(s: Step) -> dict[str, Any]:
    pair = lambda a: [a.kind, a.index]
    match s:
        case Launch():
            return {
                "launch": s.name, "symbol": s.symbol, "arguments": [pair(a) for a in s.arguments],
                "flops": s.flops, "nbytes": s.nbytes, "origin": s.origin,
            }  # fmt: skip
        case Copy():
            return {"copy": pair(s.source), "to": pair(s.target), "nbytes": _extent_data(s.nbytes)}


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
            tuple(self.step(s, sizes) for s in data["steps"]),
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

    def step(self, s: Mapping[str, Any], sizes: Mapping[str, int]) -> Step:
        def argument(pair: Any) -> Argument:
            kind, index = pair
            return Argument(kind, _below(index, sizes[kind]))

        if "copy" in s:
            return Copy(argument(s["copy"]), argument(s["to"]), self.extent(s["nbytes"]))
        name, symbol, origin = (_is(str, s[key]) for key in ("launch", "symbol", "origin"))
        return Launch(
            name, symbol, tuple(map(argument, s["arguments"])), _count(s["flops"]), _count(s["nbytes"]), origin
        )


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
