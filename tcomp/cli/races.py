"""tcomp check --race: a model's kernels for a GPU, run on the emulator, which watches what their threads touch."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ..progress import terminal_bar
from ..runtime.device.emulator import ORDERS, Emulator
from ..runtime.device.gpu import GpuLibrary
from ..runtime.device.grid import GridKernel
from ..target import CudaTarget
from ..target import Target as AnyTarget
from . import models


def check_races(loaded: models.Loaded, target: str, as_json: bool) -> None:
    """Run a model with its threads and blocks in several orders. Races, barriers that some threads miss and accesses out of bounds are errors
    that name the kernel and the thread; so are results that differ.

    Raises:
        typer.BadParameter: the target is no GPU. DeviceError: a kernel is wrong. TargetError: there is no C compiler.
    """
    parsed = AnyTarget.parse(target)
    if not isinstance(parsed, CudaTarget):
        raise typer.BadParameter("--race watches the threads of kernels for a GPU: --target cuda")
    exe = models.compiled(loaded, target if parsed.is_emulated else f"{target} -device=emulator", 0, quiet=as_json)
    library = exe.library
    assert isinstance(library, GpuLibrary) and isinstance(library.driver, Emulator)
    results: dict[str, list[np.ndarray]] = {}
    with terminal_bar(f"watching {loaded.source.name}") as note:
        for number, order in enumerate(ORDERS):
            library.driver.order = order
            got = exe(*loaded.arguments)
            results[order] = list(got) if isinstance(got, tuple) else [got]
            if note is not None:
                note(number + 1, len(ORDERS), order)
    first, *others = results.values()
    is_same = all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for other in others for a, b in zip(first, other))
    made = {k.symbol: k for k in map(GridKernel.from_json, library.objects)}
    rows: list[dict[str, Any]] = [
        {"kernel": step.name, "launch": i, "threads": prod(grid.threads)}
        for step in exe.program.kernels
        for i, grid in enumerate(made[step.symbol].launches)
    ]
    if as_json:
        print(json.dumps({"orders": list(ORDERS), "same": is_same, "launches": rows}, indent=1))
    else:
        table = Table("kernel", "launch", "threads of a block", title="launches that ran")
        for r in rows:
            table.add_row(r["kernel"], str(r["launch"]), str(r["threads"]))
        console = Console(markup=False)
        console.print(table)
        console.print(f"{len(rows)} launches, {', '.join(ORDERS)}: no race, no missed barrier, no access out of bounds")
        console.print("all orders give the same bits" if is_same else "the orders give DIFFERENT results")
    if not is_same:
        raise typer.Exit(1)
