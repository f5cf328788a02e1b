"""Composite operators -> the calls that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..ir.graph import OpCall, TensorType
from ..ir.module import IRModule
from ..ops.registry import get
from .rewriter import Rewriter, rule


@rule(kinds=("composite",), symbolic=True)
def expand(g: Rewriter, call: OpCall, type_: TensorType) -> Any:
    """A composite is what its body makes of its arguments."""
    body = get(call.op).expand
    assert body is not None
    return body(g, call.args, call.attrs)


@dataclass(frozen=True)
class ExpandComposites:
    """Replace composite operators, so that all other passes know only those that have kernels."""

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset({"expanded"})

    def run(self, module: IRModule) -> IRModule:
        return Rewriter(module, (expand,)).run()
