"""What goes wrong, in two kinds that never mix.

A *user's* error (`TcompError` and its kinds) says what was refused, why, where, and what would work.
An *internal* error (`InternalError`) says which stage of the compiler broke and how to replay it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import FrameType

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_PYTHON = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = f"{os.sep}site-packages{os.sep}"
_COMMAND_LINES = tuple(
    f"{os.sep}site-packages{os.sep}{name}{os.sep}" for name in ("typer", "click", "rich", "pluggy", "_pytest")
)
"""What stands between a command and the program that it runs."""
_ENTRY = os.path.join(_OURS, "cli", "__init__.py")
"""What the command `tcomp` runs: there is no code of the user behind it."""


class TcompError(Exception):
    """Base of every error that tcomp raises on purpose.

    Args:
        what: what was refused, in one line.
        why: why it cannot be, with the concrete witness where there is one.
        excerpt: the program text with the offending place marked.
        hint: what would work.
    """

    def __init__(self, what: str, *, why: str = "", excerpt: str = "", hint: str = "") -> None:
        self.what = what
        self.why = why
        self.excerpt = excerpt
        self.hint = hint
        self.location = user_location()
        super().__init__(self._render())

    def _render(self) -> str:
        lines = [f"{self.what}: {self.why}" if self.why else self.what]
        if self.excerpt:
            lines += ["    " + line for line in self.excerpt.splitlines()]
        if self.location:
            lines.append(f"requested at {self.location}")
        if self.hint:
            lines.append(f"try: {self.hint}")
        return "\n".join(lines)

    def at(self, place: str) -> None:
        """Note the place in the user's model where it happened; the innermost one stands first."""
        self.what = f"{self.what} (in {place})"
        self.args = (self._render(),)


class OutOfMemoryError(TcompError, MemoryError):
    """There is no memory for something whose size was known to be allowed."""


class MissingPackageError(TcompError, ImportError):
    """A package that is not installed."""


class ExprError(TcompError, TypeError):
    """A scalar or tensor expression that has no meaning (mismatched dtypes, a symbolic value used as a bool...)."""


class ShapeError(TcompError, ValueError):
    """An operator call whose argument types do not fit."""


class ScheduleError(TcompError, ValueError):
    """A schedule step that was refused; the schedule is unchanged."""


class InputError(TcompError, ValueError):
    """A compiled model was called with arguments that it does not accept."""


class TargetError(TcompError, ValueError):
    """A target description that tcomp does not know."""


class DeviceError(TcompError, RuntimeError):
    """A device that does not do what it was asked: none is there, its driver refuses, or a kernel went wrong on it."""


class UnsupportedError(TcompError, NotImplementedError):
    """A construct that tcomp knows of but cannot compile."""


class VerifyError(TcompError):
    """A tree that is not well formed; raised for IR made by hand as well as by a pass."""


class InternalError(TcompError):
    """A defect of tcomp itself: names the stage and, where one was written, the reproducer."""


def user_location() -> str:
    """`file:line` of the nearest caller outside this package, Python's library and what runs commands, or an empty string."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = os.path.abspath(frame.f_code.co_filename)
        if name == _ENTRY and frame.f_code.co_name == "main":
            return ""
        is_library = name.startswith(_OURS) or (name.startswith(_PYTHON) and _INSTALLED not in name)
        is_command = any(c in name for c in _COMMAND_LINES)
        if not (is_library or is_command or frame.f_code.co_filename.startswith("<")):
            return f"{os.path.basename(name)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def mark_lines(lines: Sequence[str], marked: dict[int, str], context: int = 4) -> str:
    """The lines around the marked ones; each mark becomes a `# <- note` behind its line."""
    if not marked:
        return "\n".join(lines)
    first, last = max(min(marked) - context, 0), min(max(marked) + context + 1, len(lines))
    width = min(max(len(line) for line in lines[first:last]), 72)
    out = ["..."] if first else []
    for index in range(first, last):
        line = lines[index]
        out.append(f"{line:<{width}}  # <- {marked[index]}" if index in marked else line)
    return "\n".join([*out, "..."] if last < len(lines) else out)
