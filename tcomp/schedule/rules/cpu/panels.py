"""Operands of products that lie in panels: as many columns together as a register tile has, one row after another."""

from __future__ import annotations

from dataclasses import dataclass

from ....analysis.regions import writes
from ....dtype import DType
from ....ir.expr import Buffer
from ....ir.primfunc import PrimFunc
from ....ir.query import free_vars
from ....ir.stmt import Block
from ....ir.tensor_intrin import dot_shape, tensor_intrin, tensor_intrins
from ....target import CpuTarget
from ...library import loaded


@dataclass(frozen=True, slots=True)
class Panels:
    """How the packed operand of a product lies, as the product's block says: columns of a panel, and rows that lie together for an
    instruction that sums up their products (1 for none)."""

    width: int
    dot: int


def panels_of(block: Block) -> Panels | None:
    """None where no operand is packed, or what the block says is no number of columns."""
    width, dot = block.annotations.get("panel_width"), block.annotations.get("dot_group", 1)
    if not (isinstance(width, int) and isinstance(dot, int)) or width < 1 or dot < 1:
        return None
    return Panels(width, dot)


def packed_operand(block: Block) -> Buffer | None:
    """The operand of a product that lies in panels, the last axis of the result split between them."""
    if panels_of(block) is None:
        return None
    last = block.spatial[-1].var
    return next((b for b, i in loaded(block) if i and last in free_vars(i[0])), None)


def dot_instruction(target: CpuTarget, a: DType, b: DType) -> tuple[str, int] | None:
    """The instruction that sums up several products of two operands in each lane of a vector, and how many; None of none."""
    for name in tensor_intrins():
        intrin = tensor_intrin(name)
        assert intrin is not None
        shape = dot_shape(intrin)
        if shape is not None and shape[2:] == (a, b) and target.has(intrin.feature):
            lanes, group = shape[:2]
            return (name, group) if lanes == target.lanes(a.accumulator.itemsize) else None
    return None


def dot_dtypes(block: Block) -> tuple[DType, DType] | None:
    """The dtypes of the operands of a product whose weight is packed in groups for a dot product instruction."""
    panels, packed = panels_of(block), packed_operand(block)
    others = [b for b, _ in loaded(block) if b is not packed]
    if panels is None or panels.dot == 1 or packed is None or len(others) != 1:
        return None
    return others[0].dtype, packed.dtype


def fills_panels(func: PrimFunc, acc: str, name: str) -> bool:
    """Whether a block makes the panels that the reduction reads."""
    return packed_operand(func.blocks[acc]) in writes(func.blocks[name])
