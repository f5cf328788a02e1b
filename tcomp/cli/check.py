"""tcomp check: where a model's rounding errors grow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ..compiler import compile
from ..ir.graph import ConstRef, OpCall, Operand
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ir.stmt import Attrs
from ..ops.reference import evaluate
from ..runtime.executable import Executable
from . import models
from .bench import relative_error
from .races import check_races

BUDGETS = {"matmul": 2e-6, "linear": 2e-6, "conv2d": 5e-6, "conv1d": 2e-6, "conv3d": 2e-6, "attention": 5e-6, "softmax": 1e-6,
           "layer_norm": 1e-6, "cumulative": 2e-6, "scan": 1e-5}  # fmt: skip
"""Relative error that an operator on float32 may add to what its arguments have; NARROW for 16-bit floats."""
DEFAULT, NARROW = 5e-7, 2e-2


@dataclass(frozen=True, slots=True)
class TensorError:
    """The error of one tensor against float64.

    Attributes:
        before: the largest error among what it is made of. kernel: the kernel of the compiled model that computes it.
    """

    node: str
    operator: str
    tensor: str
    before: float
    error: float
    budget: float
    kernel: str

    @property
    def is_within(self) -> bool:
        return bool(self.error <= 10 * self.before + self.budget) and not np.isnan(self.error)


def check_model(
    model: models.ModelFile,
    input: models.Inputs = None,
    dims: models.Dims = "",
    shapes: models.Shapes = "",
    target: models.Target = "cpu",
    limit: Annotated[float, typer.Option(help="relative error that a result may have")] = 1e-4,
    race: Annotated[
        bool, typer.Option(help="of a GPU's kernels: watch on the CPU what their threads touch, instead")
    ] = False,
    seed: models.Seed = 0,
    as_json: models.AsJson = False,
) -> None:
    """Compare each tensor with the reference evaluation in float64, and the results with onnxruntime's where that is installed."""
    loaded = models.load_model(model, dims, shapes, input or [], seed)
    if race:
        return check_races(loaded, target, as_json)
    exe = models.compiled(loaded, target, 0, quiet=as_json)
    got = exe(*loaded.arguments)
    results = got if isinstance(got, tuple) else (got,)
    exact = evaluate(loaded.module, loaded.arguments, exact=True)
    other = _onnxruntime(model, loaded)
    rows: list[dict[str, Any]] = [
        {
            "result": s.name,
            "error": relative_error(g, w),
            "onnxruntime": None if other is None else relative_error(other[i], w),
        }
        for i, (s, g, w) in enumerate(zip(exe.outputs, results, exact))
    ]
    tensors = tensor_errors(loaded.module, loaded.arguments, exe, target)
    first = next((t for t in tensors if not t.is_within), None)
    worst = sorted(tensors, key=lambda t: -(t.error / (t.before + t.budget)))[:8]
    if as_json:
        found = {
            "results": rows,
            "first": None if first is None else asdict(first),
            "tensors": [asdict(t) for t in tensors],
        }
        print(json.dumps(found, indent=1))
    else:
        _print(rows, worst, first)
    if any(not r["error"] <= limit for r in rows):
        raise typer.Exit(1)


def tensor_errors(
    module: IRModule, arguments: Sequence[np.ndarray], exe: Executable, target: str = "cpu"
) -> list[TensorError]:
    """Of each floating-point tensor of the entry: computed by native code with all tensors before it kept, against float64."""
    main = module.main
    made = [
        (b, r) for b in main.bindings for r in b.results if r.type.dtype.is_float and r.type.is_static and r.type.size
    ]
    if not made:
        return []
    opened = module.with_main(
        with_fields(
            main,
            results=tuple(r for _, r in made),
            attrs=Attrs.of({k: v for k, v in main.attrs.items() if k not in ("result_names", "updates")}),
        )
    )
    found = compile(opened, target=target)(*arguments)
    got = found if isinstance(found, tuple) else (found,)
    want = evaluate(opened, arguments, exact=True)
    errors: dict[Operand, float] = {}
    rows = []
    for (b, r), g, w in zip(made, got, want):
        before = max((errors.get(a, 0.0) for a in b.call.args if not isinstance(a, ConstRef)), default=0.0)
        errors[r] = relative_error(g, w)
        op = b.call.op if isinstance(b.call, OpCall) else type(b.call).__name__.lower()
        budget = NARROW if r.type.dtype.bits == 16 else BUDGETS.get(op, DEFAULT)
        kernel = next((k.name for k in exe.program.kernels if b.origin and b.origin in k.origin.split(", ")), "")
        rows.append(TensorError(b.origin or r.name, op, r.name, before, errors[r], budget, kernel))
    return rows


def _onnxruntime(model: Path, loaded: models.Loaded) -> list[np.ndarray] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, loaded.inputs))


def _print(rows: list[dict[str, Any]], worst: list[TensorError], first: TensorError | None) -> None:
    console = Console(markup=False)
    table = Table("result", "error against float64", "onnxruntime's")
    for r in rows:
        table.add_row(r["result"], f"{r['error']:.1e}", "" if r["onnxruntime"] is None else f"{r['onnxruntime']:.1e}")
    console.print(table)
    table = Table("node", "operator", "error before", "error", "kernel", title="where errors grow most")
    for t in worst:
        table.add_row(t.node, t.operator, f"{t.before:.1e}", f"{t.error:.1e}", t.kernel)
    console.print(table)
    if first is not None:
        console.print(
            f"first beyond its budget: {first.node} ({first.operator}) in kernel {first.kernel or '?'}: {first.before:.1e} -> {first.error:.1e}"
        )
