"""Constant weights, laid out for the kernels that will read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ..dtype import DType, int8, uint8
from ..ir.graph import ConstRef, Function, OpCall, Operand, TensorType
from ..ir.module import IRModule
from ..memory import zeros_like
from ..ops.common import pair
from ..ops.conv import padding_of
from .fold import EliminateDeadCode, fold_constant
from .rewriter import Rewriter, Rule


class LayoutPolicy(Protocol):
    """What the target's rules want: they answer by the plans of the kernels to come. Extents of results have columns last, of weights
    rows and columns last.

    Attributes:
        turned_bytes: size of a transposed matrix up to which a product may read its rows as columns.
        reads_turned: whether products that pack nothing read transposed operands where they lie.
        resident_bytes: what L2 keeps while a kernel passes over it again and again.
        near_bytes: what operands and result of a layer may take to count as near; 0 where that makes no difference.
        max_split_groups: groups of a convolution up to which each may become a kernel of its own.
    """

    @property
    def turned_bytes(self) -> int: ...

    @property
    def reads_turned(self) -> bool: ...

    @property
    def resident_bytes(self) -> int: ...

    @property
    def near_bytes(self) -> int: ...

    @property
    def max_split_groups(self) -> int: ...

    def panel(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> int:
        """Columns of a panel of a constant weight; 0 to leave it as it is."""

    def is_turned(self, weight: Sequence[int], dtype: DType) -> bool:
        """Whether a constant weight (rows, columns) that stays as it is, is kept transposed."""

    def panel_inside(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> int:
        """Columns of the panels into which a kernel packs an operand that varies; 0 to read it where it lies."""

    def winograd(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> tuple[int, int]:
        """(outputs along a side of a tile, columns of a panel) for a 3 x 3 convolution, NHWC and HWIO; (0, 0) for the direct way."""

    def key_panel(self, scores: Sequence[int], queries: Sequence[int], dtype: DType) -> int:
        """Keys in a panel of attention's keys; 0 to read them where they lie."""

    def dot_group(self, a: DType, b: DType) -> int:
        """Products of two dtypes that an instruction sums up at once; 1 for plain multiply-adds."""


