"""How weights are packed: what a kernel shares with the packing before it, and by which algorithm a convolution goes.

A layer is a product or convolution with a constant weight, as the graph has it before weights are packed. The decisions of one (the side of
Winograd's tile, 0 for the direct way, and the columns of a panel) are recorded beside those of kernels, by the same means.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from ..dtype import DType, float32
from ..ir.graph import ConstRef, OpCall, TensorType
from ..ir.module import IRModule
from ..ops.builder import GraphBuilder
from ..ops.common import pair
from ..schedule.rules.cpu.layout import CpuLayout
from ..schedule.rules.cpu.winograd import TRANSFORMS
from ..target import CpuTarget
from .database import Database, Key
from .space import Candidate

LAYOUT = "layout"
"""Stands for a rule where a candidate is how a weight lies."""
WIDEST = 4
"""Vectors in a panel, at most."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a layout policy is asked of a layer: extents of the result, columns last; of the weight, rows and columns last."""

    extents: tuple[int, ...]
    weight: tuple[int, ...]
    dtype: DType

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.extents))} by {'x'.join(map(str, self.weight))} {self.dtype}"

    @property
    def key(self) -> str:
        """What identifies it in records."""
        return hashlib.blake2b(f"layout|{self}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Layer:
    """A product or convolution with a constant weight. calls: how many of the graph are just so."""

    op: str
    attrs: tuple[tuple[str, object], ...]
    x: TensorType
    weight: TensorType
    result: TensorType
    calls: int = field(default=1, compare=False)

    @property
    def name(self) -> str:
        return f"{self.op} {self.question}"

    @property
    def flops(self) -> int:
        """Operations of the direct way."""
        return 2 * self.result.size * self.weight.size // self.weight.extents[-1]

    @property
    def question(self) -> Question:
        *size, columns = self.weight.extents
        own = columns // int(str(dict(self.attrs).get("groups", 1)))
        return Question((*self.result.extents[:-1], own), (*size, own), self.weight.dtype)

    def module(self, seed: int) -> IRModule:
        """The layer alone, with a random weight."""
        g = GraphBuilder()
        rng = np.random.default_rng(seed)
        w = rng.standard_normal(self.weight.extents).astype(self.weight.dtype.numpy)
        x = g.input("x", self.x.extents, self.x.dtype)
        return g.build(g.op(self.op, x, g.constant(w, "w"), **dict(self.attrs)))

    def candidates(self, target: CpuTarget, use_winograd: bool) -> list[Candidate]:
        """Ways to lay out its weight; a default of wider panels is not among them."""
        q = self.question
        lanes = target.lanes(q.dtype.accumulator.itemsize)
        widths = [lanes * v for v in range(1, min(WIDEST, ceil(q.extents[-1] / lanes)) + 1)]
        tiles = [0, *(TRANSFORMS if use_winograd and self.may_winograd(lanes) else ())]
        return [candidate_of(tile, width) for tile in tiles for width in widths]

    def default(self, policy: CpuLayout) -> Candidate:
        """What a policy answers."""
        q = self.question
        if self.may_winograd(1):
            tile, width = policy.winograd(q.extents, q.weight, q.dtype)
            if tile:
                return candidate_of(tile, width)
        return candidate_of(0, policy.panel(q.extents, q.weight, q.dtype))

    def may_winograd(self, lanes: int) -> bool:
        """Whether Winograd's algorithm computes it, with vectors of so many elements."""
        attrs, q = dict(self.attrs), self.question
        if self.op != "conv2d" or attrs["groups"] != 1 or q.weight[:2] != (3, 3) or q.dtype != float32:
            return False
        plain = all(pair("conv2d", attrs[k], k) == (1, 1) for k in ("stride", "dilation"))
        return plain and min(q.weight[2:]) >= lanes


def candidate_of(tile: int, width: int) -> Candidate:
    """A layout as a candidate: the side of Winograd's tile, 0 for the direct way; columns of a panel, 0 for none."""
    return Candidate(LAYOUT, (("tile", tile), ("width", width)))


def layers_of(module: IRModule) -> list[Layer]:
    """The distinct layers of a graph before packing whose weights may lie in panels: one for each question."""
    found: Counter[Layer] = Counter()
    for f in module.graphs:
        for b in f.bindings:
            call = b.call
            if not isinstance(call, OpCall) or call.op not in ("matmul", "conv2d"):
                continue
            x, w = call.args
            result = b.results[0].type
            if (
                not isinstance(w, ConstRef)
                or isinstance(x, ConstRef)
                or not (x.type.is_static and result.is_static and result.size)
            ):
                continue
            layer = Layer(call.op, tuple(sorted(call.attrs.items())), x.type, w.type, result)
            if _is_packed(layer):
                found[layer] += 1
    layers: dict[Question, Layer] = {}
    # With a stride and without may be asked the same: Winograd's algorithm is for those without.
    for layer, calls in found.items():
        if layer.question not in layers or layer.may_winograd(1):
            layers[layer.question] = replace(layer, calls=calls)
    return list(layers.values())


def _is_packed(layer: Layer) -> bool:
    """Whether its weight is packed at all."""
    attrs, w = dict(layer.attrs), layer.weight
    if not w.dtype.is_float or layer.result.extents[-1] == 1:
        return False
    if layer.op == "matmul":
        return w.ndim == 2
    is_depthwise = attrs["groups"] != 1 and w.extents[-2] == 1
    return (attrs["layout"], attrs["kernel_layout"]) == ("NHWC", "HWIO") and not is_depthwise


@dataclass(frozen=True, slots=True)
class TunedLayout(CpuLayout):
    """The layouts of a CPU, those of layers that have records as these say. threads: as of `TunedSchedules`."""

    database: Database = field(kw_only=True)
    threads: int | None = None

    def panel(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> int:
        tile, width = self._recorded(extents, weight, dtype) or (0, 0)
        usual = CpuLayout.panel(self, extents, weight, dtype)
        return width if not tile and width and usual else usual

    def panel_inside(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> int:
        return CpuLayout(self.target, self.use_winograd).panel_inside(extents, weight, dtype)

    def winograd(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> tuple[int, int]:
        found = self._recorded(extents, weight, dtype)
        if found is None or (found[0] and not self.use_winograd):
            return CpuLayout.winograd(self, extents, weight, dtype)
        return found if found[0] else (0, 0)

    def _recorded(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> tuple[int, int] | None:
        """(side of Winograd's tile, columns of a panel); None where there is no record that makes sense."""
        key = Question(tuple(extents), tuple(weight), dtype).key
        for threads in dict.fromkeys((self.threads, None)):
            record = self.database.record(Key.of(key, self.target, threads))
            if record is None or record.candidate.rule != LAYOUT:
                continue
            found = dict(record.candidate.decisions)
            tile, width = found.get("tile"), found.get("width")
            lanes = self.target.lanes(dtype.accumulator.itemsize)
            if tile in (0, *TRANSFORMS) and width in [lanes * v for v in range(1, WIDEST + 1)]:
                return tile, width
        return None
