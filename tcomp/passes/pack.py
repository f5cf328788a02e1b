"""Constant weights, laid out for the kernels that will read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import OpCall, Operand, TensorType
from ..ir.module import IRModule
from ..ops.common import pair
from .fold import EliminateDeadCode, fold_constant
from .rewriter import Rewriter

PanelWidth = Callable[[Sequence[int], TensorType], int]
"""(extents of the result, rows to columns; the weight's type) -> columns of a panel; 0 to leave the weight as it is."""

WinogradTile = Callable[[Sequence[int], TensorType], tuple[int, int]]
"""(extents of the result, NHWC; the weight's type, HWIO) -> outputs along a side of a tile, 0 for the direct way; columns of a
panel."""


def never(extents: Sequence[int], weight: TensorType) -> tuple[int, int]:
    """Convolve directly."""
    return 0, 0


def leave(extents: Sequence[int], weight: TensorType) -> int:
    """Read the second operand where it lies."""
    return 0


@dataclass(frozen=True)
class PackWeights:
    """Constant weights of products and convolutions become panels of columns, when compiling.

    3 x 3 convolutions for which that is faster go by Winograd's algorithm, whose weights are transformed besides.

    Attributes:
        width: how wide the panels are; winograd: which convolutions to transform; inside: the panels of operands that vary;
            keys: those of attention's keys, of the scores' extents and the queries' type. The target's schedule rules know.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"packed"})
    width: PanelWidth
    winograd: WinogradTile = never
    inside: PanelWidth = leave
    keys: PanelWidth = leave

    def run(self, module: IRModule) -> IRModule:
        new = Rewriter(module, (fold_constant, self.pack)).run()
        return module if new is module else EliminateDeadCode().run(new)

    def pack(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        if call.op == "attention":
            return self.pack_keys(g, call, type_)
        if call.op not in ("matmul", "conv2d") or g.array(call.args[0]) is not None:
            return None
        if not all(a.type.size for a in call.args) or not type_.size:
            return None
        if g.array(call.args[1]) is None:
            return self.pack_inside(g, call, type_)
        x, w = call.args
        if call.op == "matmul":
            if w.type.ndim != 2:
                return None
            name, attrs = "packed_matmul", {}
        else:
            if call.attrs["groups"] != 1 or call.attrs["kernel_layout"] != "HWIO" or call.attrs["layout"] != "NHWC":
                return None
            plain = all(pair("conv2d", call.attrs[k], k) == (1, 1) for k in ("stride", "dilation"))
            if plain and w.type.shape[:2] == (3, 3):
                tile, width = self.winograd(type_.shape, w.type)
                if tile:
                    u = g.op("winograd_weight", w, tile=tile, width=width)
                    return g.op(
                        "winograd_conv2d", x, u, tile=tile, columns=type_.shape[-1], padding=call.attrs["padding"]
                    )
            name, attrs = "packed_conv2d", {k: call.attrs[k] for k in ("stride", "padding", "dilation")}
        width = self.width(type_.shape, w.type)
        if not width:
            return None
        return g.op(name, x, g.op("pack_columns", w, width=width), columns=type_.shape[-1], **attrs)

    def pack_inside(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        """A product of two operands that vary packs the second one inside its kernel, where enough rows make use of it."""
        x, w = call.args
        if call.op != "matmul" or call.attrs["panel"] or x.type.ndim != 2 or w.type.ndim != 2:
            return None
        width = self.inside(type_.shape, w.type)
        return g.again(call, x, w, panel=width) if width else None

    def pack_keys(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        queries, keys = (a.type for a in call.args[:2])
        if call.attrs["panel"] or not type_.size:
            return None
        width = self.keys((*type_.shape[:-1], keys.shape[-2]), queries)
        return g.again(call, *call.args, panel=width) if width else None
