"""What `benchmarks.kernels` runs: single operators in the shapes that known networks have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tcomp import GraphBuilder, IRModule
from tcomp.ir.graph import Operand


@dataclass(frozen=True)
class Case:
    """One kernel to time.

    Attributes:
        name: unique.
        family: matmul, conv, rows, movement or attention.
        group: the part of the family that gets a mean of its own.
        inputs: shapes of the arrays that vary from call to call; weights: of those that do not.
        build: adds the operators to a graph: (builder, inputs, weights) -> result.
        peers: which peers it makes sense to ask, besides torch.
        integers: the inputs are integers below that, instead of normal numbers.
    """

    name: str
    family: str
    group: str
    inputs: tuple[tuple[int, ...], ...]
    build: Callable[..., Operand] = field(repr=False)
    weights: tuple[tuple[int, ...], ...] = ()
    peers: tuple[str, ...] = ("torch", "onnxruntime", "openvino")
    integers: int = 0

    def make(self, seed: int = 0) -> tuple[IRModule, list[np.ndarray]]:
        """The graph and random inputs, standard normal; weights are scaled so that results are about one."""
        rng = np.random.default_rng(seed)
        g = GraphBuilder()
        kind = "int64" if self.integers else "float32"
        xs = [g.input(f"x{i}", shape, kind) for i, shape in enumerate(self.inputs)]
        ws = []
        for shape in self.weights:
            w = rng.standard_normal(shape, np.float32)
            ws.append(g.constant(w / np.float32(max(np.prod(shape[:-1]), 1) ** 0.5)))
        module = g.build(self.build(g, xs, ws))
        if self.integers:
            return module, [rng.integers(0, self.integers, shape) for shape in self.inputs]
        return module, [rng.standard_normal(shape, np.float32) for shape in self.inputs]


# matrix products

SQUARES = (32, 64, 100, 128, 200, 256, 384, 512, 768, 777, 1024, 1536, 2048)
ODD = (
    (1, 1, 1),
    (3, 5, 7),
    (17, 33, 65),
    (127, 129, 131),
    (250, 1000, 37),
    (999, 64, 500),
    (64, 2000, 10),
    (2000, 10, 300),
)
TOKENS, WIDTHS = (1, 16, 128, 512), (384, 768, 1024)


def matmul_shapes() -> list[tuple[int, int, int]]:
    """(rows, inner, columns): squares, odd sizes, the layers of transformers."""
    layers = [(t, *s) for t in TOKENS for w in WIDTHS for s in ((w, w), (w, 4 * w), (4 * w, w))]
    return [*((n, n, n) for n in SQUARES), *ODD, *layers]


def matmul(m: int, k: int, n: int, is_constant: bool) -> Case:
    if is_constant:
        return Case(f"mm_{m}x{k}x{n}", "matmul", "constant", ((m, k),), lambda g, xs, ws: g.matmul(xs[0], ws[0]), ((k, n),),
                    ("torch", "onnxruntime", "openvino", "numpy"))  # fmt: skip
    return Case(f"mmd_{m}x{k}x{n}", "matmul", "dynamic", ((m, k), (k, n)), lambda g, xs, ws: g.matmul(*xs),
                peers=("torch", "onnxruntime", "numpy"))  # fmt: skip


def transposed(m: int, k: int, n: int, left: bool, right: bool) -> Case:
    """Products of transposed operands, as backward passes have them."""

    def build(g: GraphBuilder, xs: Sequence[Operand], ws: Sequence[Operand]) -> Operand:
        a, b = (g.transpose(x, axes=(1, 0)) if t else x for x, t in zip(xs, (left, right)))
        return g.matmul(a, b)

    shapes = ((k, m) if left else (m, k), (n, k) if right else (k, n))
    name = "mm" + ("t" if left else "n") + ("t" if right else "n")
    return Case(f"{name}_{m}x{k}x{n}", "matmul", "dynamic", shapes, build, peers=("torch", "onnxruntime"))


def batched(b: int, m: int, k: int, n: int) -> Case:
    return Case(f"bmm_{b}x{m}x{k}x{n}", "matmul", "dynamic", ((b, m, k), (b, k, n)), lambda g, xs, ws: g.matmul(*xs),
                peers=("torch", "onnxruntime", "numpy"))  # fmt: skip


def matmul_cases() -> Iterator[Case]:
    for shape in matmul_shapes():
        yield matmul(*shape, True)
    for shape in matmul_shapes():
        yield matmul(*shape, False)
    for left, right in ((False, True), (True, False), (True, True)):
        for n in (128, 512, 1024):
            yield transposed(n, n, n, left, right)
        yield transposed(128, 768, 3072, left, right)
    for stacked in ((12, 128, 64, 128), (12, 128, 128, 64), (96, 64, 32, 64), (16, 512, 64, 512)):
        yield batched(*stacked)


# convolutions

# (size, channels in, channels out, kernel, stride, groups): each distinct layer once
RESNET50 = (
    (224, 3, 64, 7, 2, 1), (56, 64, 64, 1, 1, 1), (56, 64, 64, 3, 1, 1), (56, 64, 256, 1, 1, 1), (56, 256, 64, 1, 1, 1),
    (56, 256, 128, 1, 1, 1), (56, 128, 128, 3, 2, 1), (28, 128, 512, 1, 1, 1), (56, 256, 512, 1, 2, 1), (28, 512, 128, 1, 1, 1),
    (28, 128, 128, 3, 1, 1), (28, 512, 256, 1, 1, 1), (28, 256, 256, 3, 2, 1), (14, 256, 1024, 1, 1, 1), (28, 512, 1024, 1, 2, 1),
    (14, 1024, 256, 1, 1, 1), (14, 256, 256, 3, 1, 1), (14, 1024, 512, 1, 1, 1), (14, 512, 512, 3, 2, 1), (7, 512, 2048, 1, 1, 1),
    (14, 1024, 2048, 1, 2, 1), (7, 2048, 512, 1, 1, 1), (7, 512, 512, 3, 1, 1),
)  # fmt: skip
MOBILENETV2 = (
    (224, 3, 32, 3, 2, 1), (112, 32, 32, 3, 1, 32), (112, 32, 16, 1, 1, 1), (112, 16, 96, 1, 1, 1), (112, 96, 96, 3, 2, 96),
    (56, 96, 24, 1, 1, 1), (56, 24, 144, 1, 1, 1), (56, 144, 144, 3, 1, 144), (56, 144, 24, 1, 1, 1), (56, 144, 144, 3, 2, 144),
    (28, 144, 32, 1, 1, 1), (28, 32, 192, 1, 1, 1), (28, 192, 192, 3, 1, 192), (28, 192, 32, 1, 1, 1), (28, 192, 192, 3, 2, 192),
    (14, 192, 64, 1, 1, 1), (14, 64, 384, 1, 1, 1), (14, 384, 384, 3, 1, 384), (14, 384, 64, 1, 1, 1), (14, 384, 96, 1, 1, 1),
    (14, 96, 576, 1, 1, 1), (14, 576, 576, 3, 1, 576), (14, 576, 96, 1, 1, 1), (14, 576, 576, 3, 2, 576), (7, 576, 160, 1, 1, 1),
    (7, 160, 960, 1, 1, 1), (7, 960, 960, 3, 1, 960), (7, 960, 160, 1, 1, 1), (7, 960, 320, 1, 1, 1), (7, 320, 1280, 1, 1, 1),
)  # fmt: skip


def conv(
    batch: int, size: int, c: int, o: int, kernel: int, stride: int, groups: int, nchw: bool = False, group: str = ""
) -> Case:
    """A convolution with constant weights, padded to keep the size (over the stride)."""
    kind = "depthwise" if groups == c > 1 else "grouped" if groups > 1 else f"{kernel}x{kernel}"
    name = f"conv{kernel}x{kernel}_{batch}x{size}x{c}x{o}_s{stride}" + (f"_g{groups}" if groups > 1 else "")
    attrs = {"stride": stride, "padding": kernel // 2, "groups": groups}
    if nchw:
        shape, weights = (batch, c, size, size), (o, c // groups, kernel, kernel)
        layout = {"layout": "NCHW", "kernel_layout": "OIHW"}
    else:
        shape, weights = (batch, size, size, c), (kernel, kernel, c // groups, o)
        layout = {"layout": "NHWC", "kernel_layout": "HWIO"}
    winograd = kernel == 3 and stride == 1 and groups == 1 and min(c, o) >= 64
    return Case(
        name, "conv", group or ("3x3 stride 1" if winograd else kind), (shape,),
        lambda g, xs, ws: g.conv2d(xs[0], ws[0], **attrs, **layout), (weights,),
    )  # fmt: skip


def conv_cases(nchw: bool = False) -> Iterator[Case]:
    for batch in (1, 8):
        for layer in (*RESNET50, *MOBILENETV2):
            yield conv(batch, *layer, nchw)


# rows


def rows_cases() -> Iterator[Case]:
    for shape in ((12, 128, 128), (12, 512, 512), (12, 197, 197), (1, 1000), (64, 1000), (512, 30522)):
        name = "x".join(map(str, shape))
        yield Case(f"softmax_{name}", "rows", "softmax", (shape,), lambda g, xs, ws: g.softmax(xs[0], axis=-1))
    for shape in ((64, 1000), (128, 30522)):
        name = "x".join(map(str, shape))
        yield Case(f"log_softmax_{name}", "rows", "softmax", (shape,), lambda g, xs, ws: g.log_softmax(xs[0], axis=-1))
    for shape in ((128, 384), (128, 768), (512, 768), (197, 768), (512, 1024)):
        name = "x".join(map(str, shape))
        last = (shape[-1],)
        yield Case(
            f"layer_norm_{name}", "rows", "norm", (shape,), lambda g, xs, ws: g.layer_norm(xs[0], *ws), (last, last)
        )
        yield Case(f"rms_norm_{name}", "rows", "norm", (shape,), lambda g, xs, ws: g.rms_norm(xs[0], *ws), (last,))
    for op in ("sum", "mean", "max"):
        for shape, axes in (((1024, 1024), (1,)), ((1024, 1024), (0,)), ((64, 56, 56), (1, 2)), ((1000, 1000), None)):
            name = "x".join(map(str, shape)) + "_" + ("all" if axes is None else "".join(map(str, axes)))
            yield Case(f"{op}_{name}", "rows", "reduction", (shape,),
                       lambda g, xs, ws, op=op, axes=axes: g.op(op, xs[0], axes=axes))  # fmt: skip
    for shape in ((64, 1000), (512, 30522)):
        yield Case(
            f"argmax_{shape[0]}x{shape[1]}", "rows", "reduction", (shape,), lambda g, xs, ws: g.argmax(xs[0], axis=-1)
        )


# movement and elementwise


def movement_cases() -> Iterator[Case]:
    def transpose(shape: tuple[int, ...], axes: tuple[int, ...]) -> Case:
        name = "x".join(map(str, shape)) + "_" + "".join(map(str, axes))
        return Case(
            f"transpose_{name}", "movement", "movement", (shape,), lambda g, xs, ws: g.transpose(xs[0], axes=axes)
        )

    yield transpose((512, 768), (1, 0))
    yield transpose((1024, 1024), (1, 0))
    yield transpose((1, 128, 12, 64), (0, 2, 1, 3))
    yield transpose((1, 12, 128, 64), (0, 1, 3, 2))
    yield transpose((1, 64, 56, 56), (0, 2, 3, 1))
    yield transpose((8, 56, 56, 64), (0, 3, 1, 2))
    yield Case("concat_4x128x768", "movement", "movement", ((128, 768),) * 4, lambda g, xs, ws: g.concat(*xs, axis=1))
    yield Case("concat_heads", "movement", "movement", ((12, 128, 64),) * 2, lambda g, xs, ws: g.concat(*xs, axis=1))
    yield Case("slice_128x2304", "movement", "movement", ((128, 2304),),
               lambda g, xs, ws: g.slice(xs[0], begin=(0, 768), end=(128, 1536)))  # fmt: skip
    yield Case("pad_1x56x56x64", "movement", "movement", ((1, 56, 56, 64),),
               lambda g, xs, ws: g.pad(xs[0], pad_width=((0, 0), (1, 1), (1, 1), (0, 0))), peers=("torch",))  # fmt: skip
    for tokens, words, width in ((128, 30522, 768), (512, 50257, 1024)):
        yield Case(f"embedding_{tokens}x{words}x{width}", "movement", "movement", ((tokens,),),
                   lambda g, xs, ws: g.take(ws[0], xs[0]), ((words, width),), integers=words)  # fmt: skip
    pools = (((1, 112, 112, 64), 3, 2, 1), ((8, 112, 112, 64), 3, 2, 1), ((8, 28, 28, 128), 2, 2, 0))
    for shape, kernel, stride, padding in pools:
        for op in ("max_pool2d", "avg_pool2d"):
            attrs = {"kernel": kernel, "stride": stride, "padding": padding, "layout": "NHWC"}
            yield Case(f"{op}_{'x'.join(map(str, shape))}", "movement", "pooling", (shape,),
                       lambda g, xs, ws, op=op, attrs=attrs: g.op(op, xs[0], **attrs))  # fmt: skip
    yield Case("global_pool_8x7x7x2048", "movement", "pooling", ((8, 7, 7, 2048),),
               lambda g, xs, ws: g.global_avg_pool2d(xs[0], layout="NHWC"))  # fmt: skip
    for op in ("gelu", "relu", "tanh", "sigmoid", "exp"):
        for shape in ((128, 3072), (512, 4096)):
            yield Case(
                f"{op}_{shape[0]}x{shape[1]}",
                "movement",
                "elementwise",
                (shape,),
                lambda g, xs, ws, op=op: g.op(op, xs[0]),
            )
    for shape in ((128, 768), (1024, 1024), (8, 56, 56, 256)):
        name = "x".join(map(str, shape))
        yield Case(f"add_{name}", "movement", "elementwise", (shape, shape), lambda g, xs, ws: g.add(*xs))
        yield Case(f"add_row_{name}", "movement", "elementwise", (shape, shape[-1:]), lambda g, xs, ws: g.add(*xs))


# attention


def attention(stack: int, rows: int, keys: int, features: int, kind: str = "") -> Case:
    """A stack of heads, (1, stack, rows, features); kind: "", "mask" (added), or "causal"."""
    query, other = (1, stack, rows, features), (1, stack, keys, features)
    masks = ((1, 1, rows, keys),) if kind == "mask" else ()
    name = f"attention_{stack}x{rows}x{keys}x{features}" + (f"_{kind}" if kind else "")
    return Case(name, "attention", kind or "plain", (query, other, other, *masks),
                lambda g, xs, ws: g.attention(*xs, causal=kind == "causal"), peers=("torch", "onnxruntime"))  # fmt: skip


def attention_cases() -> Iterator[Case]:
    """The heads of BERT, GPT and ViT, one query against a cache, wide heads."""
    for shape in ((12, 128, 128, 64), (12, 512, 512, 64), (12, 197, 197, 64), (16, 1024, 1024, 64), (96, 64, 64, 32),
                  (8, 512, 512, 128), (12, 1, 512, 64)):  # fmt: skip
        yield attention(*shape)
    for shape in ((12, 128, 128, 64), (12, 512, 512, 64)):
        yield attention(*shape, kind="mask")
        yield attention(*shape, kind="causal")


FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {
    "matmul": matmul_cases,
    "conv": conv_cases,
    "rows": rows_cases,
    "movement": movement_cases,
    "attention": attention_cases,
}


def sweep(count: int, seed: int) -> Iterator[Case]:
    """Products and convolutions of random shapes that nobody tuned for."""
    rng = np.random.default_rng(seed)

    def size(low: float, high: float) -> int:
        return int(np.exp(rng.uniform(np.log(low), np.log(high))))

    for _ in range(count):
        yield matmul(size(1, 1024), size(8, 2048), size(8, 2048), bool(rng.integers(2)))
    for _ in range(count):
        kernel, stride = int(rng.choice([1, 1, 3, 3, 5])), int(rng.choice([1, 1, 2]))
        c, o = size(3, 512), size(8, 512)
        groups = int(rng.choice([1, 1, 1, 2]))
        c, o = c * groups, o * groups
        yield conv(int(rng.choice([1, 1, 2, 4])), size(max(5, kernel), 64), c, o, kernel, stride, groups, group="conv")


def cases_of(family: str, layout: str, random: int, seed: int) -> list[Case]:
    """The cases of some families (separated by commas; all where there are none), or random ones where their number is not 0."""
    if random:
        return list(sweep(random, seed))
    wanted = family.split(",") if family else list(FAMILIES)
    return [c for f in wanted for c in (conv_cases(layout == "NCHW") if f == "conv" else FAMILIES[f]())]


def make(family: str, layout: str, random: int, seed: int, name: str) -> tuple[IRModule, list[np.ndarray]]:
    """The graph and the inputs of one of these cases."""
    return next(c for c in cases_of(family, layout, random, seed) if c.name == name).make()
