"""Every operator with every dtype: type rule, reference and kernel agree, or the type rule refuses."""

import numpy as np
import pytest
from test_operators import CASES

import tcomp
from tcomp import dtype as types
from tcomp.dtype import DType
from tcomp.errors import ShapeError
from tcomp.ops import OPERATORS, GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.ops.registry import as_tuple

OFTEN = [types.bool_, types.int8, types.uint8, types.int32, types.int64, types.float16, types.bfloat16, types.float64]
RARELY = [t for t in types.ALL if t not in OFTEN and t is not types.float32]
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


def first_cases() -> dict[str, tuple[list, dict]]:
    """The first case of each operator."""
    found: dict[str, tuple[list, dict]] = {}
    for op, shapes, attrs in CASES:
        found.setdefault(op, (shapes, attrs))
    return found


def values(shape: tuple, kind: DType, op: str, rng: np.random.Generator) -> np.ndarray:
    """Random elements that every dtype can hold: negative ones where the type has them, no zeros where they are divided by."""
    if kind.is_bool:
        return rng.random(shape) < 0.5
    if kind.is_int:
        low = (
            1
            if op in ("floor_divide", "power_scalar", "truncated_divide", "floor_mod", "fmod") or kind.kind == "uint"
            else -5
        )
        return rng.integers(low, 6, shape).astype(kind.numpy)
    x = np.asarray(rng.standard_normal(shape))
    positive = op in ("log", "log1p", "sqrt", "rsqrt", "power", "power_scalar", "batch_norm", "cast")
    x = np.tanh(x) * 0.9 if op in ("asin", "acos", "atanh") else np.abs(x) + 1.1 if op == "acosh" else x
    return (np.abs(x) + 0.1 if positive else 1 + 0.05 * x if op == "prod" else x).astype(kind.numpy)


def check(op: str, kind: DType, rng: np.random.Generator) -> bool:
    """Whether the type rule accepts the dtype; asserts that all three agree if it does."""
    shapes, attrs = first_cases()[op]
    if kind.is_int:  # numbers that integers can hold
        attrs = {k: 3 if k == "scalar" else 2 if k == "value" else v for k, v in attrs.items()}
    arrays = []
    for shape in shapes:
        fixed = shape[-1] if shape and isinstance(shape[-1], str) else None
        extents = tuple(s for s in shape if not isinstance(s, str))
        given = (
            kind
            if fixed is None or (fixed == "int32" and not any(len(s) == 0 or s[-1] != "int32" for s in shapes))
            else types.dtype(fixed)
        )
        arrays.append(values(extents, given, op, rng))
    g = GraphBuilder()
    try:
        out = g.op(op, *(g.input(f"x{i}", x.shape, x.dtype) for i, x in enumerate(arrays)), **attrs)
    except ShapeError:
        return False
    module = g.build(*as_tuple(out))
    want = evaluate(module, arrays, exact=True)[0]
    reference = evaluate(module, arrays)[0]
    got, out = (as_tuple(x)[0] for x in (tcomp.compile(module)(*arrays), out))
    expected = out.type.dtype.numpy
    assert reference.dtype == expected and got.dtype == expected
    assert reference.shape == got.shape == out.type.shape
    if not out.type.dtype.is_float:
        assert np.array_equal(reference, want) and np.array_equal(got, want)
        return True
    limit = ROUNDING[out.type.dtype.name] * (1 if out.type.dtype.bits == 16 else 16) * (4 if "winograd" in op else 1)
    scale = np.linalg.norm(want.astype("float64")) or 1.0
    for array in (reference, got):
        assert np.linalg.norm(array.astype("float64") - want) / scale <= limit
    return True


@pytest.mark.parametrize("kind", OFTEN, ids=str)
@pytest.mark.parametrize("op", sorted(OPERATORS))
@pytest.mark.drawn(1 / 4)
def test_rule_reference_and_kernel_agree(op: str, kind: DType, rng: np.random.Generator) -> None:
    check(op, kind, rng)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RARELY, ids=str)
