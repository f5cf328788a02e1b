"""The tuner beside TVM's MetaSchedule: the same kernels, the same seconds, one after the other, then what each found raced turn by turn.

python -m benchmarks.metaschedule [--budget 60,300] [--cases mmd_512x512x512,conv3x3_1x56x64x64_s1] [--threads 1]

Needs apache-tvm and what its search imports: pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post0 xgboost cloudpickle psutil
tornado. With a newer apache-tvm-ffi than it was built with, its search ends in a segmentation fault; where torch is installed, each of its
builds imports it and takes three times as long: an environment of its own serves it best.

Both search in processes of their own with all cores of the machine to build on, and tune for the threads that are asked for. MetaSchedule
runs as it comes, but for batches of 16 trials instead of 64, so that a short budget ends with something, and its start does not count; it
gets one run of the longest budget, and what stands in its database at the end of each shorter one counts for that. Images lie in NHWC, weights in HWIO: constants for
tcomp, which may pack them; arguments for TVM, whose kernels read them as they lie (it packs weights in whole models alone).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp
from tcomp.cli.sides import Side, race
from tcomp.ir.graph import ConstRef, OpCall
from tcomp.memory import aligned_empty

from .shapes import make
from .tune import OUT, target_of

CASES = "mmd_512x512x512,mmd_128x768x3072,mmd_999x64x500,conv3x3_1x56x64x64_s1,conv1x1_1x28x512x128_s1,conv3x3_1x56x144x144_s1_g144"
MANY = 100_000
"""Trials, which no budget is long enough for."""
BEGUN = "Initializing Task"
"""What MetaSchedule logs when its builders and runners stand: from then on its seconds count."""

SEARCH = "import sys; from benchmarks import metaschedule as m; m.search(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
EXPORT = "import sys; from benchmarks import metaschedule as m; m.export(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
TUNE = "import sys; from benchmarks import metaschedule as m; m.tune(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))"


def made(name: str) -> tuple[tcomp.IRModule, list[np.ndarray]]:
    """A case and its inputs."""
    return make("", "NHWC", 0, 0, name)


def workload(name: str) -> Any:
    """A case as a module of TVM: C(rows, columns) of two matrices, or a convolution that reads padded images.

    Raises:
        NotImplementedError: the case is something else.
    """
    import tvm
    from tvm import te, topi

    module, _ = made(name)
    calls = [b.call for b in module.main.bindings if isinstance(b.call, OpCall)]
    if len(calls) != 1 or calls[0].op not in ("matmul", "conv2d"):
        raise NotImplementedError(name)
    (call,) = calls
    shapes = [module.constants[a.name].shape if isinstance(a, ConstRef) else a.type.shape for a in call.args]
    a, b = (te.placeholder(s, name=n) for s, n in zip(shapes, ("a", "b")))
    if call.op == "matmul":
        k = te.reduce_axis((0, shapes[0][1]), name="k")
        c = te.compute((shapes[0][0], shapes[1][1]), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
        return tvm.IRModule({"main": te.create_prim_func([a, b, c])})
    size, channels, stride, pad = b.shape[0], a.shape[3], int(call.attrs["stride"]), int(call.attrs["padding"])
    wide = topi.nn.pad(a, [0, pad, pad, 0], [0, pad, pad, 0], name="padded") if pad else a
    height = (int(a.shape[1]) + 2 * pad - int(size)) // stride + 1
    u, v = (te.reduce_axis((0, size), name=n) for n in "uv")
    shape = (a.shape[0], height, height, b.shape[3])
    if call.attrs["groups"] > 1:
        if b.shape[2] != 1 or channels != b.shape[3]:
            raise NotImplementedError(f"{name}: grouped")
        c = te.compute(shape, lambda n, y, x, o: te.sum(wide[n, y * stride + u, x * stride + v, o] * b[u, v, 0, o], axis=[u, v]), name="c")  # fmt: skip
    else:
        i = te.reduce_axis((0, channels), name="i")
        c = te.compute(shape, lambda n, y, x, o: te.sum(wide[n, y * stride + u, x * stride + v, i] * b[u, v, i, o], axis=[u, v, i]), name="c")  # fmt: skip
    return tvm.IRModule({"main": te.create_prim_func([a, b, c])})


def _target(threads: int) -> Any:
    import tvm

    cpu = tcomp.Target.parse("cpu")
    # LLVM would otherwise halve 512-bit vectors on CPUs whose clock they once slowed
    wide = {"mattr": ["-prefer-256-bit"]} if "avx512f" in cpu.features else {}
    return tvm.target.Target({"kind": "llvm", "mcpu": cpu.cpu, "num-cores": threads, **wide})


def search(name: str, threads: int, folder: str) -> None:
    """MetaSchedule's search, until somebody ends the process; what it measures is in the folder after each batch."""
    from tvm.s_tir import meta_schedule

    meta_schedule.tir_integration.tune_tir(workload(name), _target(threads), folder, MANY, num_trials_per_iter=16)


def export(name: str, threads: int, folder: str) -> None:
    """The best of a database as a library beside it."""
    import tvm
    from tvm.s_tir import meta_schedule

    found = meta_schedule.database.JSONDatabase(work_dir=folder)
    scheduled = meta_schedule.tir_integration.compile_tir(found, workload(name), _target(threads))
    if scheduled is None:
        raise SystemExit("the search found nothing")
    tvm.compile(scheduled.mod, target=_target(threads)).export_library(f"{folder}/kernel.so")


