"""Programs as executable Python that rebuilds an equal tree, so that every dump is a reproducer."""

from __future__ import annotations

import base64
import itertools
import tempfile
import zlib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, cast

from ..config import config
from ..dtype import DType
from .expr import Buffer, Const, Var
from .graph import Binding, Value
from .module import IRModule
from .names import plain_name
from .node import Node
from .printer import text
from .stmt import Attrs, Stmt

_HEADER = (
    "import base64, zlib\n"
    "from math import inf, nan\n"
    "import numpy as np\n"
    "import tcomp.ir as ir\n"
    "from tcomp.dtype import dtype\n\n"
)
_SHARED = (Var, Buffer, Value)


class _Writer:
    """Writes shared nodes (variables, buffers, values) and statements as assignments, the rest as nested calls."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[int, str] = {}
        self.keep: list[Any] = []

    def assign(self, x: Any, prefix: str, code: str) -> str:
        name = f"{prefix}{len(self.names)}"
        self.names[id(x)] = name
        self.keep.append(x)
        self.lines.append(f"{name} = {code}")
        return name

    def value(self, x: Any) -> str:
        known = self.names.get(id(x)) if isinstance(x, (*_SHARED, Stmt, Binding)) else None
        if known is not None:
            return known
        match x:
            case DType():
                return repr(x)
            case Const():
                return f"ir.Const({self.number(x.value)}, {x.dtype!r})"
            case Attrs():
                return (
                    f"ir.Attrs.of({{{', '.join(f'{k!r}: {self.value(v)}' for k, v in x.items())}}})"
                    if x
                    else "ir.Attrs()"
                )
            case IRModule():
                return self.module(x)
            case Node():
                args = ", ".join(f"{f.name}={self.value(getattr(x, f.name))}" for f in fields(cast(Any, x)) if f.init)
                code = f"ir.{type(x).__name__}({args})"
                if isinstance(x, (*_SHARED, Stmt, Binding)):
                    return self.assign(x, type(x).__name__[0].lower(), code)
                return code
            case tuple():
                return f"({', '.join(map(self.value, x))}{',' if len(x) == 1 else ''})"
            case float():
                return self.number(x)
            case _:
                return repr(x)

    def number(self, value: Any) -> str:
        if isinstance(value, float) and not isinstance(value, bool):
            return repr(float(value))
        return repr(bool(value) if isinstance(value, bool) else int(value))

    def module(self, m: IRModule) -> str:
        functions = ", ".join(f"{k!r}: {self.value(f)}" for k, f in m.functions.items())
        constants: list[str] = []
        for name, array in m.constants.items():
            packed = base64.b85encode(zlib.compress(array.tobytes(), 1)).decode()
            self.lines.append(
                f"{_constant_name(len(constants))} = np.frombuffer(zlib.decompress(base64.b85decode({packed!r})), "
                f"dtype({array.dtype.name!r}).numpy).reshape({array.shape!r})"
            )
            constants.append(f"{name!r}: {_constant_name(len(constants))}")
        facts = f"frozenset({sorted(m.facts)!r})"
        return f"ir.IRModule(functions={{{functions}}}, constants={{{', '.join(constants)}}}, facts={facts}, entry={m.entry!r})"


def _constant_name(index: int) -> str:
    return f"array{index}"


def as_python(x: Node, name: str = "program") -> str:
    """Python source that, when run, binds `name` to a tree structurally equal to `x`."""
    writer = _Writer()
    result = writer.value(x)
    return _HEADER + "\n".join([*writer.lines, f"{name} = {result}"]) + "\n"


def from_python(source: str, name: str = "program") -> Any:
    """The tree that a reproducer builds. Runs the source: only for text that you trust."""
    scope: dict[str, Any] = {}
    exec(compile(source, "<reproducer>", "exec"), scope)
    return scope[name]


_numbers = itertools.count()


@cache
def _temporary_folder() -> str:
    return tempfile.mkdtemp(prefix="tcomp-reproducers-")


def write_reproducer(name: str, x: Node, folder: str | None = None) -> Path:
    """Write a program as text, and as Python that rebuilds it; returns the path of the latter.

    Args:
        folder: where to; by default TCOMP_DUMP, else a temporary folder, one for the whole process.
    """
    target = Path(folder or config().dump or _temporary_folder())
    target.mkdir(parents=True, exist_ok=True)
    base = f"{next(_numbers):03d}_{plain_name(name)}"
    (target / f"{base}.txt").write_text(text(x) + "\n", encoding="utf-8")
    script = target / f"{base}.py"
    script.write_text(as_python(x), encoding="utf-8")
    return script
