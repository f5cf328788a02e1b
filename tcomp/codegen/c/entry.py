"""The entry function of a module in C: the kernel calls of the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from ...runtime.extents import Code, Extent
from ...runtime.program import ENTRY, Argument, Branch, Clear, Copy, Launch, Loop, Program, Step


def entry_function(program: Program, functions: Mapping[str, str], name: str = ENTRY) -> str:
    """The text of `int32_t tcomp_main(args, consts, arena, dims)`, which runs the program's steps in order; it returns 0, or 2 where memory
    ran out.

    Args:
        functions: what the function of a symbol is called. name: of this function.
    """
    writer = _Writer(functions)
    writer.steps(program.steps, 1)
    head = (
        f"static int32_t {name}(void *const *args, const void *const *consts, void *workspace, const int64_t *dims) {{"
    )
    unused = "  unsigned char *const arena = workspace;\n  (void)args, (void)consts, (void)arena, (void)dims;\n  const int32_t failures = tcomp_failures();"
    return "\n".join([head, unused, *writer.lines, "  return tcomp_failures() == failures ? 0 : 2;", "}\n"])


class _Writer:
    def __init__(self, functions: Mapping[str, str]) -> None:
        self.functions = functions
        self.lines: list[str] = []
        self.trips: list[str] = []
        self.loops = 0

    def steps(self, steps: Sequence[Step], indent: int) -> None:
        def line(text: str, more: int = 0) -> None:
            self.lines.append("  " * (indent + more) + text)

        for s in steps:
            match s:
                case Launch():
                    line(f"{self.functions[s.symbol]}({', '.join(map(self.place, s.arguments))});")
                case Copy():
                    line(f"memcpy({self.place(s.target)}, {self.place(s.source)}, (size_t){self.size(s.nbytes)});")
                case Clear():
                    line(f"memset({self.place(s.target)}, 0, (size_t){self.size(s.nbytes)});")
                case Loop():
                    i, rows = f"i{self.loops}", f"rows{self.loops}"
                    self.loops += 1
                    line("{")
                    line(f"int64_t {rows} = {self.size(s.length)};", 1)
                    if s.count is not None:
                        asked = f"*(const int64_t *){self.place(s.count)}"
                        line(f"if ({asked} < {rows}) {rows} = {asked};", 1)
                    line(f"for (int64_t {i} = 0; {i} < {rows}; {i}++) {{", 1)
                    self.trips.append(f"({rows} - 1 - {i})" if s.reverse else i)
                    self.steps(s.steps, indent + 2)
                    self.trips.pop()
                    line("}", 1)
                    line("}")
                case Branch():
                    line(f"if (*(const uint8_t *){self.place(s.condition)}) {{")
                    self.steps(s.then, indent + 1)
                    line("} else {")
                    self.steps(s.orelse, indent + 1)
                    line("}")
                case _:
                    assert_never(s)

    def place(self, a: Argument) -> str:
        """An address, or an extent's value."""
        if a.kind == "dims":
            return f"dims[{a.index}]"
        moves = [f"{self.trips[loop]} * {self.size(nbytes)}" for loop, nbytes in a.strides]
        if a.kind == "arena":
            return f"(void *)(arena + {' + '.join([str(a.index), *moves])})"
        # kernels do not write to constants; the cast leaves them one type of pointer
        base = f"args[{a.index}]" if a.kind == "args" else f"(void *)consts[{a.index}]"
        return base if not moves else f"(void *)((unsigned char *){base} + {' + '.join(moves)})"

    def size(self, nbytes: int | Extent) -> str:
        return str(nbytes) if isinstance(nbytes, int) else self.computed(nbytes.code)

    def computed(self, code: Code) -> str:
        """The value of an extent, of numbers that are at least 0."""
        if isinstance(code, int):
            return str(code)
        if code[0] == "dim":
            return f"dims[{code[1]}]"
        a, b = map(self.computed, code[1:])
        match code[0]:
            case "min" | "max":
                return f"i64_{code[0]}({a}, {b})"
            case "//":
                return f"i64_floordiv({a}, {b})"
            case "%":
                return f"i64_floormod({a}, {b})"
            case _:
                return f"({a} {code[0]} {b})"
