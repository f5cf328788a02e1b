"""What a compiled model accepts as arguments and results, and what it refuses."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import frontend as ndl
import tcomp
from tcomp import te
from tcomp.errors import InputError, TcompError
from tcomp.ops import GraphBuilder
from tcomp.runtime.extents import Extent
from tcomp.runtime.results import _free_count
from tcomp.schedule import Schedule

N = 257


def kernel(f, shape: tuple = (N,)) -> tcomp.Executable:
    a = te.placeholder(shape, name="A")
    return tcomp.compile(te.create_prim_func([a, te.compute(shape, lambda *i: f(a, *i), name="C")], "k"))


def test_a_result_may_take_the_place_of_an_input(rng: np.random.Generator) -> None:
    x = rng.standard_normal(N).astype("float32")
    reverse = kernel(lambda a, i: a[N - 1 - i] * 2.0)
    want = x[::-1] * 2
    assert reverse(x, out=x) is x and np.array_equal(x, want)
    z = rng.standard_normal((64, 64)).astype("float32")
    want = z.astype("float64") @ z
    g = GraphBuilder()
    product = tcomp.compile(g.build(g.matmul(g.input("a", z.shape), g.input("b", z.shape))))
    assert np.abs(product(z, z, out=z) - want).max() < 1e-3
    both = np.zeros(2 * N, "float32")
    both[:N] = np.arange(N)
    reverse(both[:N], out=both[100 : 100 + N])  # overlaps in part
    assert np.array_equal(both[100 : 100 + N], np.arange(N)[::-1] * 2)


def test_two_results_need_memory_of_their_own() -> None:
    g = GraphBuilder()
    x = g.input("x", (8,))
    exe = tcomp.compile(g.build(g.exp(x), g.relu(x)))
    o = np.empty(8, "float32")
    with pytest.raises(InputError, match="share memory"):
        exe(np.ones(8, "float32"), out=(o, o))


def test_results_that_are_held_are_not_recycled(rng: np.random.Generator) -> None:
    exe = kernel(lambda a, i: a[i] + 1.0, (1 << 16,))
    x, y = (rng.standard_normal(1 << 16).astype("float32") for _ in range(2))
    a = exe(x)
    kept = a.copy()
    exe(y)
    exe(y)
    assert np.array_equal(a, kept) and _free_count() in (0, 2)


class Strange:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __dlpack__(self, **_: object) -> object:
        raise self.error

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize(
    "value",
    [
        Strange(KeyError("no")),
        Strange(AssertionError()),
        [1.0] * N,
        object(),
        np.ma.masked_array(np.ones(N, "float32"), True),
    ],
)
def test_what_is_no_array_is_refused_in_words(value: object) -> None:
    with pytest.raises(InputError, match="is no array|is a masked array"):
        kernel(lambda a, i: a[i] + 1.0)(value)


def test_tensors_of_the_frontend_and_numbers_of_numpy_are_arrays() -> None:
    x = np.ones(N, "float32")
    assert (kernel(lambda a, i: a[i] + 1.0)(ndl.Tensor(x)) == 2).all()
    g = GraphBuilder()
    assert tcomp.compile(g.build(g.exp(g.input("x", ()))))(np.float32(0)) == 1


@pytest.mark.parametrize("act", [copy.deepcopy, copy.copy, pickle.dumps])
def test_an_executable_is_neither_copied_nor_pickled(act) -> None:
    with pytest.raises(TypeError, match="holds loaded machine code"):
        act(kernel(lambda a, i: a[i] + 1.0))


def test_symbolic_extents_are_told_apart_by_identity_not_by_name() -> None:
    n, m = te.var(), te.var()
    a, b = te.placeholder((n,), name="A"), te.placeholder((m,), name="B")
    exe = tcomp.compile(
        te.create_prim_func([a, b, te.compute((n,), lambda i: a[i] + te.if_then_else(m > 0, b[0], 0.0), name="C")], "k")
    )
    assert (exe(np.ones(3, "float32"), np.ones(5, "float32")) == 2).all()


@pytest.mark.parametrize("name", ["lambda", "for", "x y", "", "1n", "a\nb", "None", "().__class__", "n" * 3000])
def test_any_name_of_an_extent_is_only_a_name(name: str) -> None:
    n = te.var(name)
    a = te.placeholder((n * 2 + 1,), name="A")
    exe = tcomp.compile(te.create_prim_func([a, te.compute((n,), lambda i: a[i] + 1.0, name="C")], "k"))
    assert exe(np.ones(7, "float32")).shape == (3,)
    with pytest.raises(InputError, match="expected A"):
        exe(np.ones(8, "float32"))


def test_a_result_of_negative_extent_is_refused() -> None:
    n = te.var("n")
    a = te.placeholder((n,), name="A")
    exe = tcomp.compile(te.create_prim_func([a, te.compute((n - 5,), lambda i: a[i] + 1.0, name="C")], "k"))
    assert exe(np.ones(7, "float32")).shape == (2,)
    with pytest.raises(InputError, match="negative extent.*n = 3"):
        exe(np.ones(3, "float32"))


def test_extents_are_data() -> None:
    e = Extent("(n + 3) // 4 * m", ("*", ("//", ("+", ("dim", 0), 3), 4), ("dim", 1)))
    assert e.value([9, 5]) == 15 and e.dims() == {0, 1}
    dims = [9, -1]
    e.solve(15, dims)
    assert dims == [9, 5]
    with pytest.raises(InputError, match="divides by zero"):
        Extent("4 // n", ("//", 4, ("dim", 0))).value([0])


def test_memory_that_only_the_call_decides_is_asked_for_in_words() -> None:
    n = te.var("n")
    b, k = te.placeholder((n,), name="B"), te.reduce_axis(n, "k")
    cube = te.compute((n, n, n), lambda i, j, m: b[i] * b[j] * b[m], name="cube")
    total = te.compute((n,), lambda i: te.sum(cube[i, k, k], axis=k), name="C")
    exe = tcomp.compile(Schedule(te.create_prim_func([b, total], "k")))
    assert np.allclose(exe(np.full(8, 0.5, "float32")), 1.0)
    with pytest.raises(InputError, match="buffer cube inside the kernel would take 29802 GiB: with n = 20000"):
        exe(np.ones(20_000, "float32"))


def test_errors_name_the_line_that_asked() -> None:
    with pytest.raises(TcompError, match=r"requested at test_arguments.py:\d+"):
        te.placeholder((-1,))
    with pytest.raises(TcompError) as error, ThreadPoolExecutor(1) as pool:
        pool.submit(te.placeholder, (-1,)).result()  # nobody's line, and surely not one of Python's library
    assert "requested at" not in str(error.value)


def test_an_extent_that_no_input_tells_is_refused() -> None:
    n = te.var("n")
    a = te.placeholder((8,), name="A")
    exe = tcomp.compile(te.create_prim_func([a, te.compute((n,), lambda i: a[0] + 1.0, name="C")], "k"))
    with pytest.raises(InputError, match="extent n is not the extent of any input"):
        exe(np.ones(8, "float32"))
    assert np.array_equal(exe(np.ones(8, "float32"), out=np.empty(5, "float32")), np.full(5, 2.0))


def test_extents_that_are_no_sums() -> None:
    """Squares, quotients, and products that an input or a result tells the other factor of."""
    n, m = te.var("n"), te.var("m")

    def copied(given: tuple, made: tuple, f: Callable) -> Any:
        a = te.placeholder(given, name="A")
        return tcomp.compile(te.create_prim_func([a, te.compute(made, lambda *i: f(a, *i), name="C")], "k"))

    square = copied((n * n,), (n, n), lambda a, i, j: a[i * n + j])
    for size in (0, 1, 2, 3, 10, 1000):
        x = np.arange(size * size, dtype="float32")
        assert np.array_equal(square(x), x.reshape(size, size))
    with pytest.raises(InputError, match="no n of at least 0 makes axis 0 8"):
        square(np.ones(8, "float32"))
    half = copied((n // 2,), (n,), lambda a, i: te.if_then_else(i < n // 2, a[i], 0.0))
    with pytest.raises(InputError, match="no n of at least 0 makes axis 0 3"):
        half(np.ones(3, "float32"))  # 6 or 7
    assert half(np.ones(3, "float32"), out=np.empty(7, "float32")).shape == (7,)
    flat = copied((n * m,), (n, m), lambda a, i, j: a[i * m + j])
    with pytest.raises(InputError, match=r"many m and n make axis 0 6[\s\S]*try: out="):
        flat(np.ones(6, "float32"))
    x = np.arange(6, dtype="float32")
    assert np.array_equal(flat(x, out=np.empty((2, 3), "float32")), x.reshape(2, 3))
    with pytest.raises(InputError, match="axis 0 differs"):
        flat(x, out=np.empty((2, 4), "float32"))


@pytest.mark.parametrize("shape", [(), (3,), (3, 4, 1), (1, 3, 4), (12,)])
def test_inputs_of_other_ranks_are_refused(shape: tuple[int, ...]) -> None:
    a = te.placeholder((3, 4), name="A")
    exe = tcomp.compile(te.create_prim_func([a, te.compute((3, 4), lambda i, j: a[i, j] + 1.0, name="C")], "k"))
    with pytest.raises(InputError, match=r"input 'A' has shape .*: expected A: float32\[3, 4\]"):
        exe(np.ones(shape, "float32"))


def test_a_shape_that_no_extent_makes_is_refused() -> None:
    n = te.var("n")
    a = te.placeholder((2 * n,), name="A")
    exe = tcomp.compile(te.create_prim_func([a, te.compute((n,), lambda i: a[2 * i], name="C")], "k"))
    with pytest.raises(InputError, match="no n of at least 0 makes axis 0 5"):
        exe(np.ones(5, "float32"))


def test_results_go_to_memory_that_can_take_them() -> None:
    exe = kernel(lambda a, i: a[i] + 1.0)
    x = np.ones(exe.inputs[0].shape, "float32")
    fixed = np.zeros_like(x)
    fixed.flags.writeable = False
    for out in (fixed, np.zeros((2 * x.size,), "float32")[::2]):
        with pytest.raises(InputError, match="must be writeable and C-contiguous"):
            exe(x, out=out)
    assert not fixed.any()


def test_a_module_without_text_says_so() -> None:
    exe = kernel(lambda a, i: a[i] + 1.0)
    exe.stages = None
    with pytest.raises(TcompError, match="carries no program text"):
        exe.ir("graph")
