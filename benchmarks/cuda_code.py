"""What NVIDIA's compiler makes of a model's kernels, without a GPU: registers, spills, shared memory, how many threads an SM holds.

python -m benchmarks.cuda_code --models resnet50,minilm_128 --arch sm_80     # needs nvcc, and the models of benchmarks.zoo
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

import tcomp
from tcomp.runtime.device.grid import GridKernel
from tcomp.target import CudaTarget, Target

from . import zoo

OUT = Path(__file__).parent / "out"
REGISTER_GRAIN = 256
"""Registers are given to warps in such portions."""


@dataclass(frozen=True)
class Code:
    """A launch as nvcc compiled it.

    Attributes:
        threads: of a block. spilled: bytes. shared: bytes of a block. occupancy: threads that an SM holds, of those that it could.
    """

    kernel: str
    rule: str
    threads: int
    registers: int
    spilled: int
    shared: int
    occupancy: float


def occupancy(target: CudaTarget, threads: int, registers: int, shared: int) -> float:
    """The share of an SM's threads that blocks of a kernel fill."""
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // REGISTER_GRAIN) * REGISTER_GRAIN
    blocks = min(
        target.threads // (32 * warps),
        target.registers // (per_warp * warps),
        target.sm_shared // shared if shared else 32,
        32,
    )
    return blocks * warps * 32 / target.threads


def compiled(source: str, arch: str) -> str:
    """What nvcc's assembler tells of a source."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernels.cu"
        file.write_text(source)
        words = ["nvcc", f"-arch={arch}", "-cubin", "-Xptxas", "-v", "-diag-suppress", "177", "-o", f"{file}.cubin"]
        done = subprocess.run([*words, str(file)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stderr


def codes(model: str, arch: str) -> list[Code]:
    """The launches of a model."""
    target = Target.parse(f"cuda -arch={arch}")
    assert isinstance(target, CudaTarget)
    file, inputs = zoo.exported(model, 1)
    exe = tcomp.compile(str(file), inputs, target=target)
    told = compiled(exe.library.source, arch)
    grids = {g.function: g for o in exe.library.objects for g in GridKernel.from_json(o).launches}
    rules = {k.symbol: (name, k.made.rule) for name, k in exe.stages.kernels.items()}
    found = []
    pattern = r"entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?"
    for function, spilled, registers, shared in re.findall(pattern, told, re.S):
        grid = grids[function]
        name, rule = next(v for symbol, v in rules.items() if function.startswith(symbol))
        numbers = prod(grid.threads), int(registers), int(shared or 0)
        found.append(Code(name, rule, numbers[0], numbers[1], int(spilled), numbers[2], occupancy(target, *numbers)))
    return found


def main(models: str = "resnet50,mobilenet_v2,minilm_128,bert_base_128,gpt2_prefill_128", arch: str = "sm_80") -> None:
    """A table of each model's launches, and a line that sums them up."""
    console, rows = Console(width=150), {}
    for model in models.split(","):
        found = codes(model, arch)
        rows[model] = [asdict(c) for c in found]
        table = Table(
            "kernel", "rule", "threads", "registers", "spilled", "shared", "occupancy", title=f"{model}, {arch}"
        )
        for c in found:
            table.add_row(
                c.kernel, c.rule, *map(str, (c.threads, c.registers, c.spilled, c.shared)), f"{c.occupancy:.2f}"
            )
        console.print(table)
        most = max(c.registers for c in found)
        least = min(c.occupancy for c in found)
        print(
            f"{model}: {len(found)} launches, {sum(c.spilled > 0 for c in found)} spill, at most {most} registers, least occupancy {least:.2f}"
        )
    OUT.mkdir(exist_ok=True)
    (OUT / f"cuda_code_{arch}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