@pytest.mark.parametrize("op", sorted(OPERATORS))
def test_the_other_dtypes_agree_too(op: str, kind: DType, rng: np.random.Generator) -> None:
    check(op, kind, rng)


HALVES = [("float16", 2.0**-11), ("bfloat16", 2.0**-8)]


def compiled(op: str, arrays: list, **attrs: object) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel and the reference give."""
    g = GraphBuilder()
    module = g.build(g.op(op, *(g.input(f"x{i}", x.shape, x.dtype) for i, x in enumerate(arrays)), **attrs))
    return tcomp.compile(module)(*arrays), evaluate(module, arrays)[0]


@pytest.mark.parametrize(("kind", "eps"), HALVES)
@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "value", "want"),
    [
        ("mean", [(5000,)], {}, 20.0, 20.0),
        ("sum", [(1024,)], {}, 1.0, 1024.0),
        ("sum", [(3, 1024, 5)], {"axes": (1,)}, 1.0, 1024.0),
        ("global_avg_pool2d", [(1, 2, 28, 28)], {}, 3.0, 3.0),
        ("avg_pool2d", [(1, 2, 28, 28)], {"kernel": 28}, 3.0, 3.0),
        ("rms_norm", [(2, 768), (768,)], {}, 10.0, 10.0),
        ("softmax", [(2, 4096)], {}, 1.0, 1 / 4096),
    ],
)
def test_halves_are_summed_up_in_float32(
    op: str, shapes: list, attrs: dict, value: float, want: float, kind: str, eps: float
) -> None:
    arrays = [np.full(s, value, types.dtype(kind).numpy) for s in shapes]
    for result in compiled(op, arrays, **attrs):
        assert np.allclose(result.astype("float64"), want, rtol=eps, atol=0)


@pytest.mark.parametrize(("kind", "eps"), HALVES)
def test_layer_norm_of_halves_far_from_zero(kind: str, eps: float, rng: np.random.Generator) -> None:
    x = (100 + 0.5 * rng.standard_normal((4, 768))).astype(types.dtype(kind).numpy)
    one, zero = np.ones(768, x.dtype), np.zeros(768, x.dtype)
    wide = x.astype("float64")
    want = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    for result in compiled("layer_norm", [x, one, zero]):
        assert np.abs(result.astype("float64") - want).max() <= 4 * eps * np.abs(want).max()


@pytest.mark.parametrize("op", ["sum", "mean"])
def test_long_sums_of_float32_keep_a_millionth(op: str, rng: np.random.Generator) -> None:
    x = rng.random((3, 1 << 20), "float32") + np.float32(0.5)
    want = getattr(np, op)(x.astype("float64"), axis=1)
    for result in compiled(op, [x], axes=(1,)):
        assert np.allclose(result, want, rtol=1e-7)


@pytest.mark.parametrize(
    ("kind", "result"), [("int8", "int64"), ("int32", "int64"), ("uint8", "uint64"), ("uint64", "uint64")]
)
def test_sums_of_integers_are_wide(kind: str, result: str) -> None:
    x = np.full((3, 300), 100, kind)
    for got in compiled("sum", [x], axes=(1,)):
        assert got.dtype == result and np.array_equal(got, [30000] * 3)
    for got in compiled("sum", [x], axes=(1,), out_dtype=kind):
        assert got.dtype == kind and np.array_equal(got, x.sum(1).astype(kind))


def test_places_of_extremes_fit_the_axis() -> None:
    """Beyond 2^31 elements the place is held in 64 bits."""
    from tcomp.ir.graph import TensorType
    from tcomp.ir.stmt import Attrs
    from tcomp.te import create_prim_func, placeholder

    held = {}
    for extent in (100, 3 * 10**9):
        a = placeholder((extent,), name="A")
        attrs = Attrs.of(axis=0, keepdims=False)
        out = OPERATORS["argmax"].compute([a], attrs, TensorType((), types.int64))
        func = create_prim_func([a, out], "argmax")
        held[extent] = {b.name: b.dtype.name for b in func.allocs}["argmax_first"]
    assert held == {100: "int32", 3 * 10**9: "int64"}


def test_float64_is_rounded_once() -> None:
    x = np.array(
        [1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-11 + 2.0**-40, -1 - 2.0**-8 - 2.0**-40, np.inf, -np.inf, np.nan, 0.0, 1e-300]
    )
    for kind, want in (
        ("bfloat16", [1 + 2.0**-7, 1, -1 - 2.0**-7]),
        ("float16", [1 + 2.0**-8, 1 + 2.0**-10, -1 - 2.0**-8]),
    ):
        for got in compiled("cast", [x], dtype=kind):
            assert np.array_equal(got[:3].astype("float64"), want)
            assert np.array_equal(got[3:].astype("float64"), [np.inf, -np.inf, np.nan, 0, 0], equal_nan=True)


@pytest.mark.parametrize("source", ["int32", "int64", "uint32"])
def test_integers_are_rounded_once_to_bfloat16(source: str, rng: np.random.Generator) -> None:
    x = np.concatenate(
        [rng.integers(0, 2**31 - 1, 1000), [(1 << 24) + (1 << 16) + 1, (1 << 30) + (1 << 22) + 1]]
    ).astype(source)
    got, reference = compiled("cast", [x], dtype="bfloat16")
    assert np.array_equal(got, reference)
    assert np.array_equal(got[-2:].astype("float64"), [(1 << 24) + (1 << 17), (1 << 30) + (1 << 23)])


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "shape"),
    [
        ("mean", [(3, 0)], {"axes": (1,)}, (3,)),
        ("mean", [(2, 3)], {"axes": ()}, (2, 3)),
        ("layer_norm", [(3, 0), (0,), (0,)], {}, (3, 0)),
        ("rms_norm", [(3, 0), (0,)], {}, (3, 0)),
        ("global_avg_pool2d", [(1, 2, 0, 5)], {}, (1, 2, 1, 1)),
        ("softmax", [(3, 0)], {}, (3, 0)),
        ("cross_entropy", [(0, 5), (0,)], {}, ()),
    ],
)
def test_empty_axes_give_what_numpy_gives(
    op: str, shapes: list, attrs: dict, shape: tuple, rng: np.random.Generator
) -> None:
    arrays = [rng.standard_normal(s).astype("float32") for s in shapes]
    if op == "cross_entropy":
        arrays[1] = arrays[1].astype("int64")
    for result in compiled(op, arrays, **attrs):
        assert result.shape == shape
        assert np.isnan(result).all() or attrs == {"axes": ()}


@pytest.mark.parametrize(
    ("op", "kind", "attrs", "message"),
    [
        ("add_scalar", "int32", {"scalar": 0.5}, "int32 cannot hold the scalar 0.5"),
        ("multiply_scalar", "uint8", {"scalar": 300}, "uint8 cannot hold the scalar 300"),
        ("divide_scalar", "int32", {"scalar": 2}, "floating-point"),
        ("power_scalar", "int32", {"scalar": -1}, "no negative power"),
        ("add_scalar", "bool", {"scalar": 1}, "takes numbers"),
        ("negative", "bool", {}, "takes numbers"),
        ("pad", "int8", {"pad_width": ((1, 1),), "value": 1.5}, "cannot hold the value 1.5"),
        ("sum", "int32", {"out_dtype": "int8"}, "the result is int64 or int32, not int8"),
    ],
)
def test_what_a_dtype_cannot_hold_is_refused(op: str, kind: str, attrs: dict, message: str) -> None:
    g = GraphBuilder()
    with pytest.raises(ShapeError, match=message):
        g.op(op, g.input("x", (3,), kind), **attrs)


@pytest.mark.parametrize("op", ["max", "min"])
def test_no_extreme_of_nothing(op: str) -> None:
    g = GraphBuilder()
    with pytest.raises(ShapeError, match="empty axis"):
        g.op(op, g.input("x", (3, 0)), axes=(1,))
    assert g.op(op, g.input("y", (0, 3)), axes=(1,)).type.shape == (0,)
