"""What NVIDIA's compiler makes of CUDA C, for people to read: PTX, SASS, registers and spills. It needs no GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...errors import InternalError, TargetError
from ...target.cuda import WARP, CudaTarget

REGISTER_GRAIN = 256
"""Registers are given to warps in such portions."""
MOST_BLOCKS = 32
"""Of an SM, at once."""
_TOLD = re.compile(
    r"entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?", re.S
)
_SECTION = re.compile(r"\s*\.section\s+\.text\.(\w+)")
_ACCESS = re.compile(r"\b(?:LDG|STG)((?:\.[A-Z0-9_]+)*)\b")
_BYTES = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
"""What the names of loads and stores say of their width; nothing means 4 bytes."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a function takes: registers of a thread, bytes of it that are spilled, bytes of shared memory that its code declares."""

    registers: int
    spilled: int
    shared: int


def tool(name: str) -> str:
    """A program of the CUDA toolkit.

    Raises:
        TargetError: it is not installed.
    """
    wheels = [p for folder in sys.path for p in Path(folder).glob(f"nvidia/*/bin/{name}")]
    own = shutil.which(name, path=str(Path(sys.executable).parent))
    found = shutil.which(name) or own or next(map(str, wheels), None)
    if found is None:
        raise TargetError(
            f"there is no {name} to ask", hint="a CUDA toolkit, or its wheels: nvidia-cuda-nvcc, nvidia-cuda-nvdisasm"
        )
    return found


@lru_cache(maxsize=16)
def _compiled(source: str, arch: str, form: str) -> tuple[bytes, str]:
    """A source as "ptx" or "cubin", and what the compiler tells of it."""
    with tempfile.TemporaryDirectory(prefix="tcomp") as folder:
        file = Path(folder) / "kernels.cu"
        file.write_text(source, encoding="utf-8")
        made = file.with_suffix(f".{form}")
        words = [tool("nvcc"), *f"-arch={arch} -{form} -Xptxas -v -diag-suppress 177 -o".split(), str(made), str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InternalError("nvcc refuses the generated code", why=done.stderr.strip()[-2000:])
        return made.read_bytes(), done.stderr


def ptx(source: str, arch: str) -> str:
    """NVIDIA's portable assembly.

    Raises:
        TargetError: there is no nvcc. InternalError: it refuses the source.
    """
    return _compiled(source, arch, "ptx")[0].decode()


def sass(source: str, arch: str) -> str:
    """The instructions of an architecture; raises as `ptx`, and where there is no nvdisasm."""
    image, _ = _compiled(source, arch, "cubin")
    with tempfile.TemporaryDirectory(prefix="tcomp") as folder:
        file = Path(folder) / "kernels.cubin"
        file.write_bytes(image)
        done = subprocess.run([tool("nvdisasm"), "-c", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"nvdisasm cannot read code for {arch}", why=done.stderr.strip()[-500:])
    return done.stdout


def access_widths(text: str) -> dict[str, Counter[int]]:
    """How many loads and stores of the device's memory each function of SASS has, by the bytes that a thread moves."""
    found: dict[str, Counter[int]] = {}
    own: Counter[int] = Counter()
    for line in text.splitlines():
        begin = _SECTION.match(line)
        if begin is not None:
            own = found.setdefault(begin[1], Counter())
        for modifiers in _ACCESS.findall(line):
            words = modifiers.split(".")
            own[next((nbytes for word, nbytes in _BYTES.items() if word in words), 4)] += 1
    return found


def resources(source: str, arch: str) -> dict[str, Resources]:
    """What each kernel of a source takes; raises as `ptx`."""
    _, told = _compiled(source, arch, "cubin")
    return {
        name: Resources(int(registers), int(spilled), int(shared or 0))
        for name, spilled, registers, shared in _TOLD.findall(told)
    }


def occupancy(target: CudaTarget, threads: int, registers: int, shared: int) -> float:
    """The share of an SM's threads that blocks of a kernel fill (NVIDIA, CUDA C++ Programming Guide, section on hardware multithreading).

    Args:
        threads: of a block. registers: of a thread. shared: bytes of a block.
    """
    warps = -(-threads // WARP)
    per_warp = -(-registers * WARP // REGISTER_GRAIN) * REGISTER_GRAIN
    blocks = min(
        target.threads // (WARP * warps),
        target.registers // (per_warp * warps),
        target.sm_shared // shared if shared else MOST_BLOCKS,
        MOST_BLOCKS,
    )
    return blocks * warps * WARP / target.threads
