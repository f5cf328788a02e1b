"""Tensor intrinsics: what an instruction computes, as loops, and how to write the instruction.

A block is tensorized when its body matches the loops; they stay its meaning for every analysis and for the interpreter, and
code generation puts the instruction in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..dtype import DType, bfloat16, float32, float64, int8, int32, uint8
from ..errors import ScheduleError
from .expr import Add, BinaryExpr, Broadcast, Buffer, Call, Const, Expr, Load, Max, Min, Mul, Ramp, Var, cast, const
from .node import walk
from .stmt import For, Stmt, Store


class Place(NamedTuple):
    """Where an operand lies: the flat buffer, the offset of its first element, and the elements from one row to the next."""

    buffer: Buffer
    offset: Expr
    step: Expr


Places = Mapping[str, Place]
"""By the description's buffer names."""


@dataclass(frozen=True, eq=False, slots=True)
class TensorIntrin:
    """An instruction of the target.

    Attributes:
        name: under which it is registered.
        description: loops with one store: what it computes, over small buffers without gaps.
        apart: names of buffers of two dimensions whose rows may lie any number of elements apart.
        implementation: given where the buffers are, the statement that does the same.
        feature: what the target must have: a CPU's in LLVM's words, "tensor cores" of a GPU; "" for nothing special.
    """

    name: str
    description: Stmt
    implementation: Callable[[Places], Stmt]
    feature: str = ""
    apart: frozenset[str] = frozenset()


_REGISTRY: dict[str, TensorIntrin] = {}


def register(intrin: TensorIntrin) -> TensorIntrin:
    """Make an intrinsic known to `Schedule.tensorize` under its name.

    Raises:
        ScheduleError: another one has that name.
    """
    if _REGISTRY.get(intrin.name, intrin) is not intrin:
        raise ScheduleError(f"a tensor intrinsic {intrin.name!r} is registered already", hint="choose another name")
    _REGISTRY[intrin.name] = intrin
    return intrin


def tensor_intrin(name: str) -> TensorIntrin | None:
    """The intrinsic of that name, if there is one."""
    return _REGISTRY.get(name)


def tensor_intrins() -> tuple[str, ...]:
    """The names of all registered intrinsics."""
    return tuple(_REGISTRY)


def dot_description(lanes: int, group: int, a: DType, b: DType, c: DType) -> Stmt:
    """C[i] += A[k] * B[i, k] for i < lanes and k < group, the products in C's dtype."""
    left = Buffer("A", (const(group),), a)
    right = Buffer("B", (const(lanes), const(group)), b)
    out = Buffer("C", (const(lanes),), c)
    i, k = Var("i"), Var("k")
    product = cast(left[k], c) * cast(right[i, k], c)
    return For(i, const(lanes), For(k, const(group), Store(out, (i,), out[i] + product)))


def dot_shape(intrin: TensorIntrin) -> tuple[int, int, DType, DType] | None:
    """(lanes, products in each, dtypes of A and B) of an intrinsic that `dot_description` describes; None of another one."""
    match intrin.description:
        case For(
            extent=Const(value=lanes),
            body=For(extent=Const(value=group), body=Store(value=Add(b=Mul(a=left, b=right)))),
        ):
            a, b = (next(e for e in walk(x) if isinstance(e, Load)).buffer for x in (left, right))
            return int(lanes), int(group), a.dtype, b.dtype
    return None


def _dot(op: str, lanes: int, group: int) -> Callable[[Places], Stmt]:
    """acc[lanes] += the group of A, repeated, times the lanes of B: one instruction."""

    def write(places: Places) -> Stmt:
        (a, at_a, _), (b, at_b, _), (c, at_c, _) = (places[n] for n in "ABC")
        here = Ramp(at_c, const(1), lanes)
        few = Load(a, (Ramp(at_a, const(1), group),))
        word = Call("bitcast", (few,), int32)
        repeated = Call("bitcast", (Broadcast(word, lanes),), a.dtype.with_lanes(lanes * group))
        many = Load(b, (Ramp(at_b, const(1), lanes * group),))
        acc = Load(c, (here,))
        return Store(c, (here,), Call(op, (acc, repeated, many), acc.dtype))

    return write


VNNI_U8I8 = register(
    TensorIntrin("avx512_vnni_u8i8", dot_description(16, 4, uint8, int8, int32), _dot("dot_u8i8", 16, 4), "avx512vnni")
)
"""vpdpbusd: 16 sums of 4 products of uint8 and int8, exact."""

BF16 = register(
    TensorIntrin(
        "avx512_bf16_dot", dot_description(16, 2, bfloat16, bfloat16, float32), _dot("dot_bf16", 16, 2), "avx512bf16"
    )
)
"""vdpbf16ps: 16 sums of 2 products of bfloat16. It treats subnormal numbers as zero and rounds each addition."""


def _across(op: type[BinaryExpr], d: DType, lanes: int) -> TensorIntrin:
    """C = op(C, A[0], A[1], ...): the lanes of one vector, combined pairwise."""
    vector, out, k = Buffer("A", (const(lanes),), d), Buffer("C", (), d), Var("k")

    def write(places: Places) -> Stmt:
        (a, at_a, _), (c, at_c, _) = places["A"], places["C"]
        lanes_of_a = Load(a, (Ramp(at_a, const(1), lanes),))
        combined = Call(f"lanes_{op.__name__.lower()}", (lanes_of_a,), d)
        return Store(c, (at_c,), op(Load(c, (at_c,)), combined))

    body = Store(out, (), op(Load(out, ()), vector[k]))
    return TensorIntrin(across(op, d, lanes), For(k, const(lanes), body), write)


def across(op: type[BinaryExpr], d: DType, lanes: int) -> str:
    """The name of the intrinsic that combines the lanes of a vector by Add, Max or Min: `lanes_add_float32x16`."""
    return f"lanes_{op.__name__.lower()}_{d.name}x{lanes}"


for _d, _widths in ((float32, (4, 8, 16)), (float64, (2, 4, 8)), (int32, (4, 8, 16))):
    for _lanes in _widths:
        for _op in (Add, Max, Min):
            register(_across(_op, _d, _lanes))