def tune(name: str, threads: int, database: str, budget: float) -> None:
    """Our search."""
    module, inputs = made(name)
    print(
        tcomp.tune(module, inputs, budget_s=budget, target=target_of(threads), num_threads=threads, database=database)
    )


def serve(library: str, name: str, threads: int, where: str) -> tuple[Callable[[], np.ndarray], dict[str, Any]]:
    """What a process of a library races (see `tcomp.cli.sides`).

    Args:
        where: the folder of MetaSchedule's kernel and of our records.
    """
    module, inputs = made(name)
    inputs = [aligned(x) for x in inputs]  # as TVM's own arrays are; those of NumPy may begin anywhere
    if library == "tcomp":
        exe = tcomp.compile(module, target=target_of(threads), num_threads=threads, database=f"{where}/tune.db")
        return lambda: exe(*inputs), {}
    os.environ["TVM_NUM_THREADS"] = str(threads)  # read when it begins
    import tvm

    (wanted,) = module.main.results
    arrays = [*inputs, *module.constants.values(), np.zeros(wanted.type.shape, wanted.type.dtype.numpy)]
    given = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
    kernel, result = tvm.runtime.load_module(f"{where}/kernel.so")["main"], np.from_dlpack(given[-1])

    def run() -> np.ndarray:
        kernel(*given)
        return result

    return run, {}


def aligned(x: np.ndarray) -> np.ndarray:
    """The same numbers at the beginning of a cache line."""
    found = aligned_empty(x.nbytes).view(x.dtype).reshape(x.shape)
    found[...] = x
    return found


def searched(name: str, threads: int, budgets: Sequence[float], folder: Path) -> None:
    """One run of MetaSchedule, and what stood in its database after each budget, in a folder of its own; nothing where that is there."""
    if all((folder / f"{b:g}").is_dir() for b in budgets):
        return
    shutil.rmtree(folder, ignore_errors=True)
    work = folder / "search"
    work.mkdir(parents=True)
    path = folder / "search.log"
    log = path.open("w")
    process = subprocess.Popen([sys.executable, "-c", SEARCH, name, str(threads), str(work)], stdout=log, stderr=log, start_new_session=True)  # fmt: skip
    while BEGUN not in path.read_text(errors="replace") and process.poll() is None:
        time.sleep(0.05)
    start = time.perf_counter()
    for budget in sorted(budgets):
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, budget - (time.perf_counter() - start)))
        shutil.copytree(work, folder / f"{budget:g}")
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its own builders and runners, too
    process.wait()
    log.close()


def compared(name: str, threads: int, budgets: Sequence[float], seconds: float, work: Path) -> list[dict[str, Any]]:
    """Tune a case both ways with each budget and race what was found."""
    found = []
    module, inputs = made(name)
    exact = tcomp.evaluate(module, inputs, exact=True)[0]
    folder = work / name
    searched(name, threads, budgets, folder)
    for budget in budgets:
        where = folder / f"{budget:g}"
        (where / "tune.db").unlink(missing_ok=True)
        ours = subprocess.run([sys.executable, "-c", TUNE, name, str(threads), f"{where}/tune.db", str(budget)], capture_output=True, text=True, check=True)  # fmt: skip
        done = subprocess.run([sys.executable, "-c", EXPORT, name, str(threads), str(where)], capture_output=True)
        sides = [Side("tcomp"), *([Side("tvm")] if done.returncode == 0 else [])]
        raced = race(sides, ("benchmarks.metaschedule", "serve", (name, threads, str(where))), seconds)
        for side in sides:
            side.close()
        median = {n: statistics.median(r["seconds"]) for n, r in raced.items()}
        error = {n: float(np.linalg.norm(r["result"] - exact) / np.linalg.norm(exact)) for n, r in raced.items()}
        records = where / "database_tuning_record.json"
        found.append(
            {"name": name, "budget_s": budget, "seconds": median, "errors": error, "ratio": median.get("tvm", math.inf) / median["tcomp"],
             "their_trials": len(records.read_text().splitlines()) if records.exists() else 0, "report": ours.stdout}
        )  # fmt: skip
    return found


def main(
    budget: Annotated[str, typer.Option(help="seconds for each search, with commas")] = "60",
    cases: Annotated[str, typer.Option(help="names of benchmarks.shapes: products and convolutions")] = CASES,
    threads: int = 1,
    seconds: Annotated[float, typer.Option(help="time for each side of a race, about")] = 2.0,
    work: Annotated[str, typer.Option(help="a folder that keeps MetaSchedule's searches; they serve again")] = "",
) -> None:
    """Tune by both; print a table of ratios; write it as JSON to benchmarks/out."""
    budgets = [float(b) for b in budget.split(",")]
    table = Table("case", "budget s", "tcomp ms", "MetaSchedule ms", "ratio", "their trials", "errors", title=f"{target_of(threads)}")  # fmt: skip
    rows: list[dict[str, Any]] = []
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name in cases.split(","):
            for r in compared(name, threads, budgets, seconds, Path(work or temporary).absolute()):
                rows.append(r)
                times = (f"{1e3 * r['seconds'].get(n, math.inf):.4f}" for n in ("tcomp", "tvm"))
                errors = ", ".join(f"{e:.0e}" for e in r["errors"].values())
                cells = (name, f"{r['budget_s']:g}", *times, f"{r['ratio']:.2f}", str(r["their_trials"]), errors)
                table.add_row(*cells)
                print(*cells, flush=True)
                told = {"cpu": str(tcomp.Target.parse("cpu")), "threads": threads, "rows": rows}
                (OUT / "metaschedule.json").write_text(json.dumps(told, indent=1))
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
