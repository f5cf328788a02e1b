"""Every operator, compiled by its default schedule, against its reference in float64, over odd shapes."""

import numpy as np
import pytest

import tcomp
from tcomp.dtype import DType, dtype, float32
from tcomp.errors import InputError, ShapeError, UnsupportedError
from tcomp.ir.graph import TensorType
from tcomp.ops import OPERATORS, GraphBuilder, infer
from tcomp.ops.reference import evaluate
from tcomp.ops.registry import as_tuple
from tcomp.passes.check import relative_error

CASES: list[tuple[str, list, dict]] = []


def case(op: str, *shapes: tuple, **attrs: object) -> None:
    CASES.append((op, list(shapes), attrs))


for _name in ("exp", "log", "log1p", "sqrt", "tanh", "sin", "cos", "atan", "floor", "ceil", "round", "rsqrt", "erf", "sigmoid",
              "silu", "gelu", "negative", "abs", "relu"):  # fmt: skip
    case(_name, (3, 17))
    case(_name, (1,))
case("gelu", (5, 33), approximate=True)
for _name in ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "equal", "not_equal", "less",
              "less_equal", "greater", "greater_equal"):  # fmt: skip
    case(_name, (4, 1, 19), (3, 19))
    case(_name, (7,), ())
case("floor_divide", (3, 5, "int32"), (5, "int32"))
case("logical_and", (3, 7, "bool"), (7, "bool"))
case("logical_or", (3, 7, "bool"), (7, "bool"))
case("logical_not", (3, 7, "bool"))
for _name in (
    "truncated_divide",
    "floor_mod",
    "fmod",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "shift_left",
    "shift_right",
):
    case(_name, (3, 5, "int32"), (5, "int32"))
case("fmod", (3, 19), (19,))
case("bitwise_not", (3, 5, "int32"))
case("isnan", (3, 19))
case("isinf", (3, 19))
case("bitcast", (3, 19, "int64"), dtype="uint64")
case("where", (3, 7, "bool"), (7,), (3, 1))
for _name in ("add_scalar", "multiply_scalar", "divide_scalar", "maximum_scalar", "minimum_scalar"):
    case(_name, (3, 21), scalar=1.5)
for _power in (2, 3, 0.5, -1.5):
    case("power_scalar", (3, 21), scalar=_power)
for _to in ("float64", "float16", "bfloat16", "int32", "uint8", "bool"):
    case("cast", (3, 21), dtype=_to)
for _name in ("sum", "prod", "max", "min", "mean"):
    case(_name, (3, 5, 18))
    case(_name, (3, 5, 18), axes=(1,))
    case(_name, (3, 5, 18), axes=(-1,), keepdims=True)
    case(_name, (5, 33), axes=(0,))
for _name in ("argmax", "argmin"):
    case(_name, (5, 9))
    case(_name, (5, 9, 3), axis=1, keepdims=True)
