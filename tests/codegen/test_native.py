"""Native code against NumPy: all dtypes, conversions, arithmetic corner cases, masks, parallel loops."""

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.codegen.lowering import STEPS
from tcomp.dtype import ALL, DType, bool_, dtype
from tcomp.ir.expr import Select, call
from tcomp.ir.interp import interpret, run
from tcomp.ir.verify import verify
from tcomp.schedule import Schedule
from tcomp.tools.expressions import random_func
from tcomp.tools.fuzz import Outcome, agree, apply_choices, make_case, make_inputs
from tcomp.tools.guards import Guards


def values(d: DType, rng: np.random.Generator, n: int) -> np.ndarray:
    if d.is_float:
        special = [0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 65504.0, 6e-5, 3e38, 200.4]
        with np.errstate(all="ignore"):
            return np.concatenate([special, rng.standard_normal(n) * 50])[:n].astype(d.numpy)
    if d.is_bool:
        return rng.random(n) < 0.5
    info = np.iinfo(d.numpy)
    fixed = np.array([info.min, info.max, 0, 1, 2], d.numpy)
    return np.concatenate([fixed, rng.integers(max(info.min, -99), 100, n).astype(d.numpy)])[:n]


def build(f: object, *inputs: te.Tensor, vector: int | None = None) -> object:
    out = te.compute(inputs[0].shape, f, name="out")
    sch = Schedule(te.create_prim_func([*inputs, out]))
    if vector:
        _, lane = sch.split(sch.get_loops("out")[-1], [None, vector])
        sch.vectorize(lane)
    return sch


@pytest.mark.parametrize("vector", [None, 8])
@pytest.mark.parametrize("source", ALL, ids=str)
@pytest.mark.drawn(1 / 3)
def test_conversions_between_all_dtypes(source: DType, vector: int | None, rng: np.random.Generator) -> None:
    x = values(source, rng, 37)
    a = te.placeholder((37,), source, "A")
    for target in ALL:
        sch = build(lambda i, t=target: te.cast(a[i], t), a, vector=vector)
        want = run(sch.func, [x])[0]
        got = tcomp.compile(sch)(x)
        assert np.array_equal(got.astype(np.float64), want.astype(np.float64), equal_nan=True), f"{source} to {target}"


