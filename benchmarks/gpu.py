"""A GPU: is what tcomp computes there right, and how fast is it beside torch (cuBLAS, cuDNN, inductor) on the same card?

python -m benchmarks.gpu [--families sgemm,half,conv,rows,movement,attention,models,training] [--device 0] [--peers torch,torch-compile]
python -m benchmarks.gpu --device emulator      # no GPU: small sizes, right or wrong alone

Each library runs in a process of its own, turn by turn (`tcomp.cli.sides`). Arguments and results stay on the device; runs are CUDA graphs on both
sides, repeated in each turn, so that launches from Python do not count. A ratio is the peer's median over tcomp's: above 1 tcomp is faster. Results
are compared with float64, of large products some rows. Torch multiplies float32 without TF32, as tcomp does.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import tcomp
from frontend.train import compile_step
from tcomp.cli.sides import Side, Task, race
from tcomp.dtype import dtype
from tcomp.ir.graph import Operand

from . import zoo
from .torch_models import as_torch
from .train import CHECKED, TASKS, loss_of

OUT = Path(__file__).parent / "out"
EMULATOR = "emulator"
ALLOWED = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Relative errors (2-norm) of results."""
REPEATED = 20
"""Runs for each wait."""
ROWS = 32
"""Of a large product's result that are compared."""
LARGE = 1 << 28
"""Multiply-adds from which on a product is large."""


@dataclass(frozen=True)
class Case:
    """One operator.

    Attributes:
        shapes: of its inputs. ours: adds it to a graph. theirs: computes it with torch: (torch, *inputs). flops, nbytes: of a run.
    """

    name: str
    family: str
    shapes: tuple[tuple[int, ...], ...]
    ours: Callable[..., Operand] = field(repr=False)
    theirs: Callable[..., Any] = field(repr=False)
    dtype: str = "float32"
    flops: float = 0.0
    nbytes: float = 0.0

    def arrays(self) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [rng.standard_normal(s, np.float32).astype(dtype(self.dtype).numpy) for s in self.shapes]

    def module(self) -> tcomp.IRModule:
        g = tcomp.GraphBuilder()
        return g.build(self.ours(g, *(g.input(f"x{i}", s, self.dtype) for i, s in enumerate(self.shapes))))

    @property
    def is_large(self) -> bool:
        return self.family in ("sgemm", "half") and self.flops / 2 >= LARGE

    def exact(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """The result in float64; of a large product its first rows."""
        if self.is_large:
            x, w = (a.astype(np.float64) for a in (arrays[0][:ROWS], arrays[1]))
            return np.asarray(x @ w)
        return np.asarray(tcomp.evaluate(self.module(), list(arrays), exact=True)[0], np.float64)


def _product(n: int, d: str) -> Case:
    family = "sgemm" if d == "float32" else "half"
    shapes, size = ((n, n), (n, n)), dtype(d).itemsize
    return Case(f"{d}_{n}", family, shapes, lambda g, x, w: g.matmul(x, w), lambda t, x, w: x @ w, d, 2.0 * n**3, 3.0 * n * n * size)  # fmt: skip


def _conv(size: int, c: int, o: int, kernel: int, stride: int) -> Case:
    """An image with its channels last; torch gets the same memory as its channels-last form."""
    pad, out = kernel // 2, -(-size // stride)
    how = {"padding": pad, "stride": stride, "layout": "NHWC", "kernel_layout": "HWIO"}

    def theirs(t: Any, x: Any, w: Any) -> Any:
        y = t.nn.functional.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), padding=pad, stride=stride)
        return y.permute(0, 2, 3, 1)

    flops = 2.0 * out * out * c * o * kernel**2
    name = f"conv{kernel}x{kernel}_{size}x{c}x{o}_s{stride}"
    shapes = ((1, size, size, c), (kernel, kernel, c, o))
    return Case(name, "conv", shapes, lambda g, x, w: g.conv2d(x, w, **how), theirs, flops=flops)


