"""What NVIDIA's compiler makes of a model's kernels, without a GPU: registers, spills, shared memory, how many threads an SM holds; and how the
kernels touch memory.

python -m benchmarks.cuda_code --models resnet50,minilm_128,train_mlp --arch sm_80     # needs nvcc, nvdisasm, and the models of benchmarks.zoo

`train_` and a name of benchmarks.train is a whole training step. Accesses are told from the kernels' loops (tcomp/codegen/cuda/accesses.py).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp
from frontend.train import compile_step
from tcomp.codegen.cuda.accesses import WIDEST, Accesses, accesses_of
from tcomp.codegen.cuda.launches import launches_of
from tcomp.codegen.cuda.nvcc import access_widths, occupancy, resources, sass
from tcomp.runtime.device.grid import GridKernel
from tcomp.target import CudaTarget, Target

from . import zoo
from .train import TASKS, loss_of

OUT = Path(__file__).parent / "out"
ROWS = "row_reduction"
"""The rule of norms and softmax, which are neither products nor movement."""


@dataclass(frozen=True)
class Code:
    """A launch as nvcc compiled it.

    Attributes:
        threads: of a block. spilled: bytes. shared: bytes of a block. occupancy: threads that an SM holds, of those that it could.
        accesses: of memory, told from the loops. wide: instructions in SASS that load or store 16 bytes of the device's memory; moves: any.
    """

    kernel: str
    rule: str
    threads: int
    registers: int
    spilled: int
    shared: int
    occupancy: float
    accesses: Accesses
    wide: int
    moves: int


def executable(model: str, target: CudaTarget) -> Any:
    """A model of the zoo, or a training step, compiled."""
    if not model.startswith("train_"):
        file, inputs = zoo.exported(model, 1)
        return tcomp.compile(str(file), inputs, target=target)
    task = TASKS[model.removeprefix("train_")]
    module = task.model()
    module.train()
    batch = task.batch(np.random.default_rng(0))
    step = compile_step(module, loss_of, task.optimizer(module.parameters()), batch, target.text)
    return step.compile(list(batch)).exe


def codes(model: str, arch: str) -> list[Code]:
    """The launches of a model."""
    target = Target.parse(f"cuda -arch={arch}")
    assert isinstance(target, CudaTarget)
    exe = executable(model, target)
    source = exe.library.source
    told, widths = resources(source, arch), access_widths(sass(source, arch))
    made = {k.symbol: k for k in map(GridKernel.from_json, exe.library.objects)}
    launches = {
        grid.function: (name, k.made.rule, grid, accesses_of(launch))
        for name, k in exe.stages.kernels.items()
        for grid, launch in zip(made[k.symbol].launches, launches_of(k.lowered).launches)
    }
    found = []
    for function, taken in told.items():
        name, rule, grid, accesses = launches[function]
        numbers = prod(grid.threads), taken.registers, taken.shared + grid.pool
        busy, own = occupancy(target, *numbers), widths[function]
        code = Code(name, rule, *numbers[:2], taken.spilled, numbers[2], busy, accesses, own[WIDEST], own.total())
        found.append(code)
    return found


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}" if whole else ""


MODELS = "resnet50,mobilenet_v2,minilm_128,bert_base_128,gpt2_prefill_128,train_mlp,train_resnet9,train_lstm,train_transformer"


COLUMNS = (
    "kernel",
    "rule",
    "threads",
    "registers",
    "spilled",
    "shared",
    "occupancy",
    "wide %",
    "sectors %",
    "bank cycles",
    "LDG, STG of 16",
)


def table_of(title: str, found: list[Code]) -> Table:
    """The launches of a model."""
    table = Table(*COLUMNS, title=title)
    for c in found:
        a = c.accesses
        banks = f"{a.wavefronts / a.least:.2f}" if a.least else ""
        cells = (c.kernel, c.rule, c.threads, c.registers, c.spilled, c.shared, f"{c.occupancy:.2f}")
        shares = share(a.wide_bytes, a.global_bytes), share(a.global_bytes, a.sector_bytes)
        table.add_row(*map(str, cells), *shares, banks, f"{c.wide} of {c.moves}")
    return table


def main(models: str = MODELS, arch: str = "sm_80") -> None:
    """A table of each model's launches, and lines that sum them up."""
    console, rows = Console(width=160), {}
    for model in models.split(","):
        found = codes(model, arch)
        rows[model] = [asdict(c) for c in found]
        console.print(table_of(f"{model}, {arch}", found))
        most, least = max(c.registers for c in found), min(c.occupancy for c in found)
        spills = sum(c.spilled > 0 for c in found)
        print(f"{model}: {len(found)} launches, {spills} spill, at most {most} registers, least occupancy {least:.2f}")
        for rule in dict.fromkeys(c.rule for c in found):
            print(f"  {rule}: {sum((c.accesses for c in found if c.rule == rule), Accesses())}")
        moved = sum((c.accesses for c in found if c.rule != ROWS), Accesses())
        print(f"  products and movement together: {moved}")
    OUT.mkdir(exist_ok=True)
    (OUT / f"cuda_code_{arch}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