@pytest.mark.parametrize("vector", [None, 8])
@pytest.mark.parametrize("d", [d for d in ALL if d != bool_], ids=str)
@pytest.mark.drawn(1 / 3)
def test_arithmetic_in_all_dtypes(d: DType, vector: int | None, rng: np.random.Generator) -> None:
    x, y = values(d, rng, 37), values(d, rng, 37)[::-1].copy()
    a, b = te.placeholder((37,), d, "A"), te.placeholder((37,), d, "B")
    forms = [
        lambda i: a[i] + b[i], lambda i: a[i] - b[i], lambda i: a[i] * b[i], lambda i: te.maximum(a[i], b[i]),
        lambda i: te.minimum(a[i], b[i]), lambda i: Select(a[i] < b[i], a[i], b[i]), lambda i: -a[i], lambda i: abs(a[i]),
    ]  # fmt: skip
    forms += [lambda i: a[i] / b[i]] if d.is_float else [lambda i: a[i] // b[i], lambda i: a[i] % b[i]]
    for number, form in enumerate(forms):
        sch = build(form, a, b, vector=vector)
        with np.errstate(all="ignore"):
            want = run(sch.func, [x, y])[0]
        got = tcomp.compile(sch)(x, y)
        if d.is_float:
            np.testing.assert_allclose(
                got.astype(np.float64), want.astype(np.float64), rtol=1e-6, err_msg=f"form {number}"
            )
        elif not (d.kind == "int" and number in (8, 9)):
            assert np.array_equal(got, want), f"form {number}"
        else:  # NumPy leaves the least integer divided by -1 open
            normal = ~((y == -1) & (x == np.iinfo(d.numpy).min))
            assert np.array_equal(got[normal], want[normal]), f"form {number}"


def test_division_by_zero_does_not_trap() -> None:
    a, b = te.placeholder((4,), "int32", "A"), te.placeholder((4,), "int32", "B")
    x, y = np.array([7, -7, -(2**31), 0], np.int32), np.array([0, 0, -1, 0], np.int32)
    assert tcomp.compile(build(lambda i: a[i] // b[i], a, b))(x, y).tolist() == [0, 0, -(2**31), 0]
    assert tcomp.compile(build(lambda i: a[i] % b[i], a, b))(x, y).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("vector", [None, 8])
def test_a_load_behind_a_select_never_leaves_its_buffer(vector: int | None) -> None:
    a = te.placeholder((5,), name="A")
    out = te.compute((4099,), lambda i: Select((i >= 4000) & (i < 4005), a[i - 4000], te.const(-1.0)), name="out")
    sch = Schedule(te.create_prim_func([a, out]))
    if vector:
        sch.vectorize(sch.split(sch.get_loops("out")[0], [None, vector])[1])
    got = tcomp.compile(sch)(np.arange(5, dtype="float32"))
    assert got[4000:4005].tolist() == [0, 1, 2, 3, 4] and (np.delete(got, slice(4000, 4005)) == -1).all()


@pytest.mark.parametrize("seed", range(0, 400, 10))
def test_each_lowering_step_keeps_the_meaning(seed: int) -> None:
    sch = Schedule(random_func(seed))
    apply_choices(sch, make_case(seed).choices, Outcome(make_case(seed)))
    inputs = make_inputs(sch.func, seed)
    want = run(sch.func, inputs)
    func = sch.func
    for step in STEPS:
        func = step(func)
        verify(func)
        outputs = [np.full_like(w, 99) for w in want]
        flat = all(len(b.shape) == 1 for b in func.buffers)
        interpret(func, *(x.reshape(-1) if flat else x for x in (*inputs, *outputs)))
        assert all(map(agree, outputs, want)), step.__name__


def test_float64_functions_use_the_c_library(rng: np.random.Generator) -> None:
    x = np.abs(rng.standard_normal(19))
    a = te.placeholder((19,), "float64", "A")
    for name, f in (
        ("exp", np.exp),
        ("log1p", np.log1p),
        ("tanh", np.tanh),
        ("sigmoid", lambda v: 1 / (1 + np.exp(-v))),
    ):
        got = tcomp.compile(build(lambda i, n=name: call(n, a[i]), a, vector=4))(x)
        np.testing.assert_allclose(got, f(x), rtol=1e-14)


def test_strided_and_transposed_vectors(rng: np.random.Generator) -> None:
    x = rng.standard_normal((24, 40)).astype("float32")
    a = te.placeholder((24, 40), name="A")
    out = te.compute((20, 24), lambda i, j: a[23 - j, 2 * i + 1], name="out")
    sch = Schedule(te.create_prim_func([a, out]))
    sch.vectorize(sch.split(sch.get_loops("out")[1], [None, 8])[1])
    assert np.array_equal(tcomp.compile(sch)(x), x[::-1, 1::2].T)


def test_large_scratch_buffers_come_from_the_heap(rng: np.random.Generator) -> None:
    x = rng.standard_normal((300, 300)).astype("float32")
    a = te.placeholder((300, 300), name="A")
    b = te.compute((300, 300), lambda i, j: a[i, j] + 1.0, name="B")
    out = te.compute((300, 300), lambda i, j: b[j, i] * 2.0, name="out")
    sch = Schedule(te.create_prim_func([a, out]))
    sch.parallel(sch.get_loops("B")[0])
    sch.parallel(sch.get_loops("out")[0])
    assert np.allclose(tcomp.compile(sch)(x), (x + 1).T * 2)


@pytest.mark.parametrize("source", ["int64", "uint64", "int32", "int16", "float64", "float32"])
@pytest.mark.parametrize(
    "name", ["int8", "uint8", "int16", "uint16", "float16", "bfloat16", "bool", "int32", "uint32", "float32", "int64"]
)
@pytest.mark.parametrize("lanes", [2, 3, 4, 8, 16])
@pytest.mark.drawn(1 / 3)
def test_masked_stores_leave_the_neighbours_alone(source: str, name: str, lanes: int) -> None:
    """The last vector of a row of 2 lanes + 1 has one lane; the next element belongs to the row behind it, or to nobody."""
    n = 2 * lanes + 1
    a = te.placeholder((3, n), source, "A")
    sch = Schedule(te.create_prim_func([a, te.compute((3, n), lambda i, j: te.cast(a[2 - i, j], name), name="B")]))
    i, j = sch.get_loops("B")
    outer, inner = sch.split(j, [None, lanes])
    sch.vectorize(inner)
    sch.unroll(outer)
    sch.reorder(outer, i)  # the last vectors of all rows come last
    sch.unroll(i)
    x = (np.arange(3 * n).reshape(3, n) % 2 + 1).astype(source)
    guards = Guards()
    out = guards.around(np.zeros((3, n), dtype(name).numpy))
    tcomp.compile(sch)(guards.around(x), out=out)
    assert np.array_equal(out.astype("float64"), x[::-1].astype(dtype(name).numpy).astype("float64"))
    assert not guards.damage()


def test_guards_notice_a_byte_too_many() -> None:
    guards = Guards()
    a = guards.around(np.zeros(3, np.int16))
    assert not guards.damage()
    np.lib.stride_tricks.as_strided(a, (4,), writeable=True)[3] = 5
    assert guards.damage() == "2 bytes behind array 0, int16[3], written, the first at 0"


def _sum_of_products(n: int, parts: int) -> list[te.Tensor]:
    """A[i] * B[i] + C[i], as one expression or as two."""
    a, b, c = (te.placeholder((n,), name=name) for name in "ABC")
    if parts == 1:
        return [a, b, c, te.compute((n,), lambda i: a[i] * b[i] + c[i], "S")]
    product = te.compute((n,), lambda i: a[i] * b[i], "P")
    return [a, b, c, te.compute((n,), lambda i: product[i] + c[i], "S")]


@pytest.mark.parametrize("target", ["cpu", "llvm -mcpu=haswell", "llvm -mcpu=x86-64"])
@pytest.mark.parametrize("vector", [1, 8])
def test_inlining_changes_no_bit(target: str, vector: int, rng: np.random.Generator) -> None:
    """Within an expression a product and a sum may be rounded once; what was stored between them stays rounded."""
    n = 99
    arrays = [rng.standard_normal(n).astype("float32") for _ in range(3)]
    twice = arrays[0] * arrays[1] + arrays[2]
    once = (arrays[0].astype("longdouble") * arrays[1] + arrays[2]).astype("float32")
    assert (once != twice).any()
    results = []
    for parts in (1, 2):
        func = te.create_prim_func(_sum_of_products(n, parts))
        sch = Schedule(func)
        if parts == 2:
            sch.compute_inline("P")
        if vector > 1:
            _, inner = sch.split(sch.get_loops("S")[0], [None, vector])
            sch.vectorize(inner)
        results.append(tcomp.compile(sch, target=target)(*arrays))
    assert np.array_equal(results[1], twice)
    assert np.array_equal(results[0], twice if target.endswith("x86-64") else once)


def test_what_other_threads_write_is_read_again() -> None:
    """Sums begin as zeros in straight code, which keeps what it stored at hand; threads add to them, and straight code reads them."""
    a, k = te.placeholder((4, 9), name="A"), te.reduce_axis(9, "k")
    s = te.compute((4,), lambda i: te.sum(a[i, k], axis=k), name="S")
    func = te.create_prim_func([a, te.compute((4,), lambda i: s[i] + 1.0, name="B")], "sums")
    sch = tcomp.Schedule(func)
    i, k = sch.get_loops("S")
    init = sch.decompose_reduction("S", i)
    for block in (init, "B"):
        sch.unroll(sch.get_loops(block)[0])
    sch.parallel(i)
    x = np.arange(36, dtype=np.float32).reshape(4, 9)
    np.testing.assert_array_equal(tcomp.compile(sch)(x), x.sum(1) + 1)


def test_whole_numbers_that_change_are_read_again() -> None:
    """Copies of an unrolled loop are the same expression of int64: no index, and not the same value."""
    a, k = te.placeholder((4,), "int64", name="A"), te.reduce_axis(5, "k")
    func = te.create_prim_func([a, te.compute((4,), lambda i: te.sum(a[i] + k * 0, axis=k), name="S")], "sums")
    sch = tcomp.Schedule(func)
    sch.unroll(sch.get_loops("S")[1])
    x = np.arange(4) + 7
    np.testing.assert_array_equal(tcomp.compile(sch)(x), 5 * x)
