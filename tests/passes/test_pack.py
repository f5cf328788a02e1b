"""Weights laid out when compiling, and the products that convolutions and stacks become before that."""

import numpy as np
import pytest

import tcomp
from tcomp.dtype import float32
from tcomp.ir.graph import OpCall
from tcomp.ir.module import IRModule
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes import FUSE, GRAPH, PackWeights
from tcomp.passes.check import relative_error
from tcomp.schedule.rules.cpu.layout import CpuLayout
from tcomp.schedule.rules.cpu.tiles import rows_within
from tcomp.target import Target

R = np.random.default_rng(11)


class Always(CpuLayout):
    """Panels of 16 columns wherever that is possible, Winograd's algorithm for many channels."""

    def panel(self, extents: object, weight: object, dtype: object) -> int:
        return 16

    def panel_inside(self, extents: object, weight: object, dtype: object) -> int:
        return 0

    def winograd(self, extents: object, weight: tuple[int, ...], dtype: object) -> tuple[int, int]:
        return (4, 16) if weight[2] >= 64 else (0, 0)


PACK = PackWeights(Always(Target.parse("llvm -mcpu=x86-64-v4")))


def array(*shape: int) -> np.ndarray:
    return R.standard_normal(shape).astype("float32")


def ops_of(module: IRModule) -> list[str]:
    return [b.call.op for b in module.main.bindings if isinstance(b.call, OpCall)]


def packed(module: IRModule) -> IRModule:
    """After all graph passes and packing; the meaning stays."""
    graph = PACK.run(GRAPH.run(module))
    inputs = [array(*p.type.shape) for p in module.main.params]
    for a, b in zip(evaluate(graph, inputs, exact=True), evaluate(module, inputs, exact=True)):
        assert relative_error(a, b) < 1e-6
    return graph


@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
def test_a_pointwise_convolution_and_what_follows_is_one_product(stride: object) -> None:
    g = GraphBuilder()
    x = g.input("x", (2, 7, 6, 20))
    y = g.conv2d(x, g.constant(array(1, 1, 20, 37)), stride=stride, layout="NHWC", kernel_layout="HWIO")
    y = g.relu(g.add(y, g.constant(array(37))))
    graph = packed(g.build(y))
    assert [op for op in ops_of(graph) if op != "reshape"] == (["slice"] if stride != 1 else []) + [
        "packed_matmul",
        "add",
        "relu",
    ]
    kernels = [name for name in FUSE.run(graph).functions if "packed_matmul" in name]
    assert kernels == ["packed_matmul_add_relu"]


def test_a_residual_joins_the_product_of_a_stack() -> None:
    g = GraphBuilder()
    x = g.input("x", (3, 5, 20))
    y = g.add(g.matmul(x, g.constant(array(20, 20))), x)
    graph = packed(g.build(g.multiply(y, g.constant(array(1, 1, 20)))))
    assert list(FUSE.run(graph).functions) == ["main", "packed_matmul_add_multiply"]


def test_a_padded_pointwise_convolution_stays_one() -> None:
    g = GraphBuilder()
    y = g.conv2d(
        g.input("x", (1, 4, 4, 8)), g.constant(array(1, 1, 8, 8)), padding=1, layout="NHWC", kernel_layout="HWIO"
    )
    assert "packed_conv2d" in ops_of(packed(g.build(y)))


def test_what_is_not_constant_or_has_a_channel_a_group_is_left_alone() -> None:
    g = GraphBuilder()
    x = g.input("x", (1, 6, 6, 8))
    y = g.conv2d(x, g.constant(array(3, 3, 1, 8)), groups=8, layout="NHWC", kernel_layout="HWIO")
    z = g.matmul(g.input("a", (5, 6)), g.input("b", (6, 7)))
    w = g.matmul(g.constant(array(5, 6)), g.input("c", (6, 7)))
    assert not [op for op in ops_of(packed(g.build(y, z, w))) if "pack" in op]


def test_operands_that_vary_are_packed_inside_where_it_pays() -> None:
    layout = CpuLayout(Target.parse("llvm -mcpu=skylake-avx512 -num-cores=2"))
    assert layout.panel_inside((512, 512), (512, 512), float32) == layout.panel((512, 512), (512, 512), float32)
    assert layout.panel_inside((4, 512), (512, 512), float32) == 0  # the copy would serve one tile
    assert layout.panel_inside((512, 16), (512, 16), float32) == 0  # one column of tiles is no work for two cores
    g = GraphBuilder()
    module = g.build(g.relu(g.matmul(g.input("a", (300, 70)), g.input("b", (70, 130)))))
    (kernel,) = tcomp.compile(module, target="cpu -num-cores=2").program.kernels
    assert kernel.name == "matmul_relu"
    text = tcomp.compile(module, target="cpu -num-cores=2").ir("scheduled")
    assert "pack_columns = alloc" in text and "rule: tiled reduction\n" in text


def test_panels_fit_the_register_tile_and_the_second_cache() -> None:
    target = Target.parse("llvm -mcpu=skylake-avx512 -num-cores=1")
    layout = CpuLayout(target)
    for m, k, n in ((128, 768, 768), (512, 4096, 1024), (1, 768, 3072), (37, 100, 5), (7, 9, 1000)):
        width = layout.panel((m, n), (k, n), float32)
        assert width % 16 == 0 and width <= -(-n // 16) * 16
        assert m <= 8 or width == 16 or k * width * 4 <= target.l2_bytes
    assert rows_within(4096, target) < rows_within(2048, target) < rows_within(1000, target)


@pytest.mark.parametrize(
    ("channels", "size", "wanted"), [(20, 6, ["packed_conv2d"]), (128, 8, ["winograd_conv2d"] * 2)]
)
def test_groups_of_a_convolution_are_one_kernel_or_several_by_winograd(
    channels: int, size: int, wanted: list[str]
) -> None:
    g = GraphBuilder()
    weight = g.constant(array(3, 3, channels // 2, channels))
    x = g.input("x", (2, size, size, channels))
    y = g.conv2d(x, weight, groups=2, padding=1, layout="NHWC", kernel_layout="HWIO")
    ops = ops_of(packed(g.build(y)))
    assert [op for op in ops if "conv2d" in op] == wanted


def test_convolutions_of_other_kinds_become_those_of_images() -> None:
    g = GraphBuilder()
    y = g.conv2d_transpose(
        g.input("x", (1, 6, 7, 5)), g.constant(array(5, 20, 3, 3)), stride=2, padding=1, layout="NHWC"
    )
    assert ops_of(packed(g.build(y))).count("packed_conv2d") == 3  # the phase of a single tap is a product
    g = GraphBuilder()
    y = g.conv1d(g.input("x", (1, 16, 30)), g.constant(array(32, 16, 3)), padding=1)
    assert "packed_conv2d" in ops_of(packed(g.build(y)))


@pytest.mark.parametrize(("size", "kernels"), [(80, 1), (130, 2)])
def test_packing_reads_transposed_operands_where_they_lie(size: int, kernels: int) -> None:
    """The second one always; the first one where it is small, else it is turned beforehand."""
    g = GraphBuilder()
    x, w = (g.transpose(g.input(n, (size, size)), axes=(1, 0)) for n in "xw")
    exe = tcomp.compile(g.build(g.matmul(x, w)), target="llvm -num-cores=1")
    assert exe.num_kernels == kernels
    a, b = array(size, size), array(size, size)
    assert relative_error(exe(a, b), a.T.astype("float64") @ b.T.astype("float64")) < 1e-6