case("reshape", (4, 6, 5), shape=(8, -1))
case("transpose", (3, 17, 5), axes=(2, 0, 1))
case("transpose", (33, 34), axes=(1, 0))
case("broadcast_to", (5, 1, 3), shape=(2, 5, 7, 3))
case("concat", (2, 3, 5), (2, 4, 5), (2, 1, 5), axis=1)
case("slice", (9, 21), begin=(1, 2), end=(8, 20), strides=(2, 3))
case("slice", (9, 21), begin=(8, 0), end=(-10, 21), strides=(-1, 1))
case("pad", (3, 7), pad_width=((1, 0), (2, 3)), value=1.5)
case("flip", (3, 19), axes=(1,))
case("dilate", (3, 5), axes=(0, 1), dilation=2)
case("optimization_barrier", (3, 5), (2,))
case("random_uniform", (2, "int64"), shape=(5, 3, 37), stream=3)
case("matmul", (7, 13), (13, 33))
case("matmul", (1, 64), (64, 10))
case("matmul", (65, 130), (130, 70))
case("matmul", (3, 1, 5, 7), (2, 7, 9))
case("matmul", (90, 33), (33, 77), panel=32)
case("matmul", (2, 40, 33), (33, 48), panel=16)
case("matmul", (33, 90), (33, 77), panel=32, transposed=(True, False))
case("matmul", (90, 33), (77, 33), panel=16, transposed=(False, True))
case("matmul", (2, 33, 9), (2, 7, 33), transposed=(True, True))
case("pack_columns", (5, 37), width=16)
case("pack_columns", (3, 3, 4, 32), width=8)
case("packed_matmul", (6, 11), (3, 11, 16), columns=37)
case("packed_matmul", (2, 3, 11), (2, 11, 32), columns=64)
case("packed_conv2d", (2, 9, 8, 5), (2, 3, 3, 5, 16), columns=20, padding=1, stride=2)
case("packed_conv2d", (1, 9, 8, 5), (1, 2, 3, 5, 32), columns=32, dilation=2)
case("packed_conv2d", (1, 6, 7, 8), (2, 2, 3, 3, 4, 8), columns=11, groups=2, padding=1)
case("packed_conv2d", (2, 5, 6, 6), (1, 3, 1, 1, 2, 8), columns=5, groups=3, stride=2)
case("winograd_weight", (3, 3, 5, 20), tile=4, width=16)
case("winograd_conv2d", (1, 7, 6, 8), (4, 4, 2, 8, 16), tile=2, columns=20, padding=1)
case("linear", (5, 13), (21, 13))
case("linear", (2, 5, 13), (21, 13), (21,))
case("conv2d", (2, 3, 9, 11), (5, 3, 3, 3), padding=1)
case("conv2d", (1, 4, 8, 8), (6, 4, 3, 3), stride=2, padding=(1, 0, 2, 1))
case("conv2d", (1, 4, 12, 9), (8, 2, 3, 2), groups=2, dilation=2)
case("conv2d", (1, 6, 7, 7), (6, 1, 3, 3), groups=6, padding=1)
case("conv2d", (1, 6, 7, 6), (3, 3, 2, 12), groups=3, padding=1, layout="NHWC", kernel_layout="HWIO")
case("conv2d", (2, 17, 5, 5), (33, 17, 1, 1))
case("conv2d", (2, 9, 8, 3), (3, 3, 3, 20), padding=1, layout="NHWC", kernel_layout="HWIO")
case("conv1d", (2, 6, 19), (8, 6, 3), padding=1, stride=2)
case("conv1d", (2, 19, 6), (3, 3, 8), groups=2, dilation=2, layout="NWC", kernel_layout="WIO")
case("conv1d", (1, 17, 5), (8, 5, 1), layout="NWC")
case("conv3d", (2, 3, 5, 6, 7), (8, 3, 3, 2, 3), padding=(1, 0, 1), stride=(2, 1, 2))
case("conv3d", (1, 5, 6, 7, 4), (2, 3, 3, 2, 6), groups=2, dilation=(2, 1, 1), layout="NDHWC", kernel_layout="DHWIO")
case("conv2d_transpose", (2, 5, 6, 7), (5, 8, 3, 3), stride=2, padding=1, output_padding=1)
case("conv2d_transpose", (1, 6, 7, 5), (5, 20, 4, 4), stride=(2, 3), padding=(1, 0), layout="NHWC")
case("conv2d_transpose", (1, 4, 5, 5), (4, 3, 3, 2), groups=2, stride=2)
case("conv2d_transpose", (1, 4, 5, 5), (4, 6, 3, 2), dilation=2, stride=2, padding=1)
case("conv2d_transpose", (1, 4, 5, 5), (4, 6, 2, 2), stride=3, output_padding=2)
case("conv2d_transpose", (1, 4, 9, 9), (4, 6, 3, 3), padding=2)
case("conv_backward_weight", (2, 9, 8, 5), (2, 7, 6, 20), window=3)
case("conv_backward_weight", (3, 11, 9, 17), (3, 3, 2, 35), window=(3, 4), stride=(4, 3))
case("conv_backward_weight", (2, 9, 8, 6), (2, 5, 6, 6), window=(3, 2), dilation=2, groups=6)
case("conv_backward_weight", (2, 9, 8, 6), (2, 8, 7, 8), window=2, groups=2)
case("conv_backward_weight", (6, 9, 8, 4), (6, 7, 6, 24), window=3, parts=3)
case("conv_backward_weight", (16, 40, 40, 17), (16, 38, 38, 20), window=3)
case("conv_backward_weight", (2, 19, 6), (2, 9, 24), window=3, stride=2)
case("conv_backward_weight", (1, 5, 6, 7, 4), (1, 3, 5, 3, 16), window=(3, 2, 3), stride=(1, 1, 2))
for _name in ("max_pool2d", "avg_pool2d"):
    case(_name, (2, 3, 9, 8), kernel=2)
    case(_name, (2, 5, 9, 8), kernel=3, stride=2, padding=1)
    case(_name, (1, 8, 6, 7), kernel=(2, 3), stride=1, layout="NHWC")
    case(_name, (1, 3, 9, 8), kernel=3, padding=(1, 0, 2, 3), dilation=(1, 2))