def _one(name: str, family: str, shape: tuple[int, ...], ours: Any, theirs: Any, passes: float = 2.0) -> Case:
    """An operator of one input, as bytes that it must move."""
    return Case(name, family, (shape,), ours, theirs, nbytes=passes * 4 * math.prod(shape))


def _attention(heads: int, n: int, d: int, causal: bool) -> Case:
    def theirs(t: Any, q: Any, k: Any, v: Any) -> Any:
        return t.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal)[0]

    name = f"attention_{heads}x{n}x{d}{'_causal' if causal else ''}"
    ours = lambda g, q, k, v: g.attention(q, k, v, causal=causal)
    return Case(name, "attention", ((heads, n, d),) * 3, ours, theirs, flops=4.0 * heads * n * n * d)


def operators(is_small: bool) -> Iterator[Case]:
    """The cases; sizes for the emulator are such that each path is taken."""
    for d in ("float32", "float16", "bfloat16"):
        for n in (70, 96) if is_small else (512, 1024, 2048, 4096, 8192):
            yield _product(n, d)
    for conv in ((14, 20, 24, 3, 1), (9, 20, 24, 1, 2)) if is_small else ((56, 64, 64, 3, 1), (28, 512, 128, 1, 1), (14, 256, 256, 3, 1), (224, 3, 64, 7, 2)):  # fmt: skip
        yield _conv(*conv)
    rows, columns = (40, 300) if is_small else (8192, 4096)
    yield _one("softmax", "rows", (rows, columns), lambda g, x: g.softmax(x), lambda t, x: t.softmax(x, -1))
    norm = lambda t, x: t.nn.functional.layer_norm(x, x.shape[-1:])
    ones, zeros = np.ones(columns, np.float32), np.zeros(columns, np.float32)
    ours = lambda g, x: g.op("layer_norm", x, g.constant(ones), g.constant(zeros))
    yield _one("layer_norm", "rows", (rows, columns), ours, norm)
    for axis in (0, 1):
        total = lambda g, x, a=axis: g.op("sum", x, axes=(a,))
        yield _one(f"sum_{axis}", "rows", (rows, columns), total, lambda t, x, a=axis: x.sum(a), 1.0)
    yield _one("relu", "movement", (rows, columns), lambda g, x: g.relu(x), lambda t, x: t.relu(x))
    turned = lambda t, x: x.T.contiguous()
    yield _one("transpose", "movement", (rows, columns), lambda g, x: g.transpose(x, axes=(1, 0)), turned)
    both = Case("add", "movement", ((rows, columns),) * 2, lambda g, x, y: g.add(x, y), lambda t, x, y: x + y, nbytes=12.0 * rows * columns)  # fmt: skip
    yield both
    for causal in (False, True):
        yield _attention(*((2, 37, 16) if is_small else (16, 1024, 64)), causal)


class Repeated:
    """What a process is asked to run: the first call brings the result, later ones run it again and again.

    Attributes:
        launch: begins a run. wait: for all runs. fetch: the result.
    """

    def __init__(self, launch: Callable[[], Any], wait: Callable[[], Any], fetch: Callable[[], np.ndarray]) -> None:
        self._launch, self._wait, self._fetch, self._is_new = launch, wait, fetch, True

    def __call__(self) -> np.ndarray | None:
        for _ in range(1 if self._is_new else REPEATED):
            self._launch()
        self._wait()
        found, self._is_new = self._fetch() if self._is_new else None, False
        return found


def captured(exe: tcomp.Executable, arrays: Sequence[np.ndarray]) -> Repeated:
    """A model of tcomp as a graph."""
    run = exe.graph(*arrays)
    return Repeated(run.replay, exe.library.device.synchronize, lambda: run.outputs[0].numpy())


