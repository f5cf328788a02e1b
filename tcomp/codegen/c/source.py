"""A compiled model as one C source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...ir.names import plain_name, unique_name
from ...lazy import lazy_module
from ...runtime.program import Program
from ..build import Kernel
from .vectors import Vectors

entries = lazy_module("tcomp.codegen.c.entry")
kernels_c = lazy_module("tcomp.codegen.c.kernel")


def header(name: str) -> str:
    """The text of a file beside this one."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def prelude() -> str:
    """What functions are written in."""
    return header("prelude.h") + header("arithmetic.h")


def kernel_text(k: Kernel) -> str:
    """One kernel as C, to read: without the functions on vectors."""
    text: str = kernels_c.kernel_function(k.lowered, f"kernel_{_word(k.func.name)}", Vectors(), _told(k))
    return text


def program_text(program: Program, kernels: Mapping[str, Kernel], entry: str) -> str:
    """The kernels of a program and its entry; it calls tcomp_take, tcomp_give and tcomp_parallel_for.

    Args:
        kernels: by their names in the program. entry: what the entry function is called.
    """
    vectors, functions, taken, texts = Vectors(), dict[str, str](), set[str](), list[str]()
    for step in program.kernels:
        if step.symbol in functions:
            continue
        k = kernels[step.name]
        functions[step.symbol] = unique_name(f"kernel_{_word(step.name)}", taken)
        texts.append(kernels_c.kernel_function(k.lowered, functions[step.symbol], vectors, _told(k, step.origin)))
    return "\n".join([vectors.text(), "", *texts, entries.entry_function(program, functions, entry)])


def _word(name: str) -> str:
    return plain_name(name).replace(".", "_")


def _told(k: Kernel, origin: str = "") -> str:
    """What is said above a kernel."""
    return f"{k.func.name}, scheduled by {k.made.rule}" + (f"; computes {origin}" if origin else "")
