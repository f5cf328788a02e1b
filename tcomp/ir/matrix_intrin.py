"""Tensor intrinsics of GPUs: tiles of 16 x 16 elements that the lanes of a warp hold together, and their products.

They are those of CUDA's warp matrix functions (NVIDIA, CUDA C++ Programming Guide, "Warp Matrix Functions"), which leave it to the device
which lane holds which element. A tile lies in a buffer of scope "warp", whose last two extents are 16; other memory is read and written by whole
tiles, whose rows may lie any number of elements apart.
"""

from __future__ import annotations

from collections.abc import Callable

from ..dtype import DType, bfloat16, float16, float32
from .expr import Buffer, Call, Const, Expr, Load, Ramp, Var, cast, const
from .stmt import For, Stmt, Store
from .tensor_intrin import Place, Places, TensorIntrin, register

SIDE = 16
"""Rows and columns of a tile."""
FEATURE = "tensor cores"
OPERANDS = {float16: "f16", bfloat16: "bf16"}
"""What is multiplied, and how its functions are called; sums are of float32."""
TILE = "tile_"
"""How the functions on tiles begin."""


def load_name(operand: str, is_turned: bool, d: DType) -> str:
    """The intrinsic that brings a tile of the left ("a") or right ("b") operand; turned, its rows run along the other axis."""
    return f"wmma_load_{operand}{'t' if is_turned else ''}_{d.name}"


def product_name(a_turned: bool, b_turned: bool, d: DType) -> str:
    """The intrinsic that adds the product of two tiles to a tile of sums."""
    return f"wmma_{'at' if a_turned else 'a'}_{'bt' if b_turned else 'b'}_{d.name}"


def _nest(body: Stmt, *loops: Var) -> Stmt:
    for v in reversed(loops):
        body = For(v, const(SIDE), body)
    return body


def _tile(name: str, d: DType) -> Buffer:
    return Buffer(name, (const(SIDE), const(SIDE)), d)


def _whole(place: Place) -> tuple[Buffer, tuple[Expr, ...]]:
    """All elements of a tile."""
    return place.buffer, (Ramp(place.offset, const(1), SIDE * SIDE),)


def _call(function: str, d: DType, *args: Expr) -> Call:
    return Call(TILE + function, args, d)


def _wide(d: DType) -> DType:
    return d.with_lanes(SIDE * SIDE)


def _load(function: str, d: DType) -> Callable[[Places], Stmt]:
    def write(places: Places) -> Stmt:
        (source, at, step), tile = places["S"], places["T"]
        return Store(*_whole(tile), _call(function, _wide(d), Load(source, (at,)), step))

    return write


def _product(function: str) -> Callable[[Places], Stmt]:
    def write(places: Places) -> Stmt:
        c, a, b = (Load(*_whole(places[n])) for n in "CAB")
        return Store(*_whole(places["C"]), _call(function, _wide(float32), c, a, b))

    return write


def _fill(places: Places) -> Stmt:
    return Store(*_whole(places["T"]), _call("fill_f32", _wide(float32), Const(0.0, float32)))


def _store(places: Places) -> Stmt:
    (target, at, step), tile = places["S"], places["T"]
    return Store(target, (at,), _call("store_f32", float32, Load(*_whole(tile)), step))


def _register_loads(d: DType) -> None:
    i, j = Var("i"), Var("j")
    source, tile = _tile("S", d), _tile("T", d)
    copy = _nest(Store(tile, (i, j), source[i, j]), i, j)
    for operand in "ab":
        for is_turned in (False, True):
            name = load_name(operand, is_turned, d)
            function = name.removeprefix("wmma_").removesuffix(d.name) + OPERANDS[d]
            register(TensorIntrin(name, copy, _load(function, d), FEATURE, frozenset("S")))


def _register_products(d: DType) -> None:
    a, b, c = _tile("A", d), _tile("B", d), _tile("C", float32)
    i, j, k = Var("i"), Var("j"), Var("k")
    for a_turned in (False, True):
        for b_turned in (False, True):
            left, right = (a[k, i] if a_turned else a[i, k]), (b[j, k] if b_turned else b[k, j])
            value = c[i, j] + cast(left, float32) * cast(right, float32)
            name = product_name(a_turned, b_turned, d)
            function = f"multiply_{'at' if a_turned else 'a'}_{'bt' if b_turned else 'b'}_{OPERANDS[d]}"
            register(TensorIntrin(name, _nest(Store(c, (i, j), value), i, j, k), _product(function), FEATURE))


def _register_sums() -> None:
    i, j = Var("i"), Var("j")
    tile, target = _tile("T", float32), _tile("S", float32)
    register(TensorIntrin("wmma_fill", _nest(Store(tile, (i, j), Const(0.0, float32)), i, j), _fill, FEATURE))
    copy = _nest(Store(target, (i, j), tile[i, j]), i, j)
    register(TensorIntrin("wmma_store", copy, _store, FEATURE, frozenset("S")))


for _d in OPERANDS:
    _register_loads(_d)
    _register_products(_d)
_register_sums()