def of_torch(function: Callable[..., Any], arrays: Sequence[np.ndarray], device: str, is_compiled: bool) -> Repeated:
    """A function of torch as a graph."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    there = [_tensor(torch, a).to(f"cuda:{device}") for a in arrays]
    if is_compiled:
        function = torch.compile(function)
    with torch.no_grad():
        beside = torch.cuda.Stream()
        with torch.cuda.stream(beside):
            for _ in range(3):
                function(*there)
        beside.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = function(*there)
    return Repeated(graph.replay, torch.cuda.synchronize, lambda: result.float().cpu().numpy())


def _tensor(torch: Any, a: np.ndarray) -> Any:
    if a.dtype == dtype("bfloat16").numpy:
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def operator(library: str, name: str, device: str) -> tuple[Repeated, dict[str, Any]]:
    """A case on one side."""
    case = next(c for c in operators(device == EMULATOR) if c.name == name)
    arrays = case.arrays()
    if library == "tcomp":
        exe = tcomp.compile(case.module(), target=f"cuda -device={device}")
        return captured(exe, arrays), {"rules": sorted({k.made.rule for k in exe.stages.kernels.values()})}
    import torch

    return of_torch(lambda *xs: case.theirs(torch, *xs), arrays, device, library == "torch-compile"), {}


def model(library: str, name: str, device: str) -> tuple[Repeated, dict[str, Any]]:
    """A model of the zoo, batch 1."""
    file, inputs = zoo.exported(name, 1)
    if library == "tcomp":
        return captured(tcomp.compile(str(file), inputs, target=f"cuda -device={device}"), list(inputs)), {}
    import torch

    torch.manual_seed(0)
    module, _ = zoo.MODELS[name](1)
    return of_torch(module.eval().to(f"cuda:{device}"), list(inputs), device, library == "torch-compile"), {}


def training(library: str, name: str, device: str) -> tuple[Repeated, dict[str, Any]]:
    """A training step; its first losses are the result."""
    task = TASKS[name]
    np.random.seed(0)
    made, batch = task.model(), task.batch(np.random.default_rng(1))
    if library == "tcomp":
        step: Callable[[], float]
        whole = compile_step(made, loss_of, task.optimizer(made.parameters()), batch, f"cuda -device={device}")
        step = lambda: float(whole(*batch))
    else:
        step = _torch_step(task, made, batch, device, library == "torch-compile")
    losses = np.array([step() for _ in range(CHECKED)])
    return Repeated(step, lambda: None, lambda: losses), {}


def _torch_step(task: Any, made: Any, batch: Any, device: str, is_compiled: bool) -> Callable[[], float]:
    import torch

    there = f"cuda:{device}"
    module = as_torch(made).to(there)
    kind, options = task.torch_optimizer
    optimizer = getattr(torch.optim, kind)(module.parameters(), **options)
    x, y = (torch.from_numpy(a).to(there) for a in batch)

    def forward() -> Any:
        out = module(x)
        logits = out[0] if isinstance(out, tuple) else out
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten())

    run = torch.compile(forward) if is_compiled else forward

    def step() -> float:
        optimizer.zero_grad()
        loss = run()
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


MODELS = ("resnet50", "mobilenet_v2", "minilm_128", "bert_base_128", "gpt2_prefill_128", "lstm_100")
FAMILIES = "sgemm,half,conv,rows,movement,attention"
OTHERS = {"models": (model, MODELS), "training": (training, tuple(TASKS))}


def measured(
    function: str, name: str, family: str, sides: Sequence[Side], device: str, seconds: float
) -> dict[str, Any]:
    """A case on all sides: milliseconds of a run, and what was computed. On the emulator it runs once, and takes no time that means anything."""
    task: Task = ("benchmarks.gpu", function, (name, device))
    if device == EMULATOR:
        (side,) = sides
        found = {side.library: {**side.ask("load", task), "seconds": [math.nan]}}
    else:
        found = race(sides, task, seconds, 0.02)
    if "tcomp" not in found:
        return {"name": name, "family": family, "failed": True}
    once = {n: statistics.median(r["seconds"]) / REPEATED for n, r in found.items()}
    ratios = {n: s / once["tcomp"] for n, s in once.items() if n != "tcomp"}
    results = {n: np.asarray(r["result"], np.float64) for n, r in found.items()}
    rules = found["tcomp"].get("rules", [])
    row = {"name": name, "family": family, "ms": {n: 1e3 * s for n, s in once.items()}, "ratios": ratios}
    return {**row, "results": results, "rules": rules}


def error_of(got: np.ndarray, want: np.ndarray) -> float:
    """Relative, in the 2-norm."""
    return float(np.linalg.norm(got - want) / (np.linalg.norm(want) or 1.0))


def judged(row: dict[str, Any], case: Case | None) -> dict[str, Any]:
    """A row with its error: of an operator against float64, of others against the first peer; arrays taken out."""
    results = row.pop("results", {})
    if "failed" in row:
        return row
    if case is not None:
        want = case.exact(case.arrays())
        row["error"], row["allowed"] = error_of(results["tcomp"][: len(want)], want), ALLOWED[case.dtype]
        row["gflops"], row["gbytes"] = (x / row["ms"]["tcomp"] / 1e6 for x in (case.flops, case.nbytes))
    elif len(results) > 1:
        other = next(r for n, r in results.items() if n != "tcomp")
        row["error"], row["allowed"] = error_of(results["tcomp"], other), 1e-3
    row["is_right"] = row.get("error", 0.0) <= row.get("allowed", 0.0)
    return row


def shown(row: dict[str, Any], peers: Sequence[str], is_timed: bool) -> list[str]:
    if "failed" in row:
        return [row["name"], "failed", *[""] * (3 + len(peers))]
    rate = (
        f"{row['gflops']:.0f} GFLOP/s"
        if row.get("gflops")
        else f"{row['gbytes']:.0f} GB/s"
        if row.get("gbytes")
        else ""
    )
    ratios = [f"{row['ratios'][p]:.2f}" if p in row["ratios"] else "" for p in peers]
    right = "right" if row["is_right"] else "WRONG" if "error" in row else "not compared"
    ms = f"{row['ms']['tcomp']:.4f}" if is_timed else ""
    return [row["name"], right, f"{row['error']:.0e}" if "error" in row else "", ms, rate if is_timed else "", *ratios]


def device_name(device: str) -> str:
    """What the driver calls it."""
    if device == EMULATOR:
        return EMULATOR
    import pycuda.driver as driver

    driver.init()
    return str(driver.Device(int(device)).name())


def main(families: str = FAMILIES, device: str = "0", peers: str = "torch,torch-compile", seconds: float = 0.5) -> None:
    """A table of cases, and geometric means of the families; both as JSON in benchmarks/out, by the card's name."""
    console, is_timed = Console(width=150), device != EMULATOR
    name, wanted = device_name(device), families.split(",")
    others = [p for p in peers.split(",") if p and is_timed]
    cases = {c.name: c for c in operators(not is_timed) if c.family in wanted}
    todo = [("operator", c.name, c.family) for c in cases.values()]
    todo += [(f.__name__, n, family) for family, (f, names) in OTHERS.items() if family in wanted for n in names]
    sides, rows = [Side(n) for n in ("tcomp", *others)], []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for function, case, family in progress.track(todo, description="cases"):
            row = measured(function, case, family, sides, device, seconds if is_timed else 0.0)
            rows.append(judged(row, cases.get(case)))
    for side in sides:
        side.close()
    table = Table("case", "result", "error", "ms", "rate", *(f"{p} / tcomp" for p in others), title=name)
    for row in rows:
        table.add_row(*shown(row, others, is_timed))
    console.print(table)
    for family in dict.fromkeys(r["family"] for r in rows):
        for p in others:
            found = [math.log(r["ratios"][p]) for r in rows if r["family"] == family and p in r.get("ratios", {})]
            if found:
                console.print(
                    f"{family}: {p} / tcomp {math.exp(sum(found) / len(found)):.2f}, geometric mean of {len(found)}"
                )
    OUT.mkdir(exist_ok=True)
    out = OUT / f"gpu_{name.replace(' ', '_')}.json"
    out.write_text(json.dumps({"device": name, "rows": rows}, indent=1))
    console.print(f"written: {out}")
    if any((not r.get("is_right", False) and "error" in r) or "failed" in r for r in rows):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
