"""PrimFunc: one kernel, as loops and blocks over buffers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from .expr import Buffer, Var
from .node import Node, identity_node
from .stmt import Attrs, Block, For, Stmt, sub_statements, walk_statements


@identity_node
class PrimFunc(Node):
    """A function over buffers.

    Attributes:
        params: input buffers, then output buffers, then the symbolic extents (int64 Vars) that their shapes mention.
        num_outputs: how many of the buffers, the last ones, are written.
        allocs: intermediate buffers; lowering finds the place that each lives in.
    """

    name: str
    params: tuple[Buffer | Var, ...]
    body: Stmt
    num_outputs: int = 1
    allocs: tuple[Buffer, ...] = ()
    attrs: Attrs = Attrs()

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(p for p in self.params if isinstance(p, Buffer))

    @property
    def inputs(self) -> tuple[Buffer, ...]:
        return self.buffers[: len(self.buffers) - self.num_outputs]

    @property
    def outputs(self) -> tuple[Buffer, ...]:
        return self.buffers[len(self.buffers) - self.num_outputs :]

    @property
    def dims(self) -> tuple[Var, ...]:
        """The symbolic extents."""
        return tuple(p for p in self.params if isinstance(p, Var))

    @property
    def blocks(self) -> Mapping[str, Block]:
        return _blocks(self.body)

    @property
    def loops(self) -> Mapping[Var, For]:
        """The loops around blocks; those inside a block's body are the block's own affair."""
        return _loops(self.body)


# a schedule step asks for these many times of the same body


@lru_cache(maxsize=32)
def _blocks(body: Stmt) -> Mapping[str, Block]:
    return MappingProxyType({s.name: s for s in walk_statements(body) if isinstance(s, Block)})


@lru_cache(maxsize=32)
def _loops(body: Stmt) -> Mapping[Var, For]:
    found: dict[Var, For] = {}
    stack: list[Stmt] = [body]
    while stack:
        s = stack.pop()
        if isinstance(s, For):
            found[s.var] = s
        if not isinstance(s, Block):
            stack.extend(reversed(sub_statements(s)))
    return MappingProxyType(found)
