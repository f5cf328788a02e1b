"""Functions on short vectors in CUDA C: structs, whose elements the compiler keeps in registers."""

from __future__ import annotations

from pathlib import Path

from ...dtype import DType
from ...errors import UnsupportedError
from ...ir.expr import Call, Load
from ...ir.matrix_intrin import SIDE, TILE
from ...ir.node import walk
from ...ir.stmt import Allocate, Store
from ..c.types import element_type, scalar_type, short_name
from ..c.vectors import Vectors

WARP = 32
TILE_SIZE = SIDE * SIDE
_DEVICE = {"f16": "__half", "bf16": "__nv_bfloat16"}
"""CUDA's names of the types that tiles are multiplied of."""
_COMBINE = {"add": "{a} + {b}", "mul": "{a} * {b}", "max": "{e}_max({a}, {b})", "min": "{e}_min({a}, {b})"}


class CudaVectors(Vectors):
    """The types and functions in use. Neighbours in memory are moved 16 bytes at a time: where they always begin at a multiple of that ("wide"), at
    once; else where the address allows that."""

    def fma(self, d: DType) -> str:
        f = "f" if d.bits == 32 else ""
        return self._function(f"{self.type(d)}_fma", d, [(d, "a"), (d, "b"), (d, "c")], f"fma{f}({{a}}, {{b}}, {{c}})")

    def rounded_product(self, d: DType) -> str:
        """A product that no sum absorbs."""
        name = f"{short_name(d.element)}_mul_rounded"
        if d.lanes == 1:
            return name
        return self._function(f"{self.type(d)}_mul_rounded", d, [(d, "a"), (d, "b")], f"{name}({{a}}, {{b}})")

    def load(self, d: DType, how: str, is_masked: bool) -> str:
        if how == "wide":
            if is_masked or d.is_bool:
                return super().load(d, "", is_masked)
            name = f"{self.type(d)}_load_wide"
            return self._once(name, "{t} {name}(const {e} *p) {{ CHECK_ALIGNED(p, {t}); return *(const {t} *)p; }}", d)
        if not _is_wide(d, how, is_masked):
            return super().load(d, how, is_masked)
        whole, each = "r = *(const {t} *)p", "AT(r, i) = p[i]"
        return self._moved(d, "load", "{t} {name}(const {e} *p) {{ {t} r;", whole, each, " return r; }}")

    def store(self, d: DType, how: str, is_masked: bool) -> str:
        if how == "wide":
            if is_masked or d.is_bool:
                return super().store(d, "", is_masked)
            name = f"{self.type(d)}_store_wide"
            return self._once(name, "void {name}({e} *p, {t} v) {{ CHECK_ALIGNED(p, {t}); *({t} *)p = v; }}", d)
        if not _is_wide(d, how, is_masked):
            return super().store(d, how, is_masked)
        return self._moved(d, "store", "void {name}({e} *p, {t} v) {{", "*({t} *)p = v", "p[i] = AT(v, i)", " }}")

    def _moved(self, d: DType, verb: str, head: str, whole: str, each: str, end: str) -> str:
        """A function that moves a vector at once where its address allows that, else element by element."""
        name = f"{self.type(d)}_{verb}"
        return self._once(name, f"{head} if (IS_ALIGNED(p, {{t}})) {whole}; else LANES({d.lanes}, {each});{end}", d)

    def _once(self, name: str, text: str, d: DType) -> str:
        """A function of vectors and elements of a type."""
        if name not in self._texts:
            self._texts[name] = "INLINE " + text.format(t=self.type(d), e=element_type(d), name=name)
        return name

    def across_threads(self, op: str, d: DType, count: int, rows: int) -> str:
        """All threads along threadIdx.x combined, and each told: within a warp by exchange of registers, warps through shared memory.

        Args:
            count: threads along x, a power of two up to 32 or a multiple of 32. rows: of threads in the block, along y and z.
        """
        s, e = scalar_type(d), short_name(d)
        name = f"{e}_threads_{op}_{count}" + (f"x{rows}" if count > WARP and rows > 1 else "")
        if name in self._texts:
            return name
        both = lambda a, b: _COMBINE[op].format(a=a, b=b, e=e)
        lanes = min(count, WARP)
        exchanged = both("v", f"{e}_from_lane(v, m)")
        lines = [f"INLINE {s} {name}({s} v) {{", f"  UNROLL for (int m = {lanes // 2}; m > 0; m /= 2) v = {exchanged};"]
        if count > WARP:
            warps = count // WARP
            row = "threadIdx.y + blockDim.y * threadIdx.z" if rows > 1 else "0"
            lines += [
                f"  SHARED {s} parts[{rows}][{warps}];",
                f"  const int row = {row};",
                f"  if (threadIdx.x % {WARP} == 0) parts[row][threadIdx.x / {WARP}] = v;",
                "  __syncthreads();",
                "  v = parts[row][0];",
                f"  UNROLL for (int w = 1; w < {warps}; w++) v = {both('v', 'parts[row][w]')};",
                "  __syncthreads();",
            ]
        self._texts[name] = "\n".join([*lines, "  return v;", "}"])
        return name

    def tile(self, s: Allocate) -> str:
        """The type of the tiles in a buffer of scope "warp", as the functions that write them tell.

        Raises:
            UnsupportedError: something else than matrix instructions uses them, or different ones do.
        """
        b = s.buffer
        uses = [x for x in walk(s.body) if isinstance(x, (Load, Store)) and x.buffer is b]
        calls = [x for x in walk(s.body) if isinstance(x, Store) and isinstance(x.value, Call)]
        by_tiles = [x for c in calls if c.value.op.startswith(TILE) for x in (c, *c.value.args)]
        made = {c.value.op for c in calls if c.buffer is b and c.value.op.startswith(TILE)}
        kinds = {f"tile_{op.removeprefix('tile_load_')}" if "load" in op else "tile_f32" for op in made}
        if len(kinds) != 1 or not all(any(u is x for x in by_tiles) for u in uses):
            raise UnsupportedError(
                f"a warp cannot hold {b.name}", why="something else than matrix instructions of one kind uses it",
                hint="tensorize all blocks that read or write it, with the intrinsics whose names begin with wmma",
            )  # fmt: skip
        (kind,) = kinds
        self._texts.setdefault("tiles", (Path(__file__).parent / "tiles.cuh").read_text(encoding="utf-8"))
        d = kind.rsplit("_", 1)[1]
        if d in _DEVICE:
            self._texts.setdefault(f"tiles of {d}", f"TILES({d}, {_DEVICE[d]})")
        return kind


def _is_wide(d: DType, how: str, is_masked: bool) -> bool:
    """Whether an access may be one of all lanes: neighbours, as many as a power of two."""
    return not how and not is_masked and not d.is_bool and d.lanes & (d.lanes - 1) == 0
