"""Stands for nvcc: makes a "cubin" that the fake driver loads, a shared library of the emulator with its length before it."""

import re
import sys
import tempfile
from pathlib import Path

from tcomp.runtime.device.emulator import build_library, stub


def main(words: list[str]) -> None:
    if "--version" in words:
        print("fake nvcc, release 13.0")
        return
    if "--preprocess" in words:  # for the key of pycuda's cache
        print(next(Path(w) for w in words if w.endswith(".cu")).read_text())
        return
    file = Path(words[-1])
    source = file.read_text()
    stubs = []
    for name, params in re.findall(r"^KERNEL\(\d+\) (\w+)\((.*)\) \{$", source, re.M):
        types = ["int64_t" if "*" not in p else p[: p.index("*") + 1] for p in params.split(", ")]
        stubs.append(stub(name, types))
    with tempfile.TemporaryDirectory() as folder:
        made = build_library("\n".join(['#include "emulator.h"', source, *stubs]), Path(folder)).read_bytes()
    Path("kernel.cubin").write_bytes(len(made).to_bytes(8, "little") + made)


if __name__ == "__main__":
    main(sys.argv[1:])
