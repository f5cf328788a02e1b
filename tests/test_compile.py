"""compile() and Executable: what a user can do, and what bad input is told."""

import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import InputError, InternalError, ScheduleError, TargetError, TcompError, UnsupportedError
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.runtime.device.cpu import load_objects
from tcomp.target import Target

R = np.random.default_rng(3)
W = R.standard_normal((8, 5)).astype("float32")


def model() -> tcomp.IRModule:
    g = GraphBuilder()
    x, b = g.input("x", (4, 8)), g.input("b", (5,))
    y = g.add(g.matmul(x, g.constant(W)), b)
    return g.build(g.relu(y), g.softmax(y))


X, B = R.standard_normal((4, 8)).astype("float32"), R.standard_normal(5).astype("float32")


@pytest.fixture(scope="module")
def exe() -> tcomp.Executable:
    return tcomp.compile(model())


def test_executables_in_cycles_are_freed_safely() -> None:
    """As an exception that is kept makes them: its frames hold the executable, and the executable's frame holds it."""
    code = """
import gc, weakref, numpy as np, tcomp
gc.disable()
g = tcomp.GraphBuilder()
module = g.build(g.exp(g.input("x", (5, 7))))
for _ in range(30):
    for n in range(4):
        exe = tcomp.compile(module)
        exe(np.ones((5, 7), np.float32))
        exe.me = exe
        alive = weakref.ref(exe)
    del exe
    gc.collect()
    assert alive() is None
print("freed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "freed\n", done.stderr


def test_results_by_position_and_by_name(exe: tcomp.Executable) -> None:
    y, s = exe(X, B)
    want = evaluate(model(), [X, B], exact=True)
    assert np.allclose(y, want[0], atol=1e-5) and np.allclose(s, want[1], atol=1e-5)
    for again in (exe(X, b=B), exe(x=X, b=B)):
        assert np.array_equal(again[0], y)


def test_outputs_can_be_written_in_place(exe: tcomp.Executable) -> None:
    out = [np.empty((4, 5), "float32"), np.empty((4, 5), "float32")]
    result = exe(X, B, out=out)
    assert result[0] is out[0] and np.array_equal(out[0], exe(X, B)[0])


def test_dlpack_and_buffers_are_read_in_place(exe: tcomp.Executable) -> None:
    class Exported:
        def __dlpack__(self, **kwargs: object) -> object:
            return X.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> tuple:
            return X.__dlpack_device__()

    want = exe(X, B)[0]
    assert np.array_equal(exe(Exported(), B)[0], want)
    assert np.array_equal(exe(X, memoryview(B))[0], want)
    torch = pytest.importorskip("torch")
    assert np.array_equal(exe(torch.from_numpy(X), torch.from_numpy(B))[0], want)


def test_many_threads_call_one_executable(exe: tcomp.Executable) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((4, 8)).astype("float32")
        want = np.maximum(x @ W + B, 0)
        for _ in range(100):
            if not np.allclose(exe(x, B)[0], want, atol=1e-4):
                wrong.append(seed)

    callers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert not wrong


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e(X), "input 'b' is missing"),
        (lambda e: e(X, B, B), "3 arguments given"),
        (lambda e: e(X, B, b=B), "given twice"),
        (lambda e: e(X, B, z=B), "'z' is unknown"),
        (lambda e: e(X.astype("float64"), B), "dtype float64.*expected x: float32"),
        (lambda e: e(X[:3], B), "axis 0 differs"),
        (lambda e: e(X[0], B), "shape \\[8\\].*expected x: float32\\[4, 8\\]"),
        (lambda e: e(np.asfortranarray(X), B), "not C-contiguous"),
        (lambda e: e(np.repeat(X, 2, 0)[::2], B), "not C-contiguous"),
        (lambda e: e([[1.0]], B), "is no array"),
        (lambda e: e(X, B, out=np.empty((4, 5), "float32")), "1 output arrays given"),
        (lambda e: e(X, B, out=[np.empty((4, 5)), np.empty((4, 5))]), "does not fit"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(exe: tcomp.Executable, call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(exe)


def test_bad_models_and_targets() -> None:
    with pytest.raises(UnsupportedError, match="cannot compile a list"):
        tcomp.compile([1, 2])
    for bad in ("gpu", "llvm -mcpu=abacus", "llvm -speed=11", "cpu -num-cores=0", 7, "llvm -mtriple=vax-dec-ultrix"):
        with pytest.raises(TargetError):
            tcomp.compile(model(), target=bad)
    with pytest.raises(TcompError, match="no kernel 'nothing'"):
        tcomp.compile(model(), schedules={"nothing": lambda sch: None})
    with pytest.raises(TcompError, match="damaged"):
        load_objects([b"not an object"])


def test_other_targets_compute_the_same() -> None:
    want = tcomp.compile(model())(X, B)[0]
    for target in ("llvm -mcpu=haswell -num-cores=1", "llvm -mcpu=x86-64", "cpu -mattr=-avx512f"):
        if Target.parse("cpu").triple.startswith("x86_64"):
            assert np.allclose(tcomp.compile(model(), target=target)(X, B)[0], want, atol=1e-5)
    assert Target.parse("llvm -mcpu=skylake-avx512").vector_bytes == 64
    assert Target.parse("llvm -mcpu=haswell").vector_bytes == 32
    assert Target.parse("cpu -num-cores=7").num_cores == 7


def test_every_stage_prints(exe: tcomp.Executable) -> None:
    assert "packed_matmul(x, const" in exe.ir("graph") and "@packed_matmul_add" in exe.ir("fused")
    assert "block matmul" in exe.ir("loops") and "rule:" in exe.ir("scheduled")
    assert "define void" in exe.ir("llvm") and "ret" in exe.ir("asm")
    name = exe.program.kernels[0].name
    assert exe.ir("loops", name).count("def ") == 1
    with pytest.raises(TcompError, match="no stage"):
        exe.ir("sources")
    with pytest.raises(TcompError, match="no kernel"):
        exe.ir("loops", "nothing")


def test_a_default_schedule_is_code_that_a_user_can_change(exe: tcomp.Executable) -> None:
    name = next(k.name for k in exe.program.kernels if k.name.startswith("packed_matmul"))
    code = exe.schedule(name)
    assert code.startswith("sch.") or "= sch." in code
    called = []

    def mine(sch: tcomp.Schedule) -> None:
        exec(code, {"sch": sch})
        called.append(str(sch.trace))

    again = tcomp.compile(model(), schedules={name: mine})
    assert called and np.array_equal(again(X, B)[0], exe(X, B)[0])
    assert "rule: given" in again.ir("scheduled", name)
    with pytest.raises(ScheduleError):
        tcomp.compile(model(), schedules={name: lambda sch: sch.parallel(sch.get_loops("matmul")[-1])})


def test_time_profile_and_memory(exe: tcomp.Executable) -> None:
    timing = exe.time(X, B, repeat=5)
    assert timing.best <= timing.median <= timing.worst and len(timing.seconds) == 5
    profile = exe.profile(X, B, repeat=2)
    assert len(profile.rows) == exe.num_kernels and "GFLOP/s" in str(profile)
    assert profile.rows[0].flops >= 2 * 4 * 8 * 5 and exe.memory.constants >= W.nbytes
    assert "workspace" in str(exe.memory) and "x: float32[4, 8]" in repr(exe)


def test_results_that_are_inputs_constants_or_repeated() -> None:
    g = GraphBuilder()
    x = g.input("x", (2, 3))
    c = g.constant(np.arange(6, dtype="float32"))
    y = g.relu(x)
    exe = tcomp.compile(g.build(x, c, y, y, g.reshape(y, shape=(6,))))
    v = R.standard_normal((2, 3)).astype("float32")
    a, b, y1, y2, flat = exe(v)
    assert np.array_equal(a, v) and np.array_equal(b, np.arange(6))
    assert np.array_equal(y1, np.maximum(v, 0)) and np.array_equal(y2, y1) and np.array_equal(flat, y1.ravel())


def test_large_constants_do_not_travel_through_llvm() -> None:
    g = GraphBuilder()
    big = R.standard_normal((300, 400)).astype("float32")
    exe = tcomp.compile(g.build(g.matmul(g.input("x", (2, 300)), g.constant(big))))
    assert len(exe.ir("llvm")) < 200_000
    x = R.standard_normal((2, 300)).astype("float32")
    assert np.allclose(exe(x), x @ big, atol=1e-3)


def test_verify_levels_and_dumps(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from tcomp.config import config

    monkeypatch.setenv("TCOMP_VERIFY", "2")
    monkeypatch.setenv("TCOMP_DUMP", str(tmp_path))
    config.cache_clear()
    try:
        tcomp.compile(model())
        dumps = sorted(p.name for p in tmp_path.iterdir())
        assert any("FuseOps.txt" in d for d in dumps) and any(d.endswith("FuseOps.py") for d in dumps)
        monkeypatch.setenv("TCOMP_CACHE", "0")  # a cached kernel is not lowered, so there is nothing to dump
        config.cache_clear()
        tcomp.compile(model())
        assert any("unroll_loops.py" in p.name for p in tmp_path.iterdir())
        for bad in ("3", "x"):
            monkeypatch.setenv("TCOMP_VERIFY", bad)
            config.cache_clear()
            with pytest.raises(TcompError, match="TCOMP_VERIFY"):
                config()
    finally:
        monkeypatch.undo()
        config.cache_clear()


def test_a_defect_of_code_generation_is_an_internal_error_with_a_reproducer(monkeypatch: pytest.MonkeyPatch) -> None:
    from tcomp.codegen.llvm import generator

    monkeypatch.setattr(generator.llvm_kernel, "kernel_module", lambda *a: "define nonsense")
    a = te.placeholder((6,), name="A")
    f = te.create_prim_func([a, te.compute((6,), lambda i: a[i] * 12345.0, name="out")], "broken")
    with pytest.raises(InternalError, match="cannot generate code for kernel broken") as error:
        tcomp.compile(f)
    assert "python -m tcomp.tools opt" in str(error.value)


def test_importing_tcomp_is_cheap() -> None:
    import subprocess
    import sys

    code = (
        "import sys, tcomp; assert 'numpy' not in sys.modules and 'llvmlite' not in sys.modules; print(dir(tcomp)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'compil'"):
        tcomp.compil  # noqa: B018


def test_the_memory_of_a_large_result_is_used_again_only_when_nobody_refers_to_it() -> None:
    g = GraphBuilder()
    exe = tcomp.compile(g.build(g.relu(g.input("x", (300, 300)))))
    one, two = np.full((300, 300), 1, "float32"), np.full((300, 300), 2, "float32")
    first = exe(one)
    part = exe(two)[3:5, 7:9]  # a view keeps the memory of its array
    third = exe(one)
    assert (first == 1).all() and (part == 2).all() and (third == 1).all()
    address = third.ctypes.data
    del third
    again = exe(two)
    assert again.ctypes.data == address and address % 64 == 0
    assert (first == 1).all() and (part == 2).all() and (again == 2).all()


def test_results_of_concurrent_calls_have_memory_of_their_own() -> None:
    g = GraphBuilder()
    exe = tcomp.compile(g.build(g.multiply_scalar(g.input("x", (256, 256)), scalar=2.0)), num_threads=1)

    def check(i: int) -> bool:
        got = [exe(np.full((256, 256), i + n, "float32")) for n in range(20)]
        return all((a == 2 * (i + n)).all() for n, a in enumerate(got))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(0, 400, 50)))


def test_a_large_weight_is_there_twice_and_not_more_often(rng: np.random.Generator) -> None:
    """As the caller has it, and packed."""
    w = rng.random((2048, 2048), np.float32)
    g = tcomp.GraphBuilder()
    graph = g.build(g.matmul(g.input("x", (1, 2048)), g.constant(w)))
    tcomp.compile(graph)  # what is imported and compiled once
    tracemalloc.start()
    try:
        exe = tcomp.compile(graph)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < 1.25 * w.nbytes and peak < 1.5 * w.nbytes
    x = rng.random((1, 2048), np.float32)
    np.testing.assert_allclose(exe(x), x @ w, rtol=1e-4)


def test_constants_are_those_of_the_time_of_compiling(rng: np.random.Generator) -> None:
    for offset in range(0, 64, 4):  # aligned by chance or not
        raw = np.zeros(4 * 40 + 64, np.uint8)
        b = raw[offset : offset + 160].view(np.float32)
        b[:] = 1.0
        g = tcomp.GraphBuilder()
        exe = tcomp.compile(g.build(g.add(g.input("x", (3, 40)), g.constant(b))))
        view = b.view()  # that it cannot be written to tells nothing of what it is a view of
        view.flags.writeable = False
        g = GraphBuilder()
        viewed = tcomp.compile(g.build(g.add(g.input("x", (3, 40)), g.constant(view))))
        b[:] = 5.0
        assert (exe(np.zeros((3, 40), np.float32)) == 1.0).all()
        assert (viewed(np.zeros((3, 40), np.float32)) == 1.0).all()
