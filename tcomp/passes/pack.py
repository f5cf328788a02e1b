"""Constant weights, laid out for the kernels that will read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..dtype import DType, int8, uint8
from ..ir.graph import OpCall, Operand, TensorType
from ..ir.module import IRModule
from ..ops.common import pair
from ..ops.conv import padding_of
from .fold import EliminateDeadCode, fold_constant
from .rewriter import Rewriter

MAX_GROUPS = 8
"""Groups of a convolution up to which each may become a kernel of its own."""

MAX_TURNED = 32 * 1024
"""Bytes of a transposed matrix up to which a product reads its rows as columns: they then stay in the first cache."""

PanelWidth = Callable[[Sequence[int], TensorType], int]
"""(extents of the result, rows to columns; the weight's type) -> columns of a panel; 0 to leave the weight as it is."""

WinogradTile = Callable[[Sequence[int], TensorType], tuple[int, int]]
"""(extents of the result, NHWC; the weight's type, HWIO) -> outputs along a side of a tile, 0 for the direct way; columns of a
panel."""


Group = Callable[[DType, DType], int]
"""(dtypes of the two operands) -> how many products an instruction sums up at once; 1 for plain multiply-adds."""


def single(a: DType, b: DType) -> int:
    """One product at a time."""
    return 1


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
            keys: those of attention's keys, of the scores' extents and the queries' type; group: rows that lie together for
            dot product instructions. The target's schedule rules know.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"packed"})
    width: PanelWidth
    winograd: WinogradTile = never
    inside: PanelWidth = leave
    keys: PanelWidth = leave
    group: Group = single

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
        return self.pack_matmul(g, call, type_) if call.op == "matmul" else self.pack_conv(g, call, type_)

    def pack_matmul(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        x, w = call.args
        if w.type.ndim != 2:
            return None
        return self.panels(g, "packed_matmul", x, w, w, type_, {"out_dtype": call.attrs["out_dtype"]})

    def pack_conv(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        """By Winograd's algorithm where that is faster, each group by itself then; else directly, all groups in one kernel."""
        (x, w), groups = call.args, call.attrs["groups"]
        *size, depth, columns = w.type.shape
        if call.attrs["kernel_layout"] != "HWIO" or call.attrs["layout"] != "NHWC":
            return None
        if groups > 1 and (depth, columns) == (1, groups):
            return None
        own = columns // groups
        plain = all(pair("conv2d", call.attrs[k], k) == (1, 1) for k in ("stride", "dilation"))
        if plain and size == [3, 3] and groups <= MAX_GROUPS:
            extents, kernel = (*type_.shape[:-1], own), TensorType((*size, depth, own), w.type.dtype)
            tile, width = self.winograd(extents, kernel)
            if tile and groups > 1:
                return split_groups(g, call)
            if tile:
                u = g.op("winograd_weight", w, tile=tile, width=width)
                return g.op("winograd_conv2d", x, u, tile=tile, columns=columns, padding=call.attrs["padding"])
        attrs = {k: call.attrs[k] for k in ("stride", "padding", "dilation", "groups")}
        rows = w
        if groups > 1:
            rows = g.op("reshape", w, shape=(*size, depth, groups, own))
            rows = g.op("transpose", rows, axes=(3, 0, 1, 2, 4))
        return self.panels(g, "packed_conv2d", x, w, rows, type_, attrs)

    def panels(
        self, g: Rewriter, name: str, x: Operand, w: Operand, rows: Operand, type_: TensorType, attrs: dict[str, Any]
    ) -> Operand | None:
        """A product or convolution with the columns of its weight in panels.

        Args:
            w: the weight, (..., in, out); rows: the same as (groups, ..., in, out of a group) where there are groups.
        """
        lead, columns = 1 if rows is not w else 0, rows.type.shape[-1]
        width = self.width((*type_.shape[:-1], columns), TensorType(rows.type.shape[lead:], w.type.dtype))
        if not width:
            return None
        offset = None
        if (x.type.dtype, w.type.dtype) == (int8, int8) and self.group(uint8, int8) > 1:
            x, offset = (
                self.unsigned(g, x, attrs),
                g.op("sum", g.op("cast", w, dtype="int32"), axes=range(w.type.ndim - 1), out_dtype="int32"),
            )
        group = self.group(x.type.dtype, w.type.dtype)
        group = group if rows.type.shape[-2] % group == 0 else 1
        packed = g.op("pack_columns", rows, width=width, group=group)
        y = g.op(name, x, packed, columns=columns, group=group, **attrs)
        return y if offset is None else g.op("subtract", y, g.op("multiply_scalar", offset, scalar=128))

    def unsigned(self, g: Rewriter, x: Operand, attrs: dict[str, Any]) -> Operand:
        """A signed operand, moved up by 128 for an instruction that takes unsigned ones; the caller takes what that adds off again."""
        moved = g.op("add_scalar", g.op("cast", x, dtype="int16"), scalar=128)
        moved = g.op("cast", moved, dtype="uint8")
        if attrs.get("padding"):
            vertical, horizontal = padding_of("conv2d", attrs.pop("padding"))
            moved = g.op("pad", moved, pad_width=((0, 0), vertical, horizontal, (0, 0)), value=128)
        return moved

    def pack_inside(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        """A product of two operands that vary packs the second one inside its kernel, where enough rows make use of it.

        There transposed operands are read where they lie; but the first one, column by column, only where that is small.
        """
        x, w = call.args
        if call.op != "matmul" or call.attrs["panel"] or x.type.ndim != 2 or w.type.ndim != 2:
            return None
        width = self.inside(type_.shape, w.type)
        if not width:
            return None
        nbytes = x.type.size * x.type.dtype.itemsize
        sources = [g.definition(x, "transpose") if nbytes <= MAX_TURNED else None, g.definition(w, "transpose")]
        args = [a if s is None else s.args[0] for a, s in zip((x, w), sources)]
        return g.again(call, *args, panel=width, transposed=tuple(s is not None for s in sources))

    def pack_keys(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        queries, keys = (a.type for a in call.args[:2])
        if call.attrs["panel"] or not type_.size:
            return None
        width = self.keys((*type_.shape[:-1], keys.shape[-2]), queries)
        return g.again(call, *call.args, panel=width) if width else None


def split_groups(g: Rewriter, call: OpCall) -> Operand:
    """A convolution in groups as one convolution for each group, side by side."""
    groups, (x, w) = call.attrs["groups"], call.args
    depth, columns = w.type.shape[2], w.type.shape[3] // groups

    def part(t: Operand, start: int, size: int) -> Operand:
        shape = t.type.shape
        return g.op("slice", t, begin=(0, 0, 0, start), end=(*shape[:3], start + size))

    parts = [g.again(call, part(x, i * depth, depth), part(w, i * columns, columns), groups=1) for i in range(groups)]
    return g.op("concat", *parts, axis=3)
