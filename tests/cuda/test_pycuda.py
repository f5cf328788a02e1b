"""The host's side, unmodified pycuda included: a driver that runs launches on the emulator, and a compiler that makes what it loads."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FAKES = Path(__file__).parent
SCRIPT = """
import ctypes, sys
ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
import numpy as np, tcomp
from tcomp.errors import OutOfMemoryError
from tcomp.runtime.device.cuda import CudaDriver

g = tcomp.GraphBuilder()
w = np.random.default_rng(0).standard_normal((40, 30)).astype("float32")
module = g.build(g.softmax(g.relu(g.matmul(g.input("x", (20, 40)), g.constant(w)))))
x = np.random.default_rng(1).standard_normal((20, 40)).astype("float32")
exe = tcomp.compile(module, target="cuda")
want = tcomp.compile(module, target="reference")(x)
for _ in range(2):
    assert np.abs(exe(x) - want).max() < 1e-6
there = exe(exe.on_device(x))
assert np.array_equal(there.numpy(), exe(x)) and there.__cuda_array_interface__["shape"] == (20, 30)
captured = exe.graph(x)
for scale in (1, -2):
    assert np.array_equal(captured(x * np.float32(scale)).numpy(), exe(x * np.float32(scale)))
assert len(exe.profile(x, repeat=2).rows) == len(exe.program.kernels)
target = tcomp.Target.parse("cuda")
assert (target.arch, target.sms, target.device) == ("sm_80", 46, 0), target
try:
    CudaDriver(0, "sm_80").allocate(1 << 40)
    raise SystemExit("more memory than there is")
except OutOfMemoryError as error:
    assert "1099511627776 bytes on GPU 0" in str(error) and "are free" in str(error)
print("right")
"""


def driver_library() -> Path:
    """pycuda's own shared library."""
    spec = importlib.util.find_spec("pycuda")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("_driver*.so"))


@pytest.mark.skipif(importlib.util.find_spec("pycuda") is None, reason="pycuda is not installed")
def test_a_program_from_model_to_result(tmp_path: Path) -> None:
    source = (FAKES / "fake_driver.c").read_text()
    needed = subprocess.run(
        ["nm", "-D", "--undefined-only", str(driver_library())], capture_output=True, text=True, check=True
    )
    names = set(re.findall(r"\bU (cu[A-Z]\w+)", needed.stdout)) - set(re.findall(r"^int (cu\w+)\(", source, re.M))
    text = "\n".join([source, *(f"int {name}(void) {{ return 100; }}" for name in sorted(names))])
    (tmp_path / "driver.c").write_text(text)
    library = tmp_path / "libcuda.so.1"
    words = [
        "gcc",
        "-shared",
        "-fPIC",
        "-w",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        str(library),
        str(tmp_path / "driver.c"),
        "-ldl",
    ]
    subprocess.run(words, check=True)
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKES / "fake_nvcc.py"}" "$@"\n')
    nvcc.chmod(0o755)
    paths = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = {**os.environ, "PATH": paths, "LD_LIBRARY_PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(library)], capture_output=True, text=True, env=environment)
    assert done.stdout == "right\n", done.stderr