case("avg_pool2d", (2, 5, 9, 8), kernel=3, stride=2, padding=1, count_include_pad=False)
case("avg_pool2d", (1, 5, 9, 8), kernel=3, stride=2, padding=2, dilation=2, count_include_pad=False)
case("global_avg_pool2d", (2, 19, 5, 6))
case("softmax", (5, 37))
case("softmax", (3, 7, 5), axis=1)
case("log_softmax", (5, 37))
case("layer_norm", (5, 37), (37,), (37,))
case("rms_norm", (5, 37), (37,))
case("attention", (2, 3, 7, 16), (2, 3, 9, 16), (2, 3, 9, 24))
case("attention", (5, 33), (40, 33), (40, 17), (5, 40))
case("attention", (2, 2, 4, 30, 16), (2, 1, 1, 70, 16), (2, 1, 1, 70, 16), (30, 70))
case("attention", (50, 64), (197, 64), (197, 64), (197,), scale=0.3, causal=True)
case("attention", (3, 65, 20), (3, 65, 20), (3, 65, 12), causal=True, panel=32)
case("attention", (3, 1, 64), (3, 200, 64), (3, 200, 64))
case("attention", (2, 197, 20), (2, 33, 20), (2, 33, 24), (33,), empty="guard", panel=16)
case("attention", (3, 50, 16), (3, 197, 16), (3, 197, 9), (50, 1), empty="nan")
case("take", (9, 17), (3, 5, "int64"))
case("take", (4, 9, 17), (6, "int32"), axis=1)
case("take", (4, 9), (2, 3, "int64"), axis=-1)
for _op in ("scatter_add", "scatter"):
    case(_op, (9, 17), (3, 5, "int64"), (3, 5, 17))
    case(_op, (9, 64), (30, "int64"), (30, 64))
    case(_op, (4, 9, 17), (6, "int32"), (4, 6, 17), axis=1)
    case(_op, (4, 9), (2, 3, "int64"), (4, 2, 3), axis=-1)
    case(_op, (11,), (40, "int64"), (40,))
    case(_op, (5, 6), (0, "int64"), (0, 6))
case("gather_elements", (9, 17), (9, 5, "int64"), axis=1)
case("gather_elements", (4, 9, 17), (3, 20, 17, "int32"), axis=-2)
case("gather_nd", (9, 17, 5), (3, 7, 2, "int64"))
case("gather_nd", (3, 9, 5), (3, 7, 1, "int64"), batch=1)
for _reduction in ("set", "add", "mul", "min", "max"):
    case("scatter_elements", (9, 17), (7, 17, "int64"), (7, 17), axis=0, reduction=_reduction)
    case("scatter_nd", (9, 8, 17), (12, 2, "int64"), (12, 17), reduction=_reduction)
