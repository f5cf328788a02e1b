"""How long importing and compiling take, each in a new process: with an empty object cache, and with a warm one.

python -m benchmarks.compile_time [--model digits_cnn] [--batch 1] [--repeat 5]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from statistics import median

import typer

_COMPILE = """
import time
import numpy as np
import tcomp
from benchmarks.small import MODELS, settled_model
x = np.random.rand({batch}, *MODELS[{model!r}][1]).astype("float32")
model = settled_model({model!r})
start = time.perf_counter()
tcomp.compile(model, [x])
print(time.perf_counter() - start)
"""
_IMPORT = "import time; start = time.perf_counter(); import tcomp; print(time.perf_counter() - start)"


def _run(code: str, folder: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TCOMP_CACHE_DIR": folder}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def main(model: str = "digits_cnn", batch: int = 1, repeat: int = 5) -> None:
    """Print seconds: medians of several processes."""
    code = _COMPILE.format(model=model, batch=batch)
    cold, warm = [], []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(_run(code, folder))
            warm.append(_run(code, folder))
    imports = [_run(_IMPORT, "") for _ in range(repeat)]
    print(f"import tcomp                 {median(imports):.3f} s  (worst of {repeat}: {max(imports):.3f})")
    print(f"compile {model}, cold cache  {median(cold):.3f} s  (worst of {repeat}: {max(cold):.3f})")
    print(f"compile {model}, warm cache  {median(warm):.3f} s  (worst of {repeat}: {max(warm):.3f})")


if __name__ == "__main__":
    typer.run(main)
