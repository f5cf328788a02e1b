"""Vector types and functions on vectors, each written when a kernel first uses it.

A function has two bodies, on vectors as GCC and Clang have them, and lane by lane for other compilers (and for numbers of lanes that are no
power of two). Each is an inline function, so that kernels read alike for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...dtype import DType
from .types import element_type, scalar_type, short_name

_UNARY = {
    "neg": ("-{a}", "-a"),
    "abs": ("fabs{f}({a})", None),
    "sqrt": ("sqrt{f}({a})", None),
    "floor": ("floor{f}({a})", None),
    "ceil": ("ceil{f}({a})", None),
    "round": ("rint{f}({a})", None),
    "trunc": ("trunc{f}({a})", None),
}
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
_EXTREMA = {"min": "a < b", "max": "a > b", "min_of_number": "~(b < a)", "max_of_number": "~(b > a)"}
"""When the first one is taken."""
_COMPARE = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_LOADS = {"": "load", "every": "load_every", "gather": "gather"}
_STORES = {"": "store", "every": "store_every", "gather": "scatter"}
_FMA = """
#if VECTORS && defined({feature})
#include <{header}>
INLINE {t} {t}_fma({t} a, {t} b, {t} c) {{ return ({t}){call}; }}
#else
{other}
#endif"""
_FMAS = {  # bytes of a vector, bits of an element -> who has an instruction for it, and what C calls it
    (64, 32): ("__AVX512F__", "immintrin.h", "_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c)"),
    (64, 64): ("__AVX512F__", "immintrin.h", "_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c)"),
    (32, 32): ("__FMA__", "immintrin.h", "_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c)"),
    (32, 64): ("__FMA__", "immintrin.h", "_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c)"),
    (16, 32): ("__ARM_FEATURE_FMA", "arm_neon.h", "vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b)"),
}