case("scatter_elements", (4, 9), (4, 30, "int32"), (4, 30), axis=1, reduction="add")
case("prefix", (5, 7, 3), axis=1)
case("prefix", (5, 37), product=True)
case("cumulative", (5, 19, 3), axis=1, exclusive=True)
case("cumulative", (3, 200), reverse=True)
case("cumulative", (70, 3), axis=0, product=True, exclusive=True, reverse=True)
case("sort", (5, 37))
case("sort", (6, 5), axis=0, descending=True)
case("sort", (5, 1))
case("topk", (5, 37), k=3)
case("topk", (20, 5), k=20, axis=0, largest=False)
case("einsum", (3, 4, 5), (5, 7), equation="bij,jk->bik")
case("einsum", (4, 4), equation="ii->i")
case("einsum", (2, 3, 5), (2, 5, 3), (3,), equation="...ij,...ji,i")
case("max_pool2d_places", (2, 3, 9, 8), kernel=3, stride=2, padding=1)
case("max_pool2d_places", (1, 2, 9, 8), kernel=(2, 3), dilation=2)
case("batch_norm", (2, 5, 3, 4), (5,), (5,), (5,), (5,))
case("cross_entropy", (6, 11), (6, "int64"))
case("split", (4, 9, 5), sections=(2, 0, 7), axis=1)
case("split", (17, 3), sections=(17,))
for _name in ("expm1", "sign", "sinh", "cosh", "tan", "hardsigmoid", "hardswish", "leaky_relu", "elu", "celu", "selu", "softplus",
              "log_sigmoid", "softsign", "mish", "reciprocal", "asin", "acos", "asinh", "acosh", "atanh"):  # fmt: skip
    case(_name, (3, 17))
case("elu", (3, 5), alpha=0.3)
case("celu", (3, 5), alpha=2.0)
case("clip", (4, 9), low=-1, high=1)
case("prelu", (2, 3, 5), (3, 1))
case("glu", (5, 18))
case("glu", (4, 3), axis=0)
for _name in ("logsumexp", "norm", "var", "std"):
    case(_name, (4, 7, 3))
    case(_name, (4, 7, 3), axes=(1,), keepdims=True)
    case(_name, (4, 37), axes=(-1,))
case("norm", (5, 9), order=1, axes=(0,))
case("var", (5, 9), axes=(0,), correction=1)
case("group_norm", (2, 6, 5, 3), (6,), (6,), groups=3)
case("instance_norm", (2, 5, 7), (5,), (5,))


def make(shape: tuple, op: str, rng: np.random.Generator) -> np.ndarray:
    kind = shape[-1] if shape and isinstance(shape[-1], str) else "float32"
    extents = tuple(s for s in shape if not isinstance(s, str))
    if kind == "bool":
        return rng.random(extents) < 0.5
    if kind.startswith("int"):
        return rng.integers(1, 6, extents).astype(kind)
    x = np.asarray(rng.standard_normal(extents))
    if op == "prod":
        x = 1 + 0.05 * x
    positive = op in ("log", "log1p", "sqrt", "rsqrt", "power", "power_scalar", "batch_norm", "cast")
    x = np.tanh(x) if op in ("asin", "acos", "atanh") else np.abs(x) + 1.1 if op == "acosh" else x
    return (np.abs(x) + 0.1 if positive else x).astype("float32")


RUNS = [(op, shapes, attrs, c) for op, shapes, attrs in CASES for c in ((False, True) if len(shapes) > 1 else (False,))]


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "constants"), RUNS, ids=[f"{r[0]}-{i}{'-constant' * r[3]}" for i, r in enumerate(RUNS)]
)
@pytest.mark.drawn(1 / 2)
def test_compiled_against_the_reference(
    op: str, shapes: list, attrs: dict, constants: bool, rng: np.random.Generator
) -> None:
    arrays = [make(s, op, rng) for s in shapes]
    g = GraphBuilder()
    inputs = []
    operands = []
    for i, x in enumerate(arrays):
        if constants and i > 0:
            operands.append(g.constant(x))
        else:
            inputs.append(x)
            operands.append(g.input(f"x{i}", x.shape, x.dtype))
    module = g.build(*as_tuple(g.op(op, *operands, **attrs)))
    judge(tcomp.compile(module)(*inputs), evaluate(module, inputs, exact=True), attrs)


