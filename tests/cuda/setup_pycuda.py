"""Installs what the CUDA target's tests need into this environment: nvcc, and pycuda, which is built against a stub of the driver's library.

A toolkit that is installed is used; else NVIDIA's compiler comes from its wheels. No GPU and no driver are needed: on a machine that has
them, pycuda finds the real library when it runs.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "13.0.*"
"""Drivers of the 580 series load code of CUDA 13.0, and of nothing newer."""
WHEELS = (
    "nvidia-cuda-nvcc",
    "nvidia-cuda-cccl",
    "nvidia-cuda-runtime",
    "nvidia-nvvm",
    "nvidia-cuda-crt",
    "nvidia-cuda-profiler-api",
)
OWN_BIN = Path(sys.executable).parent


def pip(*words: str, **more: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **more})
    if done.returncode:  # of thousands of lines the last ones tell
        raise SystemExit("\n".join((done.stdout + done.stderr).splitlines()[-25:]))


def installed_toolkit() -> Path | None:
    """The root of the toolkit whose nvcc is found, if it has the driver's header."""
    if shutil.which("nvcc") is None:
        return None
    told = subprocess.run(
        ["nvcc", "--dryrun", "-x", "cu", os.devnull, "-o", os.devnull], capture_output=True, text=True
    )
    here = re.search(r"_HERE_=(\S+)", told.stderr + told.stdout)
    root = Path(here[1]).parent if here else None
    return root if root is not None and (root / "include" / "cuda.h").is_file() else None


def wheels_toolkit() -> Path:
    """The root of a toolkit made of wheels; a script beside Python calls its nvcc."""
    pip(*(f"{name}=={VERSION}" for name in WHEELS))
    found = [p for folder in site.getsitepackages() for p in Path(folder).glob("nvidia/*/bin/nvcc")]
    if not found:
        raise SystemExit("the wheels hold no nvcc")
    script = OWN_BIN / "nvcc"
    script.write_text(f'#!/bin/sh\nexec "{found[0]}" "$@"\n')
    script.chmod(0o755)
    return found[0].parent.parent


def build_stub(root: Path, folder: Path) -> None:
    """A libcuda.so that has every function of the driver's header: pycuda is linked against it, and never run with it."""
    header = (root / "include" / "cuda.h").read_text(encoding="utf-8")
    names = {n for n in re.findall(r"\bcu[A-Z]\w+", header) if not n.endswith("_st")}
    names |= {"cuProfilerInitialize", "cuProfilerStart", "cuProfilerStop"}
    (folder / "stub.c").write_text("\n".join(f"int {n}(void) {{ return 100; }}" for n in sorted(names)))
    words = ["gcc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so")]
    subprocess.run([*words, str(folder / "stub.c")], check=True)


def main() -> None:
    root = installed_toolkit() or wheels_toolkit()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_stub(root, folder)
        settings = {
            "CUDA_ROOT": str(root),
            "CUDA_INC_DIR": [str(root / "include")],
            "CUDADRV_LIB_DIR": [str(folder)],
            "CUDA_ENABLE_CURAND": False,
        }
        # pycuda's setup reads this file alone, and guesses where it is missing
        (folder / ".aksetup-defaults.py").write_text("".join(f"{k} = {v!r}\n" for k, v in settings.items()))
        pip("pycuda>=2024.1", HOME=name, MAKEFLAGS="-j2")


if __name__ == "__main__":
    main()
