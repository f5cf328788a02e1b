"""What tcomp knows of this machine, and what it keeps there."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from ..codegen.cache import OBJECTS, PROGRAMS, cache_folder
from ..errors import TcompError
from ..ops import OPERATORS
from ..target import CpuTarget, Target
from ..version import __version__


def info(target: str = typer.Option("cpu", help='"cpu", or "llvm -mcpu=... -num-cores=..."')) -> None:
    """What tcomp knows of this machine (or of another target)."""
    t = Target.parse(target)
    table = Table("what", "value")
    for name, value in (
        ("tcomp", __version__),
        ("python", sys.version.split()[0]),
        ("target", str(t)),
        *(_cpu_facts(t) if isinstance(t, CpuTarget) else ()),
        ("operators", str(len(OPERATORS))),
        ("cache", str(cache_folder())),
    ):
        table.add_row(name, value)
    Console(markup=False).print(table)


def _cpu_facts(t: CpuTarget) -> list[tuple[str, str]]:
    return [
        ("triple", t.triple),
        ("vector registers", f"{t.num_registers} of {8 * t.vector_bytes} bits"),
        ("multiply-adds in a cycle", f"{t.fma_ports} vectors"),
        ("L1 data cache", f"{t.l1_bytes >> 10} KiB"),
        ("L2 cache", f"{t.l2_bytes >> 10} KiB for each {t.l2_cores} cores"),
        ("L3 cache", f"{t.l3_bytes >> 10} KiB for each {t.l3_cores} cores" if t.l3_bytes else "unknown"),
    ]


def clean() -> None:
    """Delete all cached object code and compiled models."""
    files = [p for kind in (OBJECTS, PROGRAMS) for p in (cache_folder() / kind).rglob("*") if p.is_file()]
    for p in files:
        p.unlink(missing_ok=True)
    print(f"deleted {len(files)} files from {cache_folder()}")


def operators() -> None:
    """List the operators that models are made of."""
    table = Table("operator", "arguments", "fusion", "attributes")
    for op in sorted(OPERATORS.values(), key=lambda o: o.name):
        attrs = ", ".join(f"{k}" if v is ... else f"{k}={v}" for k, v in op.defaults.items())
        table.add_row(op.name, str(op.arity or "any"), op.kind, attrs)
    Console(markup=False).print(table)


def show(path: Path) -> None:
    """Print a dumped program."""
    from_file = path.with_suffix(".txt")
    if not from_file.is_file():
        raise TcompError(f"no dump {from_file}", hint="TCOMP_DUMP=folder makes them")
    print(from_file.read_text(encoding="utf-8"), end="")