def judge(got: object, want: list, attrs: dict) -> None:
    """Compare all results of a call with the reference's in float64."""
    results = got if isinstance(got, tuple) else (got,)
    limit = {"float16": 1e-3, "bfloat16": 1e-2}.get(str(attrs.get("dtype")), 2e-6)
    assert len(results) == len(want)
    for a, b in zip(results, want):
        assert a.shape == b.shape
        if a.dtype.kind in "iub":
            assert np.array_equal(a, b)
        else:
            assert relative_error(a, b) < limit


@pytest.mark.parametrize(
    ("op", "shapes", "attrs"),
    [
        ("relu", [(0, 5)], {}), ("matmul", [(0, 5), (5, 7)], {}), ("matmul", [(3, 0), (0, 7)], {}), ("sum", [(0, 5)], {"axes": (0,)}),
        ("concat", [(0, 5), (3, 5)], {"axis": 0}), ("softmax", [(5, 1)], {}), ("exp", [()], {}), ("mean", [(100, 100)], {}),
        ("conv2d", [(1, 1, 1, 1), (1, 1, 1, 1)], {}), ("transpose", [(300, 77)], {"axes": (1, 0)}), ("prod", [(4, 0)], {"axes": (1,)}),
    ],
)  # fmt: skip
def test_empty_and_single_elements(op: str, shapes: list, attrs: dict, rng: np.random.Generator) -> None:
    arrays = [np.asarray(rng.standard_normal(s), "float32") for s in shapes]
    g = GraphBuilder()
    module = g.build(g.op(op, *(g.input(f"x{i}", x.shape) for i, x in enumerate(arrays)), **attrs))
    got, want = tcomp.compile(module)(*arrays), evaluate(module, arrays, exact=True)[0]
    assert got.shape == want.shape and np.allclose(got, want, atol=1e-5)


def test_take_counts_from_the_end_and_never_leaves_the_tensor(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 3)).astype("float32")
    index = np.array([0, -1, 4, -5, 99, -99], "int64")
    g = GraphBuilder()
    module = g.build(g.take(g.input("x", x.shape), g.input("i", index.shape, "int64")))
    assert np.array_equal(tcomp.compile(module, check_indices=False)(x, index), x[[0, 4, 4, 0, 4, 0]])
    exe = tcomp.compile(module)
    assert np.array_equal(exe(x, index[:4].repeat(2)[:6]), x[index[:4].repeat(2)[:6]])
    for bad, place in ((index, 4), (index[::-1].copy(), 0)):
        out = np.full((6, 3), 7, "float32")
        with pytest.raises(InputError, match=rf"input 'i' holds -?99 at \[{place}\].*take needs -5 <= place <= 4"):
            exe(x, bad, out=out)
        assert (out == 7).all()


@pytest.mark.parametrize("kind", ["int8", "uint8", "int64", "uint64"])
def test_labels_out_of_range_are_refused_before_anything_is_written(kind: str, rng: np.random.Generator) -> None:
    logits = rng.standard_normal((4, 10)).astype("float32")
    g = GraphBuilder()
    labels = g.reshape(g.input("y", (2, 2), kind), shape=(4,))
    exe = tcomp.compile(g.build(g.cross_entropy(g.input("x", (4, 10)), labels)))
    good = np.array([[0, 9], [3, 5]], kind)
    rows = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert np.allclose(exe(good, logits), -rows[range(4), good.reshape(-1).astype(int)].mean(), rtol=1e-5)
    good[1, 0] = 10
    with pytest.raises(InputError, match=r"input 'y' holds 10 at \[1, 0\]"):
        exe(good, logits)


