"""python -m benchmarks.symbolic: one executable for every batch or sequence, beside executables compiled for the extent at hand.

Both are tcomp's and run turn by turn in one process; results are compared, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer

import tcomp
from tcomp import GraphBuilder
from tcomp.target import Target

Extent = Any
"""An int, or a GraphBuilder's dim."""


class _Weights:
    """Constants that are the same each time a model is built."""

    def __init__(self, g: GraphBuilder) -> None:
        self.g, self.rng = g, np.random.default_rng(0)

    def __call__(self, *shape: int, fan: int = 1) -> Any:
        return self.g.constant((self.rng.standard_normal(shape) / fan**0.5).astype("float32"))

    def positive(self, size: int) -> Any:
        return self.g.constant((0.5 + self.rng.random(size)).astype("float32"))


def resnet18(g: GraphBuilder, batch: Extent) -> Any:
    """K. He et al., Deep Residual Learning for Image Recognition, 2015, over images of 224 x 224, random weights."""
    w = _Weights(g)

    def conv(x: Any, inputs: int, outputs: int, size: int, stride: int) -> Any:
        kernel = w(outputs, inputs, size, size, fan=inputs * size * size)
        y = g.conv2d(x, kernel, stride=stride, padding=size // 2)
        return g.batch_norm(y, *(w.positive(outputs) for _ in range(4)))

    x = g.relu(conv(g.input("x", (batch, 3, 224, 224)), 3, 64, 7, 2))
    x, inputs = g.max_pool2d(x, kernel=3, stride=2, padding=1), 64
    for outputs in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and outputs > 64 else 1
            y = conv(g.relu(conv(x, inputs, outputs, 3, stride)), outputs, outputs, 3, 1)
            x = g.relu(g.add(y, x if inputs == outputs else conv(x, inputs, outputs, 1, stride)))
            inputs = outputs
    x = g.reshape(g.global_avg_pool2d(x), shape=(-1, 512))
    return g.linear(x, w(1000, 512, fan=512), w(1000))


def transformer(g: GraphBuilder, sequence: Extent, layers: int = 4, width: int = 256, heads: int = 4) -> Any:
    """A decoder of a small language model over embedded tokens, random weights."""
    w = _Weights(g)
    x = g.input("x", (1, sequence, width))

    def dense(y: Any, inputs: int, outputs: int) -> Any:
        return g.linear(y, w(outputs, inputs, fan=inputs), w(outputs))

    def split_heads(y: Any) -> Any:
        return g.transpose(g.reshape(y, shape=(1, sequence, heads, width // heads)), axes=(0, 2, 1, 3))

    for _ in range(layers):
        y = g.layer_norm(x, w(width), w(width))
        q, k, v = (split_heads(dense(y, width, width)) for _ in range(3))
        y = g.transpose(g.attention(q, k, v, causal=True), axes=(0, 2, 1, 3))
        x = g.add(x, dense(g.reshape(y, shape=(1, sequence, width)), width, width))
        y = g.layer_norm(x, w(width), w(width))
        x = g.add(x, dense(g.gelu(dense(y, width, 4 * width)), 4 * width, width))
    return x


MODELS: dict[str, tuple[Callable[..., Any], int, tuple[int, ...], tuple[int, ...]]] = {
    "resnet18": (resnet18, 16, (1, 4, 16), (3, 224, 224)),
    "transformer": (transformer, 512, (16, 128, 512), (256,)),
}
"""Model, bound of the extent, extents to time, the other axes of its input."""


def compiled(make: Callable[..., Any], extent: int, is_symbolic: bool) -> tcomp.Executable:
    g = GraphBuilder()
    return tcomp.compile(g.build(make(g, g.dim("n", max=extent) if is_symbolic else extent)))


def _input(name: str, extent: int) -> np.ndarray:
    rest = MODELS[name][3]
    shape = (extent, *rest) if name == "resnet18" else (1, extent, *rest)
    return np.random.default_rng(extent).standard_normal(shape).astype("float32")


def _check(name: str, open_: tcomp.Executable, count: int) -> None:
    """Print how far results are from those of executables compiled for each extent."""
    make, largest, *_ = MODELS[name]
    chosen = sorted({int(n) for n in np.linspace(1, largest, min(count, largest)).round()})
    worst = 0.0
    for extent in chosen:
        x = _input(name, extent)
        a, b = open_(x), compiled(make, extent, False)(x)
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    print(f"{name}: {len(chosen)} extents {chosen}: largest difference {worst:.1e}", flush=True)


def main(
    model: Annotated[str, typer.Option(help=f"one of {', '.join(MODELS)}; by default all")] = "",
    extents: Annotated[str, typer.Option(help="by commas")] = "",
    turns: int = 20,
    check: Annotated[int, typer.Option(help="compare results at so many extents, and time nothing")] = 0,
) -> None:
    """Print the time of each extent, symbolic and static, and how far the results are apart."""
    print(f"{Target.parse('cpu')}")
    print(f"{'model':<14}{'extent':>7}{'symbolic ms':>13}{'static ms':>11}{'static/symbolic':>17}{'difference':>12}")
    for name, (make, largest, usual, _) in MODELS.items():
        if model and model != name:
            continue
        open_ = compiled(make, largest, True)
        if check:
            _check(name, open_, check)
            continue
        for extent in [int(e) for e in extents.split(",") if e] or usual:
            fixed = compiled(make, extent, False)
            x = _input(name, extent)
            a, b = open_(x), fixed(x)
            pairs = [
                (open_.time(x, repeat=1, warmup=1).median, fixed.time(x, repeat=1, warmup=1).median)
                for _ in range(turns)
            ]
            times = [1e3 * float(np.median(t)) for t in zip(*pairs)]
            ratio = float(np.median([s / o for o, s in pairs]))
            off = float(np.abs(a - b).max() / np.abs(b).max())
            print(f"{name:<14}{extent:>7}{times[0]:>13.3f}{times[1]:>11.3f}{ratio:>17.2f}{off:>12.1e}", flush=True)


if __name__ == "__main__":
    typer.run(main)
