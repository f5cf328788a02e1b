"""What tuning brings: kernels tuned for a while each, then measured again beside the default by another process, on arrays of its own.

python -m benchmarks.tune [--budget 20] [--kernels softmax,depthwise] [--threads 1] [--models resnet50,mobilenet_v2]
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp
from tcomp import GraphBuilder
from tcomp.runtime.example import example_inputs
from tcomp.tuner.measure import Interval
from tcomp.tuning import compare

from . import zoo

OUT = Path(__file__).parent / "out"


def _product(m: int, k: int, n: int) -> Callable[[], tcomp.IRModule]:
    def make() -> tcomp.IRModule:
        g = GraphBuilder()
        return g.build(g.matmul(g.input("x", (m, k)), g.input("w", (k, n))))

    return make


def _conv(x: tuple[int, ...], w: tuple[int, ...], **attrs: Any) -> Callable[[], tcomp.IRModule]:
    def make() -> tcomp.IRModule:
        g, rng = GraphBuilder(), np.random.default_rng(0)
        return g.build(g.op("conv2d", g.input("x", x), g.constant(rng.standard_normal(w).astype(np.float32)), **attrs))

    return make


def _op(name: str, *shapes: tuple[int, ...], **attrs: Any) -> Callable[[], tcomp.IRModule]:
    def make() -> tcomp.IRModule:
        g = GraphBuilder()
        return g.build(g.op(name, *(g.input(f"x{i}", s) for i, s in enumerate(shapes)), **attrs))

    return make


KERNELS: dict[str, Callable[[], tcomp.IRModule]] = {
    "matmul 512": _product(512, 512, 512),
    "matmul 128x768x3072": _product(128, 768, 3072),
    "matmul 999x64x500": _product(999, 64, 500),
    "conv 3x3 56 64": _conv((1, 64, 56, 56), (64, 64, 3, 3), padding=1),
    "conv 1x1 28 256 128": _conv((1, 256, 28, 28), (128, 256, 1, 1)),
    "conv 7x7 s2 3 64": _conv((1, 3, 224, 224), (64, 3, 7, 7), padding=3, stride=2),
    "depthwise 56 144": _conv((1, 144, 56, 56), (144, 1, 3, 3), padding=1, groups=144),
    "max_pool 112 64": _op("max_pool2d", (1, 64, 112, 112), kernel=3, stride=2, padding=1),
    "softmax 12x512x512": _op("softmax", (12, 512, 512)),
    "layer_norm 1024x768": _op("layer_norm", (1024, 768), (768,), (768,)),
    "transpose 1024": _op("transpose", (1024, 1024), axes=(1, 0)),
    "sum 4096x1024": _op("sum", (4096, 1024), axes=(1,)),
}
_AGAIN = """
import sys, json
from benchmarks import tune
print(json.dumps(tune.again(*sys.argv[1:4])))
"""


def case(name: str) -> tuple[Any, Any]:
    """A kernel of the list, or a model of the zoo, and example inputs where extents are open."""
    if name in KERNELS:
        return KERNELS[name](), None
    file, inputs = zoo.exported(name, 1)
    return str(file), inputs


def again(name: str, threads: str, database: str) -> list[float]:
    """The ratio of the model's time without and with records: its interval, by this process. Executables are made three times, so that arrays
    lie elsewhere."""
    count, ratios = int(threads) or None, []
    for seed in range(3):
        before, after = (tcomp.compile(*case(name), num_threads=count, database=d) for d in ("", database))
        ratios.append(compare(before, after, example_inputs(before.program, seed)))
    middle = sorted(ratios, key=lambda r: r.middle)[1]
    return [middle.low, middle.middle, middle.high]


def main(
    budget: Annotated[float, typer.Option(help="seconds for each")] = 20.0,
    kernels: Annotated[str, typer.Option(help="names with commas, or parts of them; - for none")] = "",
    models: Annotated[str, typer.Option(help="models of benchmarks.zoo, with commas")] = "",
    threads: int = 1,
    seed: int = 0,
) -> None:
    """Tune kernels and models, and print what an independent measurement says of them."""
    wanted = [p for p in kernels.split(",") if p]
    names = [n for n in KERNELS if not wanted or any(p in n for p in wanted)] + [m for m in models.split(",") if m]
    table = Table(
        "kernel or model",
        "tried a second",
        "best seen",
        "accepted",
        "measured again",
        title=str(tcomp.Target.parse("cpu")),
    )
    console, rows = Console(width=140), []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            file = str(Path(folder) / "tune.db")
            report = tcomp.tune(*case(name), budget_s=budget, num_threads=threads or None, database=file, seed=seed)
            done = subprocess.run(
                [sys.executable, "-c", _AGAIN, name, str(threads), file], capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            ratio = Interval(*json.loads(done.stdout.splitlines()[-1]))
            tried = sum(t.trials + t.refused for t in report.tasks)
            rate = tried / sum(t.seconds for t in report.tasks)
            accepted = sum(t.accepted is not None for t in report.tasks) if not report.undone else 0
            best = max(t.best for t in report.tasks)
            rows.append({"name": name, "tried": tried, "rate": rate, "accepted": accepted, "best": best, "again": [ratio.low, ratio.middle, ratio.high], "report": str(report)})  # fmt: skip
            table.add_row(name, f"{rate:.1f}", f"{best:.2f}", f"{accepted} of {len(report.tasks)}", str(ratio))
            console.print(json.dumps(rows[-1])[:300], soft_wrap=True)
    OUT.mkdir(exist_ok=True)
    (OUT / "tune.json").write_text(
        json.dumps({"cpu": str(tcomp.Target.parse("cpu")), "budget_s": budget, "rows": rows}, indent=1)
    )
    console.print(table)
    middle = math.exp(np.mean([math.log(r["again"][1]) for r in rows]))
    print(f"geometric mean {middle:.3f}, worst {min(r['again'][1] for r in rows):.3f}, of {len(rows)}")


if __name__ == "__main__":
    typer.run(main)
