"""A graph builder that computes what is known while a model is read."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import numpy as np

from ..errors import UnsupportedError
from ..ir.graph import Binding, ConstRef, OpCall, Operand, Value
from ..ops import GraphBuilder
from ..ops.reference import evaluate_call
from ..ops.registry import attributes, get, infer


class FoldingBuilder(GraphBuilder):
    """A call whose arguments are small constants becomes their value: shapes, axes and bounds that a model computes are known while its
    later nodes are read. Large ones are left to the compiler.

    Args:
        outer: of a loop's or branch's body: the builder of the graph around it.
    """

    max_bytes: ClassVar[int] = 1 << 16

    def __init__(self, name: str = "main", outer: FoldingBuilder | None = None) -> None:
        super().__init__(name)
        self.outer = outer
        self._computed: dict[Operand, np.ndarray] = {}

    def op(self, name: str, *args: Operand, **attrs: Any) -> Any:
        if all(isinstance(a, ConstRef) for a in args) and get(name).kind != "source":
            types, _ = infer(name, [a.type for a in args], attrs)
            if all(t.is_static for t in types) and sum(t.nbytes for t in types) <= self.max_bytes:
                if sum(a.type.nbytes for a in args) <= self.max_bytes:
                    call = OpCall(name, args, attributes(get(name), attrs))
                    with np.errstate(all="ignore"):
                        found = evaluate_call(call, [self.constants[a.name] for a in args])
                    refs = [self.constant(np.asarray(v).astype(t.dtype.numpy)) for v, t in zip(found, types)]
                    return refs[0] if len(refs) == 1 else tuple(refs)
        return super().op(name, *args, **attrs)

    def inner_builder(self) -> FoldingBuilder:
        return FoldingBuilder(self.name, self)

    def known(self, x: Operand) -> np.ndarray | None:
        """The value of a constant; None where it is computed when the model runs."""
        return np.asarray(self.constants[x.name]) if isinstance(x, ConstRef) else None

    def computed(self, x: Operand) -> np.ndarray | None:
        """The value of a tensor that depends on constants alone, however large; None for any other."""
        if isinstance(x, ConstRef):
            return self.known(x)
        found: dict[Operand, np.ndarray] = dict(self._computed)
        for b in self._before(x) or ():
            args = [self.constants[a.name] if isinstance(a, ConstRef) else found[a] for a in b.call.args]
            with np.errstate(all="ignore"):
                values = evaluate_call(cast(OpCall, b.call), args)
            for r, v in zip(b.results, values):
                found[r] = np.asarray(v).astype(r.type.dtype.numpy)
                if found[r].nbytes <= self.max_bytes:
                    self._computed[r] = found[r]
        return found.get(x)

    def _before(self, x: Operand) -> list[Binding] | None:
        """The calls that have to be evaluated for a value, in order, each once; None where one of them depends on more than constants."""
        made = {r: b for b in self.bindings for r in b.results}
        needed: set[Binding] = set()
        stack = [x]
        while stack:
            v = stack.pop()
            if isinstance(v, ConstRef) or v in self._computed:
                continue
            b = made.get(v)
            if b is None or not isinstance(b.call, OpCall) or get(b.call.op).kind == "source":
                return None
            if b not in needed:
                needed.add(b)
                stack.extend(b.call.args)
        return [b for b in self.bindings if b in needed]

    def inputs_behind(self, x: Operand) -> list[str]:
        """The names of the model's inputs that a value depends on.

        Raises:
            UnsupportedError: it depends on what a loop's body gets as well.
        """
        builders: list[GraphBuilder] = [self]
        while isinstance(builders[-1], FoldingBuilder) and builders[-1].outer is not None:
            builders.append(builders[-1].outer)
        made: dict[Value, Binding] = {r: b for g in builders for b in g.bindings for r in b.results}
        model = {p: p.name for p in builders[-1].params}
        found: dict[str, None] = {}
        seen: set[Operand] = set()
        stack = [x]
        while stack:
            v = stack.pop()
            if v in seen or isinstance(v, ConstRef):
                continue
            seen.add(v)
            if v in made:
                stack.extend(made[v].call.args)
            elif v in model:
                found[model[v]] = None
            else:
                raise UnsupportedError(
                    "an extent changes from trip to trip of a loop", why="tensors of a loop's body have one shape"
                )
        return list(found)