def test_constant_places_out_of_range_are_refused_when_compiling() -> None:
    g = GraphBuilder()
    module = g.build(g.take(g.input("x", (5, 3)), g.constant(np.array([0, 5]))))
    with pytest.raises(ShapeError, match=r"holds 5 at \[1\].*take needs -5 <= place <= 4"):
        tcomp.compile(module)


@pytest.mark.parametrize("causal", [True, "lower_right", "upper_left"])
@pytest.mark.parametrize(("queries", "keys"), [(7, 5), (5, 7), (40, 33), (1, 3)])
def test_queries_without_keys_get_zeros(causal: object, queries: int, keys: int, rng: np.random.Generator) -> None:
    q, k, v = (rng.standard_normal((2, n, 16)).astype("float32") for n in (queries, keys, keys))
    seen = np.tril(np.ones((queries, keys), bool), 0 if causal == "upper_left" else keys - queries)
    scores = np.where(seen, q.astype("float64") @ k.swapaxes(-1, -2) / 4, -np.inf)
    e = np.where(seen, np.exp(scores - np.where(seen, scores, -1e9).max(-1, keepdims=True)), 0)
    total = e.sum(-1, keepdims=True)
    want = e / np.where(total == 0, 1, total) @ v
    assert causal == "upper_left" or queries <= keys or not want[:, : queries - keys].any()
    g = GraphBuilder()
    module = g.build(g.attention(*(g.input(n, x.shape) for n, x in zip("qkv", (q, k, v))), causal=causal))
    for got in (tcomp.compile(module)(q, k, v), evaluate(module, [q, k, v])[0]):
        assert np.isfinite(got).all() and np.abs(got - want).max() < 1e-5


def test_a_mask_that_hides_all_keys_gives_zeros(rng: np.random.Generator) -> None:
    q, k, v = (rng.standard_normal((n, 16)).astype("float32") for n in (6, 9, 9))
    mask = np.zeros((6, 9), "float32")
    mask[2] = -np.inf
    g = GraphBuilder()
    module = g.build(g.attention(*(g.input(n, x.shape) for n, x in zip("qkvm", (q, k, v, mask)))))
    got = tcomp.compile(module)(q, k, v, mask)
    assert not got[2].any() and np.isfinite(got).all() and got[1].any()


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("rows", [2, 33])
def test_attention_in_other_dtypes(kind: str, rows: int, rng: np.random.Generator) -> None:
    arrays = [rng.standard_normal(s).astype(dtype(kind).numpy) for s in ((3, rows, 20), (3, 40, 20), (3, 40, 12))]
    g = GraphBuilder()
    module = g.build(g.attention(*(g.input(f"x{i}", x.shape, kind) for i, x in enumerate(arrays))))
    got, want = tcomp.compile(module)(*arrays), evaluate(module, arrays, exact=True)[0]
    assert got.dtype == dtype(kind).numpy
    assert relative_error(got.astype("float64"), want) < {"float16": 1e-3, "bfloat16": 1e-2, "float64": 1e-14}[kind]


def test_attention_with_large_scores_stays_finite(rng: np.random.Generator) -> None:
    q, k, v = (1e3 * rng.standard_normal((2, 70, 32)).astype("float32") for _ in range(3))
    g = GraphBuilder()
    module = g.build(g.attention(*(g.input(n, (2, 70, 32)) for n in "qkv")))
    got, want = tcomp.compile(module)(q, k, v), evaluate(module, [q, k, v], exact=True)[0]
    assert np.isfinite(got).all() and relative_error(got, want) < 1e-3


def test_every_operator_has_a_case() -> None:
    assert {c[0] for c in CASES} == set(OPERATORS)


