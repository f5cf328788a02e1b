"""Counter-based random numbers: known answers, independence of keys and streams, and the compiled kernels."""

import numpy as np
import pytest

import tcomp
from tcomp.errors import ShapeError
from tcomp.ir.philox import philox
from tcomp.ops import GraphBuilder

# the test vectors that the authors of Philox publish with Random123
KNOWN = [
    ((0,) * 6, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), KNOWN)
def test_known_answers(words: tuple, expected: tuple) -> None:
    assert tuple(int(w) for w in philox(*words)) == expected


def uniform(shape: tuple, stream: int = 0, seed: int = 1, step: int = 0, target: str = "cpu") -> np.ndarray:
    g = GraphBuilder()
    module = g.build(g.random_uniform(g.input("key", (2,), "int64"), shape=shape, stream=stream))
    key = np.array([seed, step], np.int64)
    got, want = tcomp.compile(module, target=target)(key), tcomp.evaluate(module, [key])[0]
    assert got.dtype == np.float32 and np.array_equal(got, want)  # to the last bit
    return got


@pytest.mark.parametrize("target", ["cpu", "llvm -mcpu=haswell", "llvm -mcpu=x86-64 -num-cores=1"])
def test_numbers_are_uniform_and_independent(target: str) -> None:
    x = uniform((300, 1001), target=target)
    counts = np.histogram(x, 50, (0, 1))[0]
    expected = x.size / 50
    assert ((counts - expected) ** 2 / expected).sum() < 100  # chi square with 49 degrees of freedom
    assert x.min() >= 0 and x.max() < 1 and abs(np.corrcoef(x[:, :-1].ravel(), x[:, 1:].ravel())[0, 1]) < 0.01
    for other in ({"stream": 1}, {"seed": 2}, {"step": 1}, {"seed": 1 + (1 << 32)}, {"step": 1 << 32}):
        y = uniform((300, 1001), target=target, **other)
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 0.01
    assert np.array_equal(uniform((7,), seed=5), uniform((35,), seed=5)[:7])


def test_bad_shapes_and_keys_are_refused() -> None:
    g = GraphBuilder()
    with pytest.raises(ShapeError, match="no shape"):
        g.random_uniform(g.input("key", (2,), "int64"), shape=(-1,))
    with pytest.raises(ShapeError, match="seed and step"):
        g.random_uniform(g.input("other", (3,), "int64"), shape=(2,))
