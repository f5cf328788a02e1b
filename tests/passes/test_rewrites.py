"""Each rewrite rule by itself: a graph that it rewrites, with the same answer, and one that it must leave alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp.errors import InternalError
from tcomp.ir.graph import OpCall
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes import attention, convolutions, expand, fold, movement, simplify
from tcomp.passes.rewriter import Rewriter, Rule, rule

Make = Callable[[GraphBuilder], Any]
R = np.random.default_rng(3)


def c(g: GraphBuilder, *shape: int) -> Any:
    return g.constant(np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32"))


def x(g: GraphBuilder, *shape: int, dtype: str = "float32") -> Any:
    return g.input(f"x{len(g.params)}", shape, dtype)


def turned(g: GraphBuilder, *shape: int) -> Any:
    return g.transpose(x(g, *shape), axes=tuple(range(len(shape)))[::-1])


def conv(g: GraphBuilder, image: tuple, kernel: tuple, op: str = "conv2d", **attrs: Any) -> Any:
    return g.op(op, x(g, *image), c(g, *kernel), **attrs)


NHWC = {"layout": "NHWC", "kernel_layout": "HWIO"}


def slices(g: GraphBuilder, start: float = 0.0) -> Any:
    """Slices added to a constant tensor."""
    begin = g.broadcast_to(g.constant(np.array(start, np.float32)), shape=(7, 4))
    return g.scatter_add(begin, x(g, 6, dtype="int64"), x(g, 6, 4))


def attended(
    g: GraphBuilder,
    *,
    guard: bool = False,
    mask: tuple | None = None,
    shared: bool = False,
    factor: float = 0.5,
    axis: int = -1,
    kind: str = "float32",
) -> Any:
    """Attention as its parts; `shared`: the scores are used again."""

    def number(value: float) -> Any:
        return g.constant(np.array(value, kind))

    q, k, v = x(g, 2, 3, 7, 8, dtype=kind), x(g, 2, 9, 3, 8, dtype=kind), x(g, 2, 3, 9, 5, dtype=kind)
    k = g.multiply(g.transpose(k, axes=(0, 2, 3, 1)), number(factor))
    scores = g.divide_scalar(g.matmul(g.multiply(number(0.7), q), k), scalar=3.0)
    if mask is not None:
        scores = g.add(x(g, *mask, dtype=kind), scores)
    weights = g.softmax(scores, axis=axis)
    if guard:
        weights = g.where(g.isnan(weights), number(0), weights)
    y = g.matmul(weights, v)
    return g.add(y, g.sum(scores)) if shared else y


TABLE: dict[str, tuple[Rule, Make, Make]] = {
    "products_to_attention": (attention.products_to_attention, attended, lambda g: attended(g, shared=True)),
    "products_to_attention, of rows": (attention.products_to_attention, attended, lambda g: attended(g, axis=0)),
    "products_to_attention, scaled": (
        attention.products_to_attention,
        lambda g: attended(g, factor=-3.0),
        lambda g: attended(g, factor=1e-20),
    ),
    "products_to_attention, masked": (
        attention.products_to_attention,
        lambda g: attended(g, mask=(7, 1)),
        lambda g: attended(g, mask=(4, 1, 1, 1, 1)),
    ),
    "products_to_attention, guarded": (
        attention.products_to_attention,
        lambda g: attended(g, guard=True, mask=(9,)),
        lambda g: attended(g, guard=True, kind="float16"),
    ),
    "scale_slices": (
        simplify.scale_slices,
        lambda g: g.negative(g.multiply(x(g), slices(g))),
        lambda g: g.multiply(slices(g), x(g, 7, 4)),
    ),
    "add_slices": (simplify.add_slices, lambda g: g.subtract(x(g, 7, 4), slices(g)), lambda g: g.subtract(slices(g), x(g, 7, 4))),
    "expand": (expand.expand, lambda g: g.mish(x(g, 3, 5)), lambda g: g.tanh(x(g, 3, 5))),
    "fold_constant": (fold.fold_constant, lambda g: g.add(g.exp(c(g, 3)), x(g, 3)), lambda g: g.add(x(g, 3), c(g, 3))),
    "linear_to_matmul": (
        simplify.linear_to_matmul,
        lambda g: g.linear(x(g, 3, 4), c(g, 5, 4), c(g, 5)),
        lambda g: g.linear(x(g, 4), c(g, 5, 4)),
    ),
    "transposes_apart": (
        simplify.transposes_apart,
        lambda g: g.matmul(x(g, 4, 3), x(g, 4, 5), transposed=(True, False)),
        lambda g: g.matmul(x(g, 3, 4), x(g, 4, 5)),
    ),
    "batch_norm_to_scale": (
        simplify.batch_norm_to_scale,
        lambda g: g.batch_norm(x(g, 2, 3, 4, 4), *(g.constant(np.full(3, v, np.float32)) for v in (2, 1, 0.5, 0.7))),
        lambda g: g.batch_norm(x(g, 2, 3, 4, 4), c(g, 3), c(g, 3), c(g, 3), g.exp(x(g, 3))),
    ),
    "conv1d_to_conv2d": (
        convolutions.conv1d_to_conv2d,
        lambda g: conv(g, (2, 3, 9), (4, 3, 3), "conv1d"),
        lambda g: conv(g, (2, 3, 9, 9), (4, 3, 3, 3)),
    ),
    "volumes_to_ndhwc": (
        convolutions.volumes_to_ndhwc,
        lambda g: conv(g, (1, 2, 4, 4, 4), (3, 2, 2, 2, 2), "conv3d"),
        lambda g: conv(g, (1, 4, 4, 4, 2), (2, 2, 2, 2, 3), "conv3d", layout="NDHWC", kernel_layout="DHWIO"),
    ),
    "images_to_nhwc": (
        simplify.images_to_nhwc,
        lambda g: conv(g, (1, 2, 5, 5), (3, 2, 3, 3)),
        lambda g: conv(g, (1, 5, 5, 2), (3, 3, 2, 3), **NHWC),
    ),
    "transposed_conv_to_phases": (
        convolutions.transposed_conv_to_phases,
        lambda g: conv(g, (1, 4, 4, 2), (2, 3, 3, 3), "conv2d_transpose", stride=2, layout="NHWC"),
        lambda g: conv(g, (1, 2, 4, 4), (2, 3, 3, 3), "conv2d_transpose", stride=2),
    ),
    "kernel_gradient_by_parts": (
        convolutions.kernel_gradient_by_parts(1 << 20),
        lambda g: g.conv_backward_weight(x(g, 16, 64, 64, 8), x(g, 16, 62, 62, 8), window=3),
        lambda g: g.conv_backward_weight(x(g, 2, 8, 8, 3), x(g, 2, 6, 6, 4), window=3),
    ),
    "kernel_to_hwio": (
        simplify.kernel_to_hwio,
        lambda g: conv(g, (1, 5, 5, 2), (3, 2, 3, 3), layout="NHWC"),
        lambda g: conv(g, (1, 5, 5, 2), (3, 3, 2, 3), **NHWC),
    ),
    "pointwise_conv_to_matmul": (
        simplify.pointwise_conv_to_matmul,
        lambda g: conv(g, (1, 5, 5, 2), (1, 1, 2, 3), stride=2, **NHWC),
        lambda g: conv(g, (1, 5, 5, 2), (1, 1, 2, 3), padding=1, **NHWC),
    ),
    "matmul_of_rows": (
        simplify.matmul_of_rows,
        lambda g: g.matmul(x(g, 2, 3, 4), x(g, 4, 5)),
        lambda g: g.matmul(x(g, 2, 3, 4), x(g, 2, 4, 5)),
    ),
    "simplify_movement": (
        movement.simplify_movement,
        lambda g: g.reshape(g.reshape(x(g, 4, 6), shape=(3, 8)), shape=(24,)),
        lambda g: g.reshape(x(g, 4, 6), shape=(3, 8)),
    ),
    "simplify_movement, a slice of a transpose": (
        movement.simplify_movement,
        lambda g: g.slice(g.transpose(x(g, 2, 5, 6), axes=(1, 2, 0)), begin=(-2, 4), end=(None, 0), strides=(1, -2)),
        lambda g: g.slice(x(g, 2, 5, 6), begin=(-2, 4), end=(None, 0), strides=(1, -2)),
    ),
    "simplify_movement, axes split and merged before a transpose": (
        movement.simplify_movement,
        lambda g: g.reshape(g.transpose(x(g, 2, 5, 1, 6, 4, 1), axes=(3, 2, 4, 0, 5, 1)), shape=(1, 3, 8, 2, 1, 5)),
        lambda g: g.reshape(g.transpose(x(g, 2, 5, 6, 4), axes=(3, 2, 0, 1)), shape=(24, 10)),
    ),
    "sink_transpose": (
        movement.sink_transpose,
        lambda g: g.exp(turned(g, 3, 4)),
        lambda g: g.add(turned(g, 3, 4), x(g, 4, 3)),
    ),
    "sink_reshape": (
        movement.sink_reshape,
        lambda g: g.relu(g.reshape(g.matmul(x(g, 4, 3), x(g, 3, 6)), shape=(2, 2, 6))),
        lambda g: g.relu(g.reshape(x(g, 4, 6), shape=(2, 2, 6))),
    ),
    "sink_reshape, beside what no product leads to": (
        movement.sink_reshape,
        lambda g: g.add(g.exp(x(g, 2, 2, 6)), g.reshape(g.add(g.matmul(x(g, 4, 3), x(g, 3, 6)), c(g, 6)), shape=(2, 2, 6))),
        lambda g: g.add(g.exp(x(g, 2, 2, 6)), g.reshape(g.exp(x(g, 4, 6)), shape=(2, 2, 6))),
    ),
    "reduce_of_transpose": (
        movement.reduce_of_transpose,
        lambda g: g.sum(turned(g, 3, 4), axes=(0,)),
        lambda g: g.sum(g.transpose(x(g, 2, 3, 4), axes=(2, 1, 0)), axes=(1,)),
    ),
    "reduce_of_transpose, axes kept": (
        movement.reduce_of_transpose,
        lambda g: g.mean(g.transpose(x(g, 2, 3, 4), axes=(2, 1, 0)), axes=(1,), keepdims=True),
        lambda g: g.mean(x(g, 2, 3, 4), axes=(1,), keepdims=True),
    ),
    "sink_transpose, beside what is spread": (
        movement.sink_transpose,
        lambda g: g.multiply(g.transpose(x(g, 2, 3, 4), axes=(0, 2, 1)), x(g, 4, 1)),
        lambda g: g.multiply(g.transpose(x(g, 2, 3, 4), axes=(0, 2, 1)), x(g, 2, 4, 3)),
    ),
    "simplify_arithmetic": (
        simplify.simplify_arithmetic,
        lambda g: g.multiply_scalar(g.negative(g.negative(x(g, 5))), scalar=1),
        lambda g: g.add_scalar(x(g, 5), scalar=0),  # -0.0 + 0 is 0.0
    ),
    "join_products": (
        simplify.join_products,
        lambda g: g.add(g.matmul(x(g, 30, 2), x(g, 2, 30)), g.matmul(x(g, 30, 3), x(g, 3, 30))),
        lambda g: g.add(g.matmul(x(g, 3, 20), x(g, 20, 3)), g.matmul(x(g, 3, 20), x(g, 20, 3))),
    ),
    "fold_scale": (
        simplify.fold_scale,
        lambda g: g.multiply(g.matmul(x(g, 3, 4), c(g, 4, 5)), c(g, 5)),
        lambda g: g.multiply(g.matmul(x(g, 3, 4), x(g, 4, 5)), c(g, 5)),
    ),
    "merge_shifts": (
        simplify.merge_shifts,
        lambda g: g.add(g.add(x(g, 3, 5), c(g, 5)), c(g, 1, 5)),
        lambda g: g.add(g.add(x(g, 3, 5), x(g, 5)), c(g, 1, 5)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_what_a_rule_rewrites_and_what_it_leaves_alone(name: str) -> None:
    rewrite, accepted, refused = TABLE[name]
    for make, is_rewritten in ((accepted, True), (refused, False)):
        g = GraphBuilder()
        module = g.build(make(g))
        new = Rewriter(module, (rewrite,)).run()
        assert (new is not module) == is_rewritten
        arrays = [R.standard_normal(p.type.shape).astype(p.type.dtype.numpy) for p in module.main.params]
        for a, b in zip(evaluate(new, arrays, exact=True), evaluate(module, arrays, exact=True)):
            assert a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-5)


def test_every_rule_is_in_the_table() -> None:
    tables = (simplify.CANONICAL, movement.MOVEMENT, simplify.ARITHMETIC, simplify.SCALES)
    known = {r.name for rules in tables for r in rules} | {"expand", "fold_constant", "kernel_gradient_by_parts"}
    names = {name: name.split(", ")[0] for name in TABLE}
    assert set(names.values()) == known and all(names[key] == entry[0].name for key, entry in TABLE.items())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("guard", [False, True])
def test_rows_that_a_softmax_makes_nan_stay_what_they_are(guard: bool, masked: bool) -> None:
    """Rows that see nothing, or hold NaN or +inf: NaN of a softmax, zeros where the graph asks for them."""
    g = GraphBuilder()
    module = g.build(attended(g, guard=guard, mask=(2, 3, 7, 9) if masked else None))
    arrays = [R.standard_normal(p.type.shape).astype("float32") for p in module.main.params]
    q, _, v, *mask = arrays
    q[0, 1, 2, 3], q[0, 2, 3, 4], v[0, 1, 2, 3] = np.nan, np.inf, np.inf
    for m in mask:
        m[0, 0, 4], m[1, 1, 5, 6], m[1, 2, 0, 1] = -np.inf, np.inf, np.nan
        m[..., 0] = -np.inf
    with np.errstate(all="ignore"):
        want = evaluate(module, arrays)[0]
    exe = tcomp.compile(module)
    assert "attention" in [k.name for k in exe.program.kernels]
    got = exe(*arrays)
    assert np.isnan(want).any() and (want[0, 1, 2, :3] == 0).all() == guard
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_rules_that_undo_each_other_are_named() -> None:
    @rule("exp")
    def to_log(g: Rewriter, call: OpCall, type_: Any) -> Any:
        return g.log(call.args[0])

    @rule("log")
    def to_exp(g: Rewriter, call: OpCall, type_: Any) -> Any:
        return g.exp(call.args[0])

    g = GraphBuilder()
    module = g.build(g.exp(x(g, 3)))
    with pytest.raises(InternalError, match="to_log, to_exp undo each other|to_exp, to_log undo each other"):
        Rewriter(module, (to_log, to_exp)).run()

    flip = Rule(
        "flip", lambda g, call, t: g.again(call, *call.args[::-1]) if not g.bindings else None, frozenset({"add"})
    )
    g = GraphBuilder()
    module = g.build(g.add(x(g, 3), x(g, 3)))
    with pytest.raises(InternalError, match="rules flip"):
        simplify._until_stable(module, (flip,))


def test_a_rule_that_changes_a_type_is_an_internal_error() -> None:
    widen = Rule("widen", lambda g, call, t: g.cast(call.args[0], dtype="float64"), frozenset({"exp"}))
    g = GraphBuilder()
    module = g.build(g.exp(x(g, 3)))
    with pytest.raises(InternalError, match=r"rule widen turned float32\[3\] into float64\[3\]"):
        Rewriter(module, (widen,)).run()


def test_what_a_rule_tried_in_vain_leaves_nothing_behind() -> None:
    def vain(g: Rewriter, call: OpCall, type_: Any) -> Any:
        g.tanh(call.args[0])
        return None

    g = GraphBuilder()
    module = g.build(g.exp(x(g, 3)))
    assert Rewriter(module, (Rule("vain", vain, frozenset({"exp"})),)).run() is module
    fold_too = (Rule("vain", vain, frozenset({"exp"})), simplify.simplify_arithmetic)
    g = GraphBuilder()
    module = g.build(g.relu(g.relu(g.exp(x(g, 3)))))
    assert [b.call.op for b in Rewriter(module, fold_too).run().main.bindings] == ["exp", "relu"]


def test_origins_follow_the_calls() -> None:
    g = GraphBuilder()
    a = x(g, 4, 6)
    with g.origin("encoder/act"):
        y = g.mish(a)
    with g.origin("encoder/dense"):
        y = g.matmul(y, c(g, 6, 5))
    exe = tcomp.compile(g.build(y))
    origins = [k.origin for k in exe.program.kernels]
    assert "encoder/dense" in origins[-1] and any("encoder/act" in o for o in origins)
    assert "encoder/dense" in str(exe.profile(np.ones((4, 6), "float32"))) and "encoder/dense" in exe.explain()
    with pytest.raises(tcomp.TcompError, match="inner extents 4 and 5") as error, g.origin("decoder"):
        g.matmul(g.transpose(a, axes=(1, 0)), c(g, 5, 4))
    assert "(in decoder)" in str(error.value)