@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16", "int32"])
@pytest.mark.parametrize("op", ["add", "relu", "sum", "matmul", "conv2d"])
def test_other_dtypes(op: str, kind: str, rng: np.random.Generator) -> None:
    shapes = {
        "add": [(5, 19), (19,)],
        "relu": [(5, 19)],
        "sum": [(5, 19)],
        "matmul": [(7, 9), (9, 18)],
        "conv2d": [(1, 2, 6, 6), (17, 2, 3, 3)],
    }
    arrays = [rng.integers(-3, 4, s).astype(dtype(kind).numpy) for s in shapes[op]]
    g = GraphBuilder()
    module = g.build(g.op(op, *(g.input(f"x{i}", x.shape, kind) for i, x in enumerate(arrays))))
    want = evaluate(module, arrays, exact=True)[0]
    assert np.array_equal(tcomp.compile(module)(*arrays).astype(np.float64), want.astype(np.float64))


@pytest.mark.parametrize(
    ("op", "types", "attrs", "message"),
    [
        ("add", [(3, 4), (3, 5)], {}, "do not broadcast"),
        ("matmul", [(3, 4), (5, 6)], {}, "inner extents 4 and 5"),
        ("matmul", [(3,), (3, 6)], {}, "at least two dimensions"),
        ("conv2d", [(1, 3, 8, 8), (4, 2, 3, 3)], {}, "kernels of 3 channels, not 2"),
        ("conv2d", [(1, 3, 2, 2), (4, 3, 3, 3)], {}, "does not fit"),
        ("conv2d", [(1, 3, 8, 8), (4, 3, 3, 3)], {"layout": "CHWN"}, "unknown layout"),
        ("conv2d", [(3, 8, 8), (4, 3, 3, 3)], {}, "4 dimensions, not 3"),
        ("conv1d", [(1, 3, 8), (4, 2, 3)], {}, "do not fit kernels"),
        ("conv1d", [(1, 3, 8), (4, 3, 3)], {"layout": "NCHW"}, "unknown layout"),
        ("conv3d", [(1, 3, 8, 8), (4, 3, 3, 3)], {}, "5 dimensions, not 4"),
        ("conv3d", [(1, 3, 8, 8, 8), (4, 3, 3, 3, 3)], {"stride": (1, 2)}, "1 or 3 integers"),
        (
            "conv_backward_weight",
            [(1, 8, 8, 3), (1, 7, 6, 4)],
            {"window": 3},
            "7 places of a window of 3 do not fit into 8",
        ),
        ("conv_backward_weight", [(1, 8, 8, 3), (2, 6, 6, 4)], {"window": 3}, "it takes images"),
        ("conv_backward_weight", [(1, 8, 8, 3), (1, 6, 6, 4)], {"window": 3, "groups": 2}, "do not make 2 groups"),
        (
            "conv_backward_weight",
            [(4, 8, 8, 3), (4, 6, 6, 4)],
            {"window": 3, "parts": 3},
            "4 images do not make 3 parts",
        ),
        ("conv2d_transpose", [(1, 3, 8, 8), (4, 3, 3, 3)], {}, "do not fit a kernel"),
        ("conv2d_transpose", [(1, 3, 8, 8), (3, 4, 3, 3)], {"output_padding": 1}, "must be less than"),
        ("conv2d_transpose", [(1, 3, 1, 1), (3, 4, 3, 3)], {"padding": 2}, "leaves"),
        ("reshape", [(3, 4)], {"shape": (5, -1)}, "do not fill"),
        ("transpose", [(3, 4)], {"axes": (0, 0)}, "no permutation"),
        ("concat", [(3, 4), (2, 4)], {"axis": 1}, "must agree"),
        ("sum", [(3, 4)], {"axes": (2,)}, "out of range"),
        ("softmax", [(3, 4)], {"axis": 5}, "out of range"),
        ("layer_norm", [(3, 4), (3,), (4,)], {}, "extent of the last axis"),
        ("rms_norm", [(3, 4), (3,)], {}, "extent of the last axis"),
        ("attention", [(3, 4), (5, 4)], {}, "queries, keys, values"),
        ("attention", [(3, 4), (5, 4), (5, 4)], {"empty": "none"}, "empty='none'"),
        ("attention", [(4,), (5, 4), (5, 4)], {}, "at least two dimensions"),
        ("attention", [(3, 4), (5, 6), (5, 4)], {}, "queries have 4 features, keys 6"),
        ("attention", [(3, 4), (5, 4), (6, 4)], {}, "5 keys, but 6 values"),
        ("attention", [(3, 4), (5, 4), (5, 4), (2, 3, 5)], {}, "does not broadcast"),
        ("take", [(3, 4), (2,)], {}, "integers"),
        ("scatter_add", [(3, 4), (2,), (2, 4)], {}, "integers"),
        ("scatter_add", [(3, 4), (2, "int64"), (2, 3)], {}, "slices must be of shape"),
        ("scatter_add", [(3, 4), (2, "int64"), (2, 4, "float64")], {}, "one dtype"),
        ("scatter_add", [(3, "bool"), (2, "int64"), (2, "bool")], {}, "numbers"),
        ("scatter", [(0, 4), (2, "int64"), (2, 4)], {}, "no places"),
        ("scatter", [(3, 4), (2, "int64"), (3, 2)], {"axis": 2}, "axis"),
        ("gather_elements", [(3, 4), (4, 4, "int64")], {"axis": 1}, "more places than elements"),
        ("gather_nd", [(3, 4), (2, 3, "int64")], {}, "3 places after 0 common axes do not fit"),
        ("scatter_nd", [(3, 4), (2, 1, "int64"), (2, 3)], {}, "slices must be of shape"),
        ("scatter_nd", [(3, 4), (2, 1, "int64"), (2, 4)], {"reduction": "sub"}, "one of set, add"),
        ("scatter_elements", [(3, 4), (2, 4, "int64"), (2, 3)], {}, "one shape"),
        ("shift_left", [(3,), (3,)], {}, "integers"),
        ("bitcast", [(3,)], {"dtype": "int64"}, "not as wide"),
        ("topk", [(3, 4)], {"k": 5}, "no 5 elements"),
        ("einsum", [(3, 4), (5, 6)], {"equation": "ij,jk"}, "4 and 5 elements"),
        ("einsum", [(3, 4)], {"equation": "i->i"}, "names 1 axes"),
        ("relu", [(3, 4)], {"slope": 1}, "no attribute 'slope'"),
        ("pad", [(3, 4)], {}, "needs the attribute"),
        ("relu", [(3,), (3,)], {}, "takes 1 arguments"),
        ("max_pool2d", [(1, 1, 4, 4)], {"kernel": 2, "padding": 2}, "not smaller than the window"),
        ("cross_entropy", [(3, 4), (3,)], {}, "integers"),
    ],
)
def test_shape_errors_name_operator_arguments_and_shapes(op: str, types: list, attrs: dict, message: str) -> None:
    with pytest.raises(ShapeError, match=message) as error:
        infer(op, [TensorType(tuple(e for e in t if isinstance(e, int)), _dtype_of(t)) for t in types], attrs)
    assert op in str(error.value)


def _dtype_of(described: tuple) -> DType:
    """The dtype behind a shape; float32 by default."""
    return dtype(next((e for e in described if isinstance(e, str)), "float32"))


def test_unknown_operator() -> None:
    with pytest.raises(UnsupportedError, match="no operator 'conv4d'"):
        infer("conv4d", [TensorType((1,), float32)], {})


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize("columns", [1, 5, 37, 300])
def test_places_of_extremes_are_numpys(op: str, columns: int, rng: np.random.Generator) -> None:
    """Ties go to the first place, NaN beats every number, infinities are numbers."""
    x = rng.integers(-3, 4, (7, columns)).astype("float32")
    x[1], x[2], x[3, columns // 2], x[4, -1] = -np.inf, np.inf, np.nan, np.nan
    x[4, columns // 3] = np.nan
    g = GraphBuilder()
    got = tcomp.compile(g.build(g.op(op, g.input("x", x.shape), axis=1)))(x)
    assert np.array_equal(got, getattr(np, op)(x, axis=1))
