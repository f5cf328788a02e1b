"""What kernels do on a GPU, as data: the launches of each, and its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import TcompError
from ..extents import Code, checked_code


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a launch passes on.

    Attributes:
        kind: "given", an argument of the kernel; "scratch", one of its own buffers.
        index: its number. type: in C.
    """

    kind: str
    index: int
    type: str

    @property
    def is_buffer(self) -> bool:
        return "*" in self.type


@dataclass(frozen=True, slots=True)
class Grid:
    """A launch of a function.

    Attributes:
        blocks: along x, y, z, computed of the symbolic extents. threads: of a block, along x, y, z.
        pool: bytes of shared memory that a block asks the driver for, besides what its code declares.
    """

    function: str
    blocks: tuple[Code, ...]
    threads: tuple[int, ...]
    parameters: tuple[Parameter, ...]
    pool: int = 0


@dataclass(frozen=True, slots=True)
class GridKernel:
    """A kernel of a program.

    Attributes:
        symbol: what the program calls it. buffers: bytes of its arguments, which the symbolic extents follow.
        launches: in order. scratch: bytes of the buffers that it needs while it runs.
        helpers: functions that the source calls, by name, in an order in which C takes them.
    """

    symbol: str
    buffers: tuple[Code, ...]
    launches: tuple[Grid, ...]
    scratch: tuple[Code, ...]
    helpers: Mapping[str, str]
    source: str

    def to_json(self) -> str:
        data = {
            "symbol": self.symbol,
            "buffers": self.buffers,
            "launches": [
                [g.function, g.blocks, g.threads, [[p.kind, p.index, p.type] for p in g.parameters], g.pool]
                for g in self.launches
            ],
            "scratch": self.scratch,
            "helpers": self.helpers,
            "source": self.source,
        }
        return json.dumps(data)

    @staticmethod
    def from_json(text: str | bytes) -> GridKernel:
        """What `to_json` wrote.

        Raises:
            TcompError: the text is no kernel.
        """
        try:
            return _kernel(json.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            raise TcompError("cannot read a kernel", why=f"{type(error).__name__}: {error}") from error


_MANY = 1 << 16
"""More symbolic extents than any kernel has: the launch itself looks which there are."""


def _kernel(data: Any) -> GridKernel:
    launches = []
    for function, blocks, threads, parameters, pool in data["launches"]:
        found = tuple(Parameter(str(kind), int(index), str(t)) for kind, index, t in parameters)
        if any(p.kind not in ("given", "scratch") for p in found):
            raise ValueError(f"unknown parameter of {function}")
        grid = tuple(checked_code(b, _MANY) for b in blocks)
        launches.append(Grid(str(function), grid, tuple(map(int, threads)), found, int(pool)))
    buffers, scratch = (tuple(checked_code(s, _MANY) for s in data[name]) for name in ("buffers", "scratch"))
    helpers = {str(k): str(v) for k, v in data["helpers"].items()}
    return GridKernel(str(data["symbol"]), buffers, tuple(launches), scratch, helpers, str(data["source"]))
