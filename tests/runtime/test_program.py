"""Programs as data: written down and read again, refused where they are damaged; the runtime without a compiler."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import TcompError
from tcomp.runtime.extents import checked_code
from tcomp.runtime.program import Program


def model() -> tcomp.IRModule:
    g = tcomp.GraphBuilder()
    x, index = g.input("x", (4, 6)), g.input("index", (3,), "int64")
    y = g.matmul(x, g.constant(np.ones((6, 5), np.float32), "w"))
    return g.build(g.take(y, index), g.softmax(y), x, updates={})


def symbolic() -> Any:
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n, 2 * m + 1), name="A")
    return te.create_prim_func([a, te.compute((n, 2 * m + 1), lambda i, j: a[i, j] + 1.0, name="B")], "grow")


def training() -> tcomp.IRModule:
    g = tcomp.GraphBuilder()
    p, x = g.input("p", (4, 6)), g.input("x", (4, 6))
    return g.build(g.subtract(p, x), updates={p: 0})


@pytest.mark.parametrize("make", [model, symbolic, training])
def test_written_down_and_read_again(make: Any) -> None:
    program = tcomp.compile(make(), denormals="flush").program
    again = Program.from_json(program.to_json(), program.constants)
    assert again == program and again.to_json() == program.to_json() and len(again.kernels) == len(program.kernels)
    assert all(str(a) == str(b) for a, b in zip(again.inputs + again.outputs, program.inputs + program.outputs))


def _broken(change: Any) -> str:
    data = json.loads(tcomp.compile(model()).program.to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version=1),
        lambda d: d.pop("steps"),
        lambda d: d.update(arena_bytes=-1),
        lambda d: d.update(arena_bytes=True),
        lambda d: d["inputs"][0].update(dtype="float31"),
        lambda d: d["inputs"][0].update(shape=[4, -6]),
        lambda d: d["inputs"][0].update(shape=[4, {"text": "n", "code": ["dim", 0]}]),
        lambda d: d["steps"][0]["arguments"][0].__setitem__(1, 99),
        lambda d: d["steps"][0]["arguments"][0].__setitem__(0, "stack"),
        lambda d: d["steps"][0]["arguments"].append(["arena", d["arena_bytes"]]),
        lambda d: d.update(updates=[[0, 7]]),
        lambda d: d.update(checks=[{"input": 9, "low": 0, "high": 1, "reader": "take"}]),
        lambda d: d.update(constants=[]),
        lambda d: d.update(scratch=[["x", {"text": "n", "code": ["import", 1, 2]}]]),
        lambda d: d.update(steps=3),
        lambda d: d.update(dims=[1]),
        lambda d: d["steps"].append({"copy": ["args", 0], "to": ["args", 1], "nbytes": -4}),
    ],
)
def test_damaged_programs_are_refused(change: Any) -> None:
    program = tcomp.compile(model()).program
    with pytest.raises(TcompError, match="cannot read the program"):
        Program.from_json(_broken(change), program.constants)


def test_a_text_that_is_no_program_is_refused() -> None:
    for text in ("", "[]", "{", "null", "[" * 100_000):
        with pytest.raises(TcompError, match="cannot read the program"):
            Program.from_json(text, ())
    program = tcomp.compile(model()).program
    with pytest.raises(TcompError, match="constants were given that are not those"):
        Program.from_json(program.to_json(), ())


@pytest.mark.parametrize("code", [None, "n", [], ["dim"], ["dim", 1], ["dim", True], ["+", 1], ["**", 1, 2], 1.5, True])
def test_codes_of_extents_are_checked(code: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        checked_code(code, 1)
    deep: Any = 1
    for _ in range(5000):
        deep = ["+", deep, 1]
    with pytest.raises(ValueError, match="expected"):
        checked_code(deep, 1)


WITHOUT_COMPILER = """
import sys
for name in ("llvmlite", "networkx", "islpy", "typer", "rich"):
    sys.modules[name] = None
import importlib, pkgutil
import tcomp.runtime
for m in pkgutil.walk_packages(tcomp.runtime.__path__, "tcomp.runtime."):
    importlib.import_module(m.name)
from tcomp.runtime.executable import Executable
from tcomp.runtime.device.cpu import CpuDevice
from tcomp.runtime.program import Program
import numpy as np, ctypes

class Doubles:
    device, lacking = CpuDevice(), ()
    def entry(self, program):
        def run(args, consts, arena, dims):
            x, y = (ctypes.c_size_t * 2).from_address(args)
            ctypes.c_float.from_address(y).value = 2 * ctypes.c_float.from_address(x).value
        return run

text = sys.stdin.read()
exe = Executable(Program.from_json(text, ()), Doubles())
print(exe(np.full((1,), 21, np.float32))[0], exe)
"""


def test_the_runtime_needs_no_compiler() -> None:
    g = tcomp.GraphBuilder()
    text = tcomp.compile(g.build(g.multiply_scalar(g.input("x", (1,)), scalar=2.0))).program.to_json()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER], input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("42.0 <Executable (x: float32[1]) -> result0: float32[1], 1 kernels>")
