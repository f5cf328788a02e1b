"""Arrays that stay on the GPU, those of other libraries, and runs that are captured; on the emulator, whose memory is this process's own."""

import ctypes
from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp.errors import InputError, UnsupportedError
from tcomp.ops import GraphBuilder
from tcomp.runtime.device.arrays import DeviceArray

EMULATOR = "cuda -device=emulator"


def twice(*shape: int, target: str = EMULATOR) -> tcomp.Executable:
    """relu(x) @ w, and its rows' sums."""
    g = GraphBuilder()
    w = np.random.default_rng(0).standard_normal((shape[-1], 6)).astype("float32")
    y = g.matmul(g.relu(g.input("x", shape)), g.constant(w))
    return tcomp.compile(g.build(y, g.op("sum", y, axes=(1,))), target=target)


class Foreign:
    """What another library has on a GPU."""

    def __init__(self, array: np.ndarray, strides: Any = None) -> None:
        self.array = array
        data = (array.ctypes.data, False)
        self.__cuda_array_interface__ = {"shape": array.shape, "typestr": array.dtype.str, "data": data, "strides": strides, "version": 3}  # fmt: skip


class Capsule:
    """The same through DLPack, which says that it is on a GPU."""

    def __init__(self, array: np.ndarray, device: int = 0) -> None:
        self.array, self.device = array, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self.array.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        if self.device < 0:
            raise RuntimeError("it needs its gradient")
        for at, value in ((8, 2), (12, self.device)):
            ctypes.c_int32.from_address(pointer(capsule, b"dltensor") + at).value = value
        return capsule


def test_results_stay_on_the_device(rng: np.random.Generator) -> None:
    exe = twice(5, 4)
    x = rng.standard_normal((5, 4)).astype("float32")
    want = exe(x)
    for given in (exe.on_device(x), Foreign(x), Capsule(x)):
        found = exe(given)
        assert all(isinstance(a, DeviceArray) for a in found)
        for a, b in zip(found, want):
            np.testing.assert_array_equal(a.numpy(), b)
            np.testing.assert_array_equal(np.asarray(a), b)
    again = exe(x=exe.on_device(x))[0]
    assert again.shape == (5, 6) and again.nbytes == 120 and again.__cuda_array_interface__["typestr"] == "<f4"
    assert not again.overlaps(found[0]) and again.overlaps(again)


def test_results_are_written_where_the_caller_wants_them(rng: np.random.Generator) -> None:
    exe = twice(5, 4)
    x = rng.standard_normal((5, 4)).astype("float32")
    out = [np.zeros((5, 6), "float32"), np.zeros(5, "float32")]
    found = exe(Foreign(x), out=[Foreign(a) for a in out])
    for a, mine, b in zip(found, out, exe(x)):
        np.testing.assert_array_equal(mine, b)
        assert a.address == mine.ctypes.data
    with pytest.raises(InputError, match="output arrays do not fit"):
        exe(Foreign(x), out=Foreign(out[0]))


@pytest.mark.parametrize("first", [1, 2, 4])
def test_arrays_that_begin_anywhere(first: int, rng: np.random.Generator) -> None:
    """Kernels take 16 bytes at once; what begins elsewhere is copied first, results back."""
    exe = twice(5, 4)
    memory, out = rng.standard_normal(24).astype("float32"), np.zeros(64, "float32")
    x = memory[first : first + 20].reshape(5, 4)
    results = Foreign(out[first : first + 30].reshape(5, 6)), Foreign(out[40 + first : 45 + first])
    exe(Foreign(x), out=results)
    for found, want in zip(results, exe(x.copy())):
        np.testing.assert_array_equal(found.array, want)
    np.testing.assert_array_equal(exe.graph(Foreign(x))()[0].numpy(), exe(x.copy())[0])
    assert not out[:first].any() and not out[first + 30 : 40 + first].any() and not out[45 + first :].any()


def test_what_does_not_fit_is_told(rng: np.random.Generator) -> None:
    exe = twice(5, 4)
    x = rng.standard_normal((5, 4)).astype("float32")
    with pytest.raises(InputError, match="has gaps"):
        exe(Foreign(x, strides=(4, 20)))
    with pytest.raises(InputError, match="has dtype float64"):
        exe(Foreign(x.astype("float64")))
    with pytest.raises(InputError, match=r"has shape \[5, 4, 1\]"):
        exe(Foreign(x[..., None]))
    with pytest.raises(InputError, match=r"has shape \[4, 5\]"):
        exe(Foreign(x.T.copy()))
    with pytest.raises(InputError, match=r"lies on GPU 1[\s\S]*runs on GPU 0"):
        exe(Capsule(x, 1))
    with pytest.raises(InputError, match=r"not handed out[\s\S]*RuntimeError: it needs its gradient"):
        exe(Capsule(x, -1))
    with pytest.raises(UnsupportedError, match="not compiled for a GPU"):
        twice(5, 4, target="cpu").graph(x)


def test_a_captured_run_is_repeated(rng: np.random.Generator) -> None:
    exe = twice(5, 4)
    first, second = (rng.standard_normal((5, 4)).astype("float32") for _ in range(2))
    captured = exe.graph(first)
    for x in (second, first):
        for given in (x, Foreign(x)):
            for a, b in zip(captured(given), exe(x)):
                np.testing.assert_array_equal(a.numpy(), b)
    held = captured()[0]
    np.testing.assert_array_equal(held.numpy(), exe(first)[0])
    captured(second)
    np.testing.assert_array_equal(held.numpy(), exe(second)[0])  # the same memory
    with pytest.raises(InputError, match=r"captured for \[5, 4\]"):
        captured(first[:4])
    with pytest.raises(InputError, match="has 1 inputs"):
        captured(first, first)


def test_symbolic_extents_and_scratch(rng: np.random.Generator) -> None:
    g = GraphBuilder()
    exe = tcomp.compile(g.build(g.softmax(g.input("x", (g.dim("n", max=40), 9)))), target=EMULATOR)
    for n in (3, 17):
        x = rng.standard_normal((n, 9)).astype("float32")
        np.testing.assert_array_equal(exe(Foreign(x)).numpy(), exe(x))
        np.testing.assert_array_equal(exe.graph(x)().numpy(), exe(x))


def test_indices_on_the_device_are_checked() -> None:
    g = GraphBuilder()
    exe = tcomp.compile(
        g.build(g.op("take", g.input("x", (4, 3)), g.input("i", (2,), "int64"), axis=0)), target=EMULATOR
    )
    x = np.arange(12, dtype="float32").reshape(4, 3)
    np.testing.assert_array_equal(exe(x, Foreign(np.array([3, 1]))).numpy(), x[[3, 1]])
    with pytest.raises(InputError, match="holds 4"):
        exe(x, Foreign(np.array([3, 4])))


def test_a_run_that_depends_on_its_values_is_not_captured() -> None:
    g = GraphBuilder()
    x, flag = g.input("x", (3,)), g.input("flag", (), "bool")
    exe = tcomp.compile(g.build(g.cond(flag, lambda b: b.relu(x), lambda b: b.add(x, x))), target=EMULATOR)
    with pytest.raises(UnsupportedError, match="depends on values"):
        exe.graph(np.zeros(3, "float32"), np.array(True))