class Vectors:
    """The types and functions in use, in an order in which C takes them."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def text(self) -> str:
        return "\n".join(self._texts.values())

    @property
    def functions(self) -> Mapping[str, str]:
        """The texts by name, in order."""
        return self._texts

    def type(self, d: DType) -> str:
        """The name of the type of a value."""
        if d.lanes == 1:
            return scalar_type(d)
        name = short_name(d)
        if name not in self._texts:
            word = "VECTOR" if _is_native(d.lanes) else "STRUCT"
            if word == "STRUCT":
                self._texts["STRUCT"] = "#define STRUCT(t, n, name) typedef struct { t at[n]; } name"
            self._texts[name] = f"{word}({'int32_t' if d.is_bool else element_type(d)}, {d.lanes}, {name});"
        return name

    def _function(
        self, name: str, result: DType, params: Sequence[tuple[str | DType, str]], lane: str, vector: str | None = None
    ) -> str:
        """A function by its element i, as a text in which {a} stands for the element of the argument a, and on whole vectors."""
        if name in self._texts:
            return name
        at = "AT({}, i)" if _is_native(result.lanes) else "({}).at[i]"
        told = ", ".join(f"{p if isinstance(p, str) else self.type(p)} {word}" for p, word in params)
        elements = {word: at.format(word) if isinstance(p, DType) and p.lanes > 1 else word for p, word in params}
        by_lanes = f"LANES({result.lanes}, {at.format('r')} = {lane.format(**elements)})"
        body = by_lanes if vector is None or not _is_native(result.lanes) else f"EITHER(r = {vector}, {by_lanes})"
        t = self.type(result)
        self._texts[name] = f"INLINE {t} {name}({told}) {{ {t} r; {body}; return r; }}"
        return name

    def _procedure(self, name: str, lanes: int, params: Sequence[tuple[str | DType, str]], lane: str) -> str:
        if name not in self._texts:
            at = "AT({}, i)" if _is_native(lanes) else "({}).at[i]"
            told = ", ".join(f"{p if isinstance(p, str) else self.type(p)} {word}" for p, word in params)
            elements = {word: at.format(word) if isinstance(p, DType) else word for p, word in params}
            self._texts[name] = f"INLINE void {name}({told}) {{ LANES({lanes}, {lane.format(**elements)}); }}"
        return name

    # arithmetic

    def binary(self, op: str, d: DType) -> str:
        """add, sub, mul, div, and, or, xor, shl, shr, min, max, min_of_number, max_of_number, floordiv, floormod, fmod, pow."""
        t = self.type(d)
        scalar = short_name(d.element)
        both = [(d, "a"), (d, "b")]
        if d.is_int and op in ("add", "sub", "mul", "shl"):  # which wrap
            u, symbol = self.type(DType("uint", d.bits, d.lanes)), _INFIX.get(op, "<<")
            vector = f"({t})(({u})a {symbol} ({u})b)"
            return self._function(f"{t}_{op}", d, both, f"{scalar}_{op}({{a}}, {{b}})", vector)
        if op in _INFIX or op == "shr":
            symbol = _INFIX.get(op, ">>")
            return self._function(f"{t}_{op}", d, both, f"{{a}} {symbol} {{b}}", f"a {symbol} b")
        if op in ("fmod", "pow"):
            return self._function(f"{t}_{op}", d, both, f"{op}{'f' if d.bits == 32 else ''}({{a}}, {{b}})")
        vector = None
        if d.bits == 32 and op in _EXTREMA:
            nan = "(a != a) | " if d.is_float and op in ("min", "max") else ""
            vector = f"{self.select(d)}({nan}({_EXTREMA[op]}), a, b)"
        return self._function(f"{t}_{op}", d, both, f"{scalar}_{op}({{a}}, {{b}})", vector)

    def unary(self, op: str, d: DType) -> str:
        """neg, abs, sqrt, floor, ceil, round, trunc, and the functions of the C library."""
        t = self.type(d)
        if d.is_int:
            return self._function(f"{t}_{op}", d, [(d, "a")], f"{short_name(d.element)}_{op}({{a}})")
        f = "f" if d.bits == 32 else ""
        lane, vector = _UNARY.get(op, (f"{op}{f}({{a}})", None))
        if op == "abs":
            i = self.type(DType("int", d.bits, d.lanes))
            vector = f"({t})(({i})a & {'0x7fffffff' if d.bits == 32 else '0x7fffffffffffffff'})"
        return self._function(f"{t}_{op}", d, [(d, "a")], lane.replace("{f}", f), vector)

    def multiply_add(self, d: DType) -> str:
        """a * b + c, rounded once or twice."""
        return self._function(f"{self.type(d)}_mla", d, [(d, "a"), (d, "b"), (d, "c")], "{a} * {b} + {c}", "a * b + c")

    def fma(self, d: DType) -> str:
        """a * b + c, rounded once."""
        t, name = self.type(d), f"{self.type(d)}_fma"
        if name not in self._texts:
            wide = "(float)((double){a} * {b} + {c})"  # a product of two floats is exact in double
            lane = wide if d.bits == 32 else "fma({a}, {b}, {c})"
            other = self._function(name, d, [(d, "a"), (d, "b"), (d, "c")], lane)
            known = _FMAS.get((d.lanes * d.itemsize, d.bits))
            if known is not None:
                feature, include, call = known
                text = self._texts[other]
                self._texts[name] = _FMA.format(t=t, feature=feature, header=include, call=call, other=text).lstrip()
        return name

    def compare(self, op: str, d: DType) -> str:
        """lt, le, eq, ne: a mask."""
        mask = DType("bool", 8, d.lanes)
        t, symbol = self.type(d), _COMPARE[op]
        m = self.type(mask)
        if d.is_bool:
            symbol = symbol.replace("<", ">")  # true is -1
        is_mask = d.bits == 32 or d.is_bool  # comparing gives integers as wide as the operands
        vector = f"({m})(a {symbol} b)" if is_mask else f"__builtin_convertvector(a {symbol} b, {m})"
        return self._function(f"{t}_{op}", mask, [(d, "a"), (d, "b")], f"-({{a}} {symbol} {{b}})", vector)

    def logical_not(self, d: DType) -> str:
        return self._function(f"{self.type(d)}_not", d, [(d, "a")], "~{a}", "~a")

    def select(self, d: DType) -> str:
        """(mask, then, otherwise)"""
        t = self.type(d)
        mask = DType("bool", 8, d.lanes)
        if d.is_bool:
            vector = "(m & a) | (~m & b)"
        else:
            i = self.type(DType("int", d.bits, d.lanes))
            if d.bits != 32:
                self._function(f"{i}_of_mask", DType("int", d.bits, d.lanes), [(mask, "m")], "{m}", f"__builtin_convertvector(m, {i})")  # fmt: skip
            on = "m" if d.bits == 32 else f"{i}_of_mask(m)"
            vector = f"({t})(({on} & ({i})a) | (~{on} & ({i})b))"
        return self._function(f"{t}_select", d, [(mask, "m"), (d, "a"), (d, "b")], "{m} ? {a} : {b}", vector)

    # conversions

    def convert(self, source: DType, target: DType) -> str:
        """Between numbers, and from masks."""
        s, t = self.type(source), self.type(target)
        name = f"{t}_from_{s}"
        vector = f"__builtin_convertvector({'-a' if source.is_bool else 'a'}, {t})"
        if source.is_bool:
            return self._function(name, target, [(source, "a")], f"({element_type(target)})-{{a}}", vector)
        is_half = (source.bits == 16 and source.is_float) or (target.bits == 16 and target.is_float)
        if is_half or (source.is_float and target.is_int):
            lane = f"{short_name(target.element)}_from_{short_name(source.element)}({{a}})"
            return self._function(name, target, [(source, "a")], lane)
        return self._function(name, target, [(source, "a")], f"({element_type(target)}){{a}}", vector)

    def truncate(self, source: DType, target: DType) -> str:
        """Floats that are known to fit, to integers."""
        name = f"{self.type(target)}_trunc_{self.type(source)}"
        vector = f"__builtin_convertvector(a, {self.type(target)})"
        return self._function(name, target, [(source, "a")], f"({element_type(target)}){{a}}", vector)

    def bits(self, source: DType, target: DType) -> str:
        """The same bits as another type."""
        s, t = self.type(source), self.type(target)
        name = f"{t}_of_{s}"
        if name not in self._texts:
            copied = "memcpy(&r, &a, sizeof r)"
            body = f"EITHER(r = ({t})a, {copied})" if _is_native(target.lanes) else copied
            self._texts[name] = f"INLINE {t} {name}({s} a) {{ {t} r; {body}; return r; }}"
        return name

    # lanes

    def fill(self, d: DType) -> str:
        """A scalar in all lanes; of masks, 0 or 1."""
        x = "-a" if d.is_bool else "a"
        vector = f"(({self.type(d)}){{{', '.join([x] * d.lanes)}}})"
        return self._function(f"{self.type(d)}_fill", d, [(scalar_type(d.element), "a")], x, vector)

    def ramp(self, d: DType) -> str:
        """(first, step)"""
        s = scalar_type(d.element)
        return self._function(f"{self.type(d)}_ramp", d, [(s, "a"), (s, "step")], f"({s})(a + step * ({s})i)")

    def across(self, op: str, d: DType) -> str:
        """All lanes combined, its halves, the halves of that, and so on: add, min, max."""
        t, name = self.type(d), f"{self.type(d)}_across_{op}"
        if name not in self._texts:
            s, e = scalar_type(d.element), short_name(d.element)
            x, y = "AT(a, i)", "AT(a, i + n)"
            both = f"{x} + {y}" if op == "add" and d.is_float else f"{e}_{op}({x}, {y})"
            self._texts[name] = (
                f"INLINE {s} {name}({t} a) {{\n  for (int n = {d.lanes // 2}; n > 0; n /= 2)\n"
                f"    for (int i = 0; i < n; i++) {x} = {both};\n  return AT(a, 0);\n}}"
            )
        return name

    def any(self, d: DType) -> str:
        t, name = self.type(d), f"{self.type(d)}_any"
        if name not in self._texts:
            at = "AT(a, i)" if _is_native(d.lanes) else "a.at[i]"
            self._texts[name] = f"INLINE int {name}({t} a) {{ int r = 0; LANES({d.lanes}, r |= {at} != 0); return r; }}"
        return name

    def dot(self, acc: DType, a: DType, b: DType) -> str:
        """acc + sums of products of neighbours."""
        name, group = f"{self.type(acc)}_dot_{self.type(a)}", a.lanes // acc.lanes
        s = scalar_type(acc.element)

        def term(word: str, d: DType, j: int) -> str:
            x = f"AT({word}, {group} * i + {j})"
            return f"f32_from_{short_name(d.element)}({x})" if d.is_float else f"({s}){x}"

        sums = " + ".join(f"{term('a', a, j)} * {term('b', b, j)}" for j in range(group))
        if name not in self._texts:
            t = self.type(acc)
            told = f"{t} r, {self.type(a)} a, {self.type(b)} b"
            self._texts[name] = f"INLINE {t} {name}({told}) {{ LANES({acc.lanes}, AT(r, i) += {sums}); return r; }}"
        return name

    # memory

    def load(self, d: DType, how: str, is_masked: bool) -> str:
        """From (p), (p, step) or (p, places), with a mask behind them if wanted.

        Args:
            how: "" for neighbours, "every", "gather".
        """
        t, e = self.type(d), element_type(d)
        name = f"{t}_{_LOADS[how]}{'_if' if is_masked else ''}"
        params: list[tuple[str | DType, str]] = [(f"const {e} *", "p"), *_places(how, d)]
        element = {"": "p[i]", "every": "p[i * step]", "gather": "p[{at}]"}[how]
        lane = f"-({element} != 0)" if d.is_bool else element
        if is_masked:
            params.append((DType("bool", 8, d.lanes), "m"))
            lane = f"{{m}} ? {lane} : 0"
        elif not how and not d.is_bool:
            if name not in self._texts:
                copied = f"memcpy(&r, p, {d.lanes} * sizeof *p)"
                body = f"EITHER(r = *(const {t}_in_memory *)p, {copied})" if _is_native(d.lanes) else copied
                self._texts[name] = f"INLINE {t} {name}(const {e} *p) {{ {t} r; {body}; return r; }}"
            return name
        return self._function(name, d, params, lane)

    def store(self, d: DType, how: str, is_masked: bool) -> str:
        """To (p), (p, step) or (p, places), then what, with a mask behind if wanted."""
        t, e = self.type(d), element_type(d)
        name = f"{t}_{_STORES[how]}{'_if' if is_masked else ''}"
        params: list[tuple[str | DType, str]] = [(f"{e} *", "p"), *_places(how, d), (d, "v")]
        element = {"": "p[i]", "every": "p[i * step]", "gather": "p[{at}]"}[how]
        lane = f"{element} = {{v}}{' & 1' if d.is_bool else ''}"
        if is_masked:
            params.append((DType("bool", 8, d.lanes), "m"))
            lane = f"if ({{m}}) {lane}"
        elif not how and not d.is_bool:
            if name not in self._texts:
                copied = f"memcpy(p, &v, {d.lanes} * sizeof *p)"
                body = f"EITHER(*({t}_in_memory *)p = v, {copied})" if _is_native(d.lanes) else copied
                self._texts[name] = f"INLINE void {name}({e} *p, {t} v) {{ {body}; }}"
            return name
        return self._procedure(name, d.lanes, params, lane)


def _is_native(lanes: int) -> bool:
    """Whether GCC has vectors of so many lanes."""
    return lanes & (lanes - 1) == 0


def _places(how: str, d: DType) -> list[tuple[str | DType, str]]:
    if how == "every":
        return [("int64_t", "step")]
    return [(DType("int", 64, d.lanes), "at")] if how == "gather" else []
