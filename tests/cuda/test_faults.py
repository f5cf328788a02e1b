"""Faults planted in generated CUDA C: the emulator notices each, by a race, a barrier, a bound, or a wrong result."""

import re
from collections.abc import Iterator

import numpy as np
import pytest

import tcomp
from tcomp.errors import DeviceError
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.runtime.device.gpu import GpuLibrary
from tcomp.runtime.executable import Executable


def matmul(g: GraphBuilder) -> object:
    x = g.matmul(g.input("x", (35, 50)), g.input("w", (50, 45)))
    return g.relu(g.add(x, g.input("b", (45,))))


def convolution(g: GraphBuilder) -> object:
    return g.conv2d(
        g.input("x", (2, 9, 10, 5)), g.input("w", (3, 3, 5, 20)), padding=1, layout="NHWC", kernel_layout="HWIO"
    )


def rms_norm(g: GraphBuilder) -> object:
    return g.op("rms_norm", g.input("x", (7, 300)), g.input("scale", (300,)))


def layer_norm(g: GraphBuilder) -> object:
    return g.op("layer_norm", g.input("x", (5, 700)), g.input("scale", (700,)), g.input("shift", (700,)))


def batched(g: GraphBuilder) -> object:
    return g.sigmoid(g.matmul(g.input("x", (3, 19, 20)), g.input("w", (3, 20, 40))))


def attention(g: GraphBuilder) -> object:
    return g.op("attention", *(g.input(n, (2, 3, 37, 24)) for n in "qkv"))


def transpose(g: GraphBuilder) -> object:
    return g.transpose(g.input("x", (70, 45)), axes=(1, 0))


def tensor_cores(g: GraphBuilder) -> object:
    x = g.matmul(g.input("x", (45, 70), "float16"), g.input("w", (70, 40), "float16"), out_dtype="float32")
    return g.add(x, g.input("b", (40,)))


KERNELS = (matmul, convolution, rms_norm, layer_norm, batched, attention, transpose, tensor_cores)
LONG = (convolution, batched, attention, tensor_cores)
"""For `make test-all`: each fault is a program to compile."""


RULES = (
    ("barrier taken out", r"__syncthreads\(\);(?!\s*return)", ";"),
    # but not of what goes from registers to shared memory: one element more, behind those that are read
    ("bound widened", r"if \((.*) < (\d+)\) \{(?=\s*\w+\[[^;]*=(?! \w+_next\[))", r"if (\1 <= \2) {"),
    ("two threads of one number", r"(const int (\w+) = threadIdx\.x);(?=[\s\S]*\[[^\]]*\b\2\b)", r"\1 / 2;"),
    ("block of another number", r"= blockIdx\.x;", "= blockIdx.x + 1;"),
    # but not of a softmax's maximum: any number near it does as well
    (
        "loop cut short",
        r"(?<!UNROLL\n)( *for \(int (\w+) = 0; \2 < \d+); \2\+\+(?!(?:[^\n]*\n){1,3}[^\n]*= f32_max\()",
        r"\1 - 1; \2++",
    ),
    ("slice moved", r"(p\d_shared\[)([^\]]*\]\s*=)", r"\g<1>1 + \2"),
    ("half of a pair taken for the other", r"\((\w+|\(\w+ \+ 1\)) & 1\) \*", r"(1 - (\1 & 1)) *"),
    ("one half of a pair for both", r"\((\w+|\(\w+ \+ 1\)) & 1\) \*", r"0 *"),
    ("another tile", r"(tile_load_\w+\(&\w+\[[^\]]*\], &\w+\[)", r"\g<1>16 + "),
    ("rows of a tile further apart", r"(tile_(?:load|store)_\w+\(.*), (\d+)\);", r"\1, \2 + 8);"),
    ("product of tiles left out", r"tile_multiply\w+\([^;]*;", ";"),
    ("next slice left out", r"if \((\w+) \+ 1 < (\d+)\) \{", r"if (\1 + 2 < \2) {"),
)
"""What is done, where, and what stands there then."""


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """What was done, and the source that it makes."""
    own = source.index("KERNEL(", source.index("#define KERNEL") + 40)
    helpers = source.find("_threads_")  # combinations of threads have barriers of their own
    for told, pattern, change in RULES:
        start = helpers if told.startswith("barrier") and helpers >= 0 else own
        for m in re.compile(pattern).finditer(source, start):
            line = source.count("\n", 0, m.start()) + 1
            yield f"line {line}: {told}: {m[0].strip()}", source[: m.start()] + m.expand(change) + source[m.end() :]


def compiled(make: object) -> tuple[Executable, list[np.ndarray], np.ndarray]:
    g = GraphBuilder()
    module = g.build(make(g))
    rng = np.random.default_rng(3)
    kinds = [(v.type.shape, v.type.dtype) for v in module.main.params]
    inputs = [rng.random(s) < 0.5 if d.is_bool else rng.standard_normal(s).astype(d.numpy) for s, d in kinds]
    return tcomp.compile(module, target="cuda -device=emulator"), inputs, evaluate(module, inputs, exact=True)[0]


def is_noticed(library: GpuLibrary, source: str, run: object, want: np.ndarray) -> bool:
    """Whether a changed source is told from the right one."""
    library.load(source)
    for order in ("forward", "backward", "shuffled"):
        library.driver.order = order
        try:
            if not np.allclose(run(), want, rtol=1e-4, atol=1e-5):
                return True
        except DeviceError:
            return True
    return False


@pytest.mark.parametrize(
    "make", [pytest.param(f, marks=[pytest.mark.slow] if f in LONG else [], id=f.__name__) for f in KERNELS]
)
def test_planted_faults_are_noticed(make: object) -> None:
    exe, inputs, want = compiled(make)
    library = exe.library
    assert not is_noticed(library, library.source, lambda: exe(*inputs), want), "nothing was planted yet"
    found = list(mutants(library.source))
    missed = [told for told, source in found if not is_noticed(library, source, lambda: exe(*inputs), want)]
    assert len(found) >= 4 and not missed, f"{len(missed)} of {len(found)}: {missed}"
