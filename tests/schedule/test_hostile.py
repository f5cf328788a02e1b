"""Arguments and traces that make no sense are refused in words, and steps that would make too much code with the count."""

import json

import numpy as np
import pytest

import tcomp
from tcomp import Schedule, te
from tcomp.analysis import dependence
from tcomp.dtype import float32
from tcomp.errors import ScheduleError, UnsupportedError
from tcomp.ir import Block, Buffer, For, IterVar, Load, PrimFunc, Store, Var, const
from tcomp.ir.stmt import seq
from tcomp.schedule import Trace


def product(n: int = 64) -> Schedule:
    a, b, k = te.placeholder((n, n), name="A"), te.placeholder((n, n), name="B"), te.reduce_axis(n, "k")
    return Schedule(
        te.create_prim_func(
            [a, b, te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")], "product"
        )
    )


BAD_STEPS = {
    "split by a number": lambda s, i: s.split(i, 4),
    "split by text": lambda s, i: s.split(i, "44"),
    "split by a truth": lambda s, i: s.split(i, [None, True]),
    "split by a fraction": lambda s, i: s.split(i, [None, 2.0]),
    "split past the end": lambda s, i: s.split(i, [None, 2**62]),
    "split beyond int64": lambda s, i: s.split(i, [None, 2**63]),
    "pad by a number": lambda s, i: s.pad_einsum("C", 4),
    "annotate as a pragma": lambda s, i: s.annotate(i, "pragma_prefetch", "foo"),
    "annotate without a key": lambda s, i: s.annotate(i, None, 1),
    "too many factors": lambda s, i: s.sample_perfect_tile(i, 10**9),
    "half a factor": lambda s, i: s.sample_perfect_tile(i, 2.5),
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_arguments_of_the_wrong_kind(name: str) -> None:
    sch = product()
    before = sch.func
    with pytest.raises(ScheduleError, match="cannot"):
        BAD_STEPS[name](sch, sch.get_loops("C")[0])
    assert sch.func is before


def test_whole_numbers_of_numpy_are_factors() -> None:
    sch = product()
    outer, inner = sch.split(sch.get_loops("C")[0], [None, np.int64(4)])
    assert (sch.get_extent(outer), sch.get_extent(inner)) == (16, 4)
    Trace.from_json(sch.trace.as_json()).replay(product())


def good_trace() -> dict:
    sch = product()
    sch.split(sch.get_loops("C")[0], [None, 4])
    return json.loads(sch.trace.as_json())


def changed(place: list, value: object) -> str:
    data = good_trace()
    at = data
    for p in place[:-1]:
        at = at[p]
    at[place[-1]] = value
    return json.dumps(data)


SPLIT = ["steps", 1]
HOSTILE = {
    "unknown handle": changed([*SPLIT, 1, 0], {"handle": "nobody"}),
    "handle is a list": changed([*SPLIT, 1, 0], {"handle": [1]}),
    "no handle": changed([*SPLIT, 1, 0], {"hand": "i"}),
    "method is a list": changed([*SPLIT, 0], ["split"]),
    "unknown method": changed([*SPLIT, 0], "__class__"),
    "too few arguments": changed([*SPLIT, 1], []),
    "factors are a number": changed([*SPLIT, 1, 1], 5),
    "factors are nothing": changed([*SPLIT, 1, 1], None),
    "results are a number": changed([*SPLIT, 2], 7),
    "result is a list": changed([*SPLIT, 2, 0], [1]),
    "another shape": changed([*SPLIT, 3], "several"),
    "fewer results": changed([*SPLIT, 2], ["i_0"]),
    "many of nothing": changed(["steps", 0, 3], "none"),
    "deep": "[" * 100_000,
    "version as text": changed(["version"], "1"),
    "version missing": "{}",
    "a list": "[]",
    "steps are a number": changed(["steps"], 3),
    "nothing": "",
}


SAID = {
    "unknown handle": "no step before it made 'nobody'",
    "unknown method": "the trace calls '__class__'",
    "too few arguments": "cannot replay",
    "factors are a number": "it takes a sequence",
    "factors are nothing": "it takes a sequence",
    "many of nothing": "is no loop",
    "another shape": "results .* as 'several'",
    "fewer results": "it gave 2 results here",
    "version as text": "a trace of version '1'",
}
"""What the refusal says; of all others, that the text is no trace."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_trace_is_refused(name: str) -> None:
    if name == "many of nothing":
        Trace.from_json(HOSTILE[name])  # loops that nobody names are not an error until they are used
    with pytest.raises(ScheduleError, match=SAID.get(name, "the text is not a schedule trace")):
        Trace.from_json(HOSTILE[name]).replay(product())


def test_a_map_of_three_thousand_signs_is_refused() -> None:
    with pytest.raises(ScheduleError, match="is no index map"):
        product().transform_layout("C", "C", f"lambda i, j: ({'-' * 3000}i, j)")


@pytest.mark.parametrize("n", [48, 64])
def test_a_product_unrolled_as_a_whole_is_refused(n: int) -> None:
    sch = product(n)
    i, j, k = sch.get_loops("C")
    sch.unroll(k)
    sch.unroll(j)
    with pytest.raises(ScheduleError, match=rf"block C would become {n**3} instructions or more, above 32768"):
        sch.unroll(i)


def test_lanes_of_costly_functions_count() -> None:
    a = te.placeholder((64, 1024), name="A")
    sch = Schedule(te.create_prim_func([a, te.compute((64, 1024), lambda i, j: te.exp(a[i, j]), name="C")], "many"))
    i, j = sch.get_loops("C")
    sch.vectorize(j)
    with pytest.raises(ScheduleError, match=r"\d+ instructions or more"):
        sch.unroll(i)
    sch = Schedule(sch.history[0][1])
    sch.unroll(i)
    with pytest.raises(ScheduleError, match=r"\d+ instructions or more"):
        sch.vectorize(j)


def test_sixteen_reversed_axes_fuse_and_run_in_parallel() -> None:
    a = te.placeholder((2,) * 16, name="A")
    sch = Schedule(
        te.create_prim_func([a, te.compute((2,) * 16, lambda *i: a[tuple(1 - x for x in i)], name="C")], "flip")
    )
    sch.parallel(sch.fuse(*sch.get_loops("C")))
    x = np.arange(1 << 16, dtype="float32").reshape((2,) * 16)
    assert np.array_equal(tcomp.compile(sch)(x), np.flip(x))


def test_sixteen_loops_in_reverse_order_fuse_and_run_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is the digits of the fused loop, last digit first: no question for integer sets, which take minutes."""
    a = te.placeholder((2,) * 16, name="A")
    func = te.create_prim_func([a, te.compute((2,) * 16, lambda *i: a[i] + 1.0, name="C")])
    sch = Schedule(func)
    loops = sch.get_loops("C")[::-1]
    sch.reorder(*loops)
    fused = sch.fuse(*loops)
    with monkeypatch.context() as patch:
        patch.setattr(dependence, "_conflict", None)
        sch.parallel(fused)
    x = np.arange(1 << 16, dtype="float32").reshape((2,) * 16)
    assert np.array_equal(tcomp.compile(sch)(x), x + 1)


@pytest.mark.parametrize("width", [4, 8])
def test_digits_of_two_systems_tell_no_iterations_apart(width: int) -> None:
    """B[i // 4, i % 4] and B[i // 8, i % 8] are one element for two values of i."""
    n = const(32)
    a, b, c = Buffer("A", (n,), float32), Buffer("B", (const(8), const(8)), float32), Buffer("C", (n,), float32)
    i, v, w = Var("i"), Var("v"), Var("w")
    fill = Block("W", (IterVar(v, n, "spatial", i),), Store(b, (v // 4, v % 4), Load(a, (v,))))
    read = Block("R", (IterVar(w, n, "spatial", i),), Store(c, (w,), Load(b, (w // width, w % width))))
    sch = Schedule(PrimFunc("digits", (a, b, c), For(i, n, seq([fill, read])), 2))
    if width == 4:
        sch.parallel(sch.get_loops("W")[0])
    else:
        with pytest.raises(
            ScheduleError, match="block W at i=.* writes and block R at i=.* reads the same element of B"
        ):
            sch.parallel(sch.get_loops("W")[0])


def test_the_limit_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCOMP_CODE_LIMIT", "10")
    tcomp.config.config.cache_clear()
    try:
        with pytest.raises(ScheduleError, match="64 instructions or more, above 10"):
            sch = product()
            sch.unroll(sch.get_loops("C")[0])
    finally:
        monkeypatch.undo()
        tcomp.config.config.cache_clear()


def test_buffers_beyond_memory_are_refused() -> None:
    n = 1 << 20
    a = te.placeholder((n,), name="A")
    b = te.compute((n, n), lambda i, j: a[i] + a[j], name="B")
    func = te.create_prim_func([a, te.compute((n,), lambda i: b[i, i], name="C")], "large")
    with pytest.raises(UnsupportedError, match="buffer B would take 4096 GiB"):
        tcomp.compile(Schedule(func))


def test_strides_beyond_memory_are_refused() -> None:
    a = te.placeholder((64, 64), name="A")
    b = te.compute((64, 64), lambda i, j: a[i, j] * 2.0, name="B")
    sch = Schedule(te.create_prim_func([a, te.compute((64, 64), lambda i, j: b[j, i], name="C")], "aligned"))
    with pytest.raises((ScheduleError, UnsupportedError), match="buffer B would take|elements apart"):
        sch.storage_align("B", "B", 0, 2**40, 1)
        tcomp.compile(sch)