@dataclass(frozen=True)
class PackWeights:
    """Constant weights of products and convolutions become panels of columns, when compiling.

    3 x 3 convolutions for which that is faster go by Winograd's algorithm, whose weights are transformed besides.

    Attributes:
        layout: what the target's schedule rules want.
        lets_go: each weight is let go as soon as it is packed, so that the two of all of them are never there at once: the module that
            is given has zeros in its place from then on.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"packed"})
    layout: LayoutPolicy
    lets_go: bool = False

    def run(self, module: IRModule) -> IRModule:
        graphs = [f for f in module.functions.values() if isinstance(f, Function)]
        uses = Counter(a for f in graphs for b in f.bindings for a in b.call.args)
        uses.update(r for f in graphs for r in f.results)

        def pack(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
            known, made = set(g.constants), len(g.bindings)
            new = self.pack(g, call, type_)
            if new is not None and self.lets_go:
                uses.subtract(call.args)
                used = {new, *(a for b in g.bindings[made:] for a in b.call.args)}
                names = {a.name for a in used if isinstance(a, ConstRef)}
                gone = [a.name for a in call.args if isinstance(a, ConstRef) and uses[a] <= 0 and a.name not in names]
                _let_go((g.constants, module.constants), [*gone, *(g.constants.keys() - known - names)])
            return new

        packing = Rule("pack", pack, frozenset({"attention", "matmul", "conv2d"}), symbolic=True)
        new = Rewriter(module, (fold_constant, packing)).run()
        return module if new is module else EliminateDeadCode().run(new)

    def pack(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        if call.op == "attention":
            return self.pack_keys(g, call, type_)
        if g.array(call.args[0]) is not None:
            return None
        if not all(extents(g, t)[0] for t in (*(a.type for a in call.args), type_)):
            return None
        if g.array(call.args[1]) is None:
            return self.pack_inside(g, call, type_)
        return self.pack_matmul(g, call, type_) if call.op == "matmul" else self.pack_conv(g, call, type_)

    def pack_matmul(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        x, w = call.args
        if w.type.ndim != 2:
            return None
        left, right = call.attrs["transposed"]
        if not right and self.layout.is_turned(w.type.extents, w.type.dtype):
            return g.again(call, x, g.op("transpose", w, axes=(1, 0)), transposed=(left, True))
        source = g.definition(x, "transpose") if self.layout.reads_turned and x.type.ndim == 2 else None
        if source is not None:
            return g.again(call, source.args[0], w, transposed=(not left, right))
        return self.panels(g, "packed_matmul", x, w, w, type_, {"out_dtype": call.attrs["out_dtype"]})

    def pack_conv(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        """By Winograd's algorithm where that is faster, each group by itself then; else directly, all groups in one kernel."""
        (x, w), groups = call.args, call.attrs["groups"]
        *size, depth, columns = w.type.extents
        if call.attrs["kernel_layout"] != "HWIO" or call.attrs["layout"] != "NHWC":
            return None
        if groups > 1 and (depth, columns) == (1, groups):
            return None
        own = columns // groups
        plain = all(pair("conv2d", call.attrs[k], k) == (1, 1) for k in ("stride", "dilation"))
        if plain and size == [3, 3] and groups <= self.layout.max_split_groups:
            tile, width = self.layout.winograd((*extents(g, type_)[1:-1], own), (*size, depth, own), w.type.dtype)
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
        lead, columns = 1 if rows is not w else 0, rows.type.extents[-1]
        width = self.layout.panel((*extents(g, type_)[1:-1], columns), rows.type.extents[lead:], w.type.dtype)
        if not width:
            return None
        offset = None
        if (x.type.dtype, w.type.dtype) == (int8, int8) and self.layout.dot_group(uint8, int8) > 1:
            x, offset = (
                self.unsigned(g, x, attrs),
                g.op("sum", g.op("cast", w, dtype="int32"), axes=range(w.type.ndim - 1), out_dtype="int32"),
            )
        group = self.layout.dot_group(x.type.dtype, w.type.dtype)
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
        width = self.layout.panel_inside(extents(g, type_)[1:], extents(g, w.type)[1:], w.type.dtype)
        if not w.type.is_static or not (width or self.layout.reads_turned):
            return None
        nbytes = extents(g, x.type)[0] * x.type.dtype.itemsize
        sources = [
            g.definition(x, "transpose") if nbytes <= self.layout.turned_bytes else None,
            g.definition(w, "transpose"),
        ]
        if not width and not any(sources):
            return None
        args = [a if s is None else s.args[0] for a, s in zip((x, w), sources)]
        turned = tuple(before != (s is not None) for before, s in zip(call.attrs["transposed"], sources))
        return g.again(call, *args, panel=width, transposed=turned)

    def pack_keys(self, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
        queries, keys = (a.type for a in call.args[:2])
        rows, count = extents(g, type_), extents(g, keys)
        if call.attrs["panel"] or not rows[0]:
            return None
        width = self.layout.key_panel((*rows[1:-1], count[-2]), extents(g, queries)[1:], queries.dtype)
        return g.again(call, *call.args, panel=width) if width else None


def _let_go(tables: Sequence[Any], names: Sequence[str]) -> None:
    """Zeros, which take no memory, in the place of constants."""
    for table in tables:
        table.update({name: zeros_like(table[name]) for name in names if name in table})


def extents(g: Rewriter, t: TensorType) -> tuple[int, ...]:
    """(elements, *extents) of a type, those that calls decide at their largest."""
    known = t.at(g.module.main.bounds)
    return (known.size, *known.extents)


def split_groups(g: Rewriter, call: OpCall) -> Operand:
    """A convolution in groups as one convolution for each group, side by side."""
    groups, (x, w) = call.attrs["groups"], call.args
    depth, columns = w.type.extents[2], w.type.extents[3] // groups

    def part(t: Operand, start: int, size: int) -> Operand:
        shape = t.type.shape
        return g.op("slice", t, begin=(0, 0, 0, start), end=(*shape[:3], start + size))

    parts = [g.again(call, part(x, i * depth, depth), part(w, i * columns, columns), groups=1) for i in range(groups)]
    return g.op("concat", *parts, axis=3)
