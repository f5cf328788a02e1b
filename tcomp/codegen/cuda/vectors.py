"""Functions on short vectors in CUDA C: structs, whose elements the compiler keeps in registers."""

from __future__ import annotations

from ...dtype import DType
from ..c.types import element_type, scalar_type, short_name
from ..c.vectors import Vectors

WARP = 32
_COMBINE = {"add": "{a} + {b}", "mul": "{a} * {b}", "max": "{e}_max({a}, {b})", "min": "{e}_min({a}, {b})"}


class CudaVectors(Vectors):
    """The types and functions in use. Neighbours in memory are moved 16 bytes at a time where the address allows that."""

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
        if how or is_masked or d.is_bool or d.lanes & (d.lanes - 1):
            return super().load(d, how, is_masked)
        t, e = self.type(d), element_type(d)
        name = f"{t}_load"
        self._texts.setdefault(
            name,
            f"INLINE {t} {name}(const {e} *p) {{\n  {t} r;\n  if (IS_ALIGNED(p, {t})) r = *(const {t} *)p;\n"
            f"  else LANES({d.lanes}, AT(r, i) = p[i]);\n  return r;\n}}",
        )
        return name

    def store(self, d: DType, how: str, is_masked: bool) -> str:
        if how or is_masked or d.is_bool or d.lanes & (d.lanes - 1):
            return super().store(d, how, is_masked)
        t, e = self.type(d), element_type(d)
        name = f"{t}_store"
        self._texts.setdefault(
            name,
            f"INLINE void {name}({e} *p, {t} v) {{\n  if (IS_ALIGNED(p, {t})) *({t} *)p = v;\n"
            f"  else LANES({d.lanes}, p[i] = AT(v, i));\n}}",
        )
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
