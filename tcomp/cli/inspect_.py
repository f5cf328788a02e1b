"""tcomp inspect: what a model is made of, and what becomes of it; what an exported model is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..errors import TcompError, UnsupportedError
from ..importers import source_of
from ..ir.graph import OpCall
from ..ir.module import IRModule
from ..ops.registry import get
from ..runtime.executable import Executable
from . import models
from .artifacts import is_artifact, show_artifact
from .page import page_of


def inspect_model(
    model: models.ModelFile,
    dims: models.Dims = "",
    shapes: models.Shapes = "",
    target: models.Target = "cpu",
    kernels: Annotated[bool, typer.Option(help="list the kernels, and the nodes that went into each")] = False,
    html: Annotated[str, typer.Option(help="write one page with kernels, their nodes, time and memory")] = "",
    as_json: models.AsJson = False,
) -> None:
    """Inputs, operators, parameters, operations, kernels and memory of a model, and what of it cannot be compiled."""
    if is_artifact(model):
        show_artifact(model, kernels, as_json)
        return
    source = source_of(model)
    assert source is not None
    facts: dict[str, Any] = {
        "model": source.name,
        "inputs": [str(i) for i in source.inputs],
        "outputs": list(source.outputs),
        "operators": dict(Counter(source.operators()).most_common()),
    }
    problem, exe, loaded = "", None, None
    try:
        loaded = models.load_model(model, dims, shapes, [])
        exe = models.compiled(loaded, target, 0, quiet=as_json)
        facts |= _compiled_facts(loaded.module, exe)
    except UnsupportedError as error:
        problem = str(error)
        facts["unsupported"] = error.excerpt.splitlines() or [error.what]
    except TcompError as error:
        problem = f"{error}"
        facts["open"] = problem
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts, exe, kernels, problem)
    if html and exe is not None and loaded is not None:
        Path(html).write_text(page_of(source.name, facts, exe, loaded.arguments), encoding="utf-8")
    if problem:
        raise typer.Exit(1)


def _compiled_facts(module: IRModule, exe: Executable) -> dict[str, Any]:
    constants = module.constants.values()
    return {
        "parameters": sum(int(c.size) for c in constants),
        "parameter_bytes": sum(int(c.nbytes) for c in constants),
        "flops": flops_of(module),
        "kernels": [
            {"name": k.name, "nodes": k.origin.split(", ") if k.origin else [], "flops": k.flops, "bytes": k.nbytes}
            for k in exe.program.kernels
        ],
        "workspace_bytes": exe.memory.arena,
        "constant_bytes": exe.memory.constants,
    }


def flops_of(module: IRModule) -> int:
    """Floating-point operations of all calls of the entry; loops and branches are not counted."""
    total = 0
    for b in module.main.bindings:
        if isinstance(b.call, OpCall) and all(t.type.is_static for t in (*b.call.args, *b.results)):
            total += int(get(b.call.op).flops([a.type for a in b.call.args], b.result.type, b.call.attrs))
    return total


def _print(facts: dict[str, Any], exe: Executable | None, kernels: bool, problem: str) -> None:
    console = Console(markup=False)
    table = Table("what", "value", title=facts["model"])
    table.add_row("inputs", "\n".join(facts["inputs"]))
    table.add_row("outputs", "\n".join(facts["outputs"]))
    table.add_row("operators", ", ".join(f"{k} {n}" for k, n in facts["operators"].items()))
    if exe is not None:
        table.add_row("parameters", f"{facts['parameters']:,} ({facts['parameter_bytes'] / 2**20:.1f} MiB)")
        table.add_row("operations", f"{facts['flops'] / 1e6:,.1f} million")
        table.add_row("kernels", str(len(facts["kernels"])))
        table.add_row("memory", str(exe.memory))
    console.print(table)
    if exe is not None and kernels:
        listed = Table("kernel", "million operations", "nodes of the model")
        for k in facts["kernels"]:
            listed.add_row(k["name"], f"{k['flops'] / 1e6:.2f}", ", ".join(k["nodes"]))
        console.print(listed)
    if problem:
        console.print(problem, style="red", markup=False, highlight=False)
