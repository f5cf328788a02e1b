"""The thread pool: nested, concurrent, after fork, oversubscribed, at exit, beside other pools."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import TcompError
from tcomp.runtime import threads
from tcomp.schedule import Schedule


def parallel_kernel(rows: int = 64, columns: int = 257) -> tcomp.Executable:
    a = te.placeholder((rows, columns), name="A")
    out = te.compute((rows, columns), lambda i, j: a[i, j] * 2.0 + 1.0, name="out")
    sch = Schedule(te.create_prim_func([a, out], f"par{rows}"))
    sch.parallel(sch.get_loops("out")[0])
    return tcomp.compile(sch)


X = np.random.default_rng(0).standard_normal((64, 257)).astype("float32")


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
def test_any_number_of_threads(count: int) -> None:
    exe = parallel_kernel()
    exe.num_threads = count
    for _ in range(50):
        assert np.array_equal(exe(X), X * 2 + 1)


def test_many_regions_in_a_row() -> None:
    exe = parallel_kernel()
    exe.num_threads = 4
    out = np.empty_like(X)
    for turn in range(3000):
        exe(X, out=out)
        if turn % 500 == 0:
            time.sleep(0.01)  # long enough for workers to fall asleep
            assert np.array_equal(out, X * 2 + 1)


def test_nested_regions_run_serially() -> None:
    a = te.placeholder((16, 64), name="A")
    out = te.compute((16, 64), lambda i, j: a[i, j] + 1.0, name="out")
    sch = Schedule(te.create_prim_func([a, out], "nested"))
    i, j = sch.get_loops("out")
    sch.parallel(i)
    sch.parallel(j)
    exe = tcomp.compile(sch)
    exe.num_threads = 4
    x = X[:16, :64].copy()
    for _ in range(100):
        assert np.array_equal(exe(x), x + 1)


def test_concurrent_callers_share_or_run_serially() -> None:
    exe = parallel_kernel()
    exe.num_threads = 3
    failures: list[int] = []

    def work(seed: int) -> None:
        x = np.full_like(X, seed)
        for _ in range(200):
            if not np.array_equal(exe(x), x * 2 + 1):
                failures.append(seed)

    callers = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for t in callers:
        t.start()
    for t in callers:
        t.join(60)
    assert not failures and not any(t.is_alive() for t in callers)


def _child(queue: object) -> None:
    exe = parallel_kernel()
    exe.num_threads = 4
    queue.put(bool(np.array_equal(exe(X), X * 2 + 1)))


def test_a_forked_child_makes_threads_of_its_own() -> None:
    exe = parallel_kernel()
    exe.num_threads = 4
    exe(X)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) is True
    child.join(60)
    assert child.exitcode == 0
    assert np.array_equal(exe(X), X * 2 + 1)


def _run(code: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, **env}
    )


_PREPARE = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_threads import *; exe = parallel_kernel(); exe.num_threads = 4; "


def test_the_interpreter_exits_cleanly_with_sleeping_and_spinning_workers() -> None:
    for pause in ("", "time.sleep(0.2); "):
        done = _run(_PREPARE + f"exe(X); {pause}print('end')")
        assert done.returncode == 0 and done.stdout.strip() == "end", done.stderr


def test_threads_from_the_environment() -> None:
    done = _run(
        _PREPARE.replace("exe.num_threads = 4", "exe.num_threads = None") + "exe(X); print(threads.get_num_threads())",
        TCOMP_NUM_THREADS="3",
    )
    assert done.stdout.strip() == "3", done.stderr
    assert (
        "TCOMP_NUM_THREADS"
        in _run(
            "import tcomp; tcomp.compile; from tcomp.config import config; config()", TCOMP_NUM_THREADS="many"
        ).stderr
    )


def test_beside_numpy_and_torch() -> None:
    exe = parallel_kernel()
    big = np.ones((256, 256), "float32")
    torch = pytest.importorskip("torch") if "torch" in sys.modules else None
    for _ in range(20):
        assert (big @ big)[0, 0] == 256
        if torch is not None:
            assert float((torch.ones(64, 64) @ torch.ones(64, 64))[0, 0]) == 64
        assert np.array_equal(exe(X), X * 2 + 1)


def test_with_torch_in_the_same_process() -> None:
    pytest.importorskip("torch")
    code = _PREPARE + (
        "import torch\nfor _ in range(50):\n  assert float((torch.ones(128, 128) @ torch.ones(128, 128))[0, 0]) == 128\n"
        "  assert np.array_equal(exe(X), X * 2 + 1)\nprint('end')"
    )
    done = _run(code)
    assert done.returncode == 0 and done.stdout.strip() == "end", done.stderr


def test_bad_thread_counts_are_refused() -> None:
    exe = parallel_kernel()
    for bad in (0, -1, 1025, "two", True, 2.0):
        with pytest.raises(TcompError, match="cannot use"):
            threads.set_num_threads(bad)
        with pytest.raises(TcompError, match="cannot use"):
            exe.num_threads = bad


@pytest.mark.parametrize("count", [1, 257, 1024])
def test_as_many_threads_as_a_large_server_has(count: int) -> None:
    code = (
        f"import os; os.sched_getaffinity = lambda pid: set(range({count})); "
        + _PREPARE.replace("exe.num_threads = 4", "exe.num_threads = None")
        + "big = parallel_kernel(4096, 16); x = np.ones((4096, 16), 'float32')\n"
        "for _ in range(5): assert (big(x) == 3).all()\nprint(threads.get_num_threads())"
    )
    done = _run(code)
    assert done.returncode == 0 and done.stdout.strip() == str(count), done.stderr


def test_more_cores_than_slots_are_not_all_used() -> None:
    code = "import os; os.sched_getaffinity = lambda pid: set(range(5000)); " + _PREPARE.replace(
        "exe.num_threads = 4", "exe.num_threads = None"
    )
    done = _run(code + "exe(X); print(threads.get_num_threads())")
    assert done.returncode == 0 and done.stdout.strip() == "1024", done.stderr


def test_each_calling_thread_has_its_own_number_of_threads() -> None:
    """Executables of different num_threads, called from two threads at once, do not change each other's."""
    code = (
        _PREPARE
        + """
import os
one, two = parallel_kernel(63), parallel_kernel(65)
one.num_threads, two.num_threads = 1, 3
def work(exe, rows):
    x = np.ones((rows, 257), 'float32')
    for _ in range(300):
        assert (exe(x) == 3).all()
before = len(os.listdir('/proc/self/task'))
work(one, 63)
assert len(os.listdir('/proc/self/task')) == before, 'a serial executable started workers'
callers = [threading.Thread(target=work, args=a) for a in ((one, 63), (two, 65))]
[t.start() for t in callers]; [t.join() for t in callers]
for _ in range(200):  # ended threads go a little later
    if len(os.listdir('/proc/self/task')) <= before + 2: break
    time.sleep(0.01)
else:
    raise AssertionError('more threads than the largest executable may use')
assert threads.get_num_threads() == threads.default_num_threads()
print('end')
"""
    )
    done = _run(code)
    assert done.returncode == 0 and done.stdout.strip() == "end", done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
def test_a_woken_worker_keeps_off_the_callers_core() -> None:
    if threads.usable_cores() < 2:
        pytest.skip("one core")
    script = """
import os, sys, time
import numpy as np, tcomp
g = tcomp.GraphBuilder()
exe = tcomp.compile(g.build(g.exp(g.input("x", (1 << 20,)))), num_threads=2)
x = np.zeros(1 << 20, "float32")
own = os.sched_getaffinity(0)
for _ in range(100):  # on a busy machine the worker may not have slept
    exe(x)
    time.sleep(0.05)
    masks = [os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task")]
    if any(m < own and len(m) == len(own) - 1 for m in masks):
        break
else:
    raise AssertionError(masks)
assert os.sched_getaffinity(0) == own
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_threads_are_set_once_there_is_a_pool() -> None:
    done = _run("from tcomp.runtime import threads\nthreads.set_num_threads(2)")
    assert "TcompError: no thread pool yet" in done.stderr
