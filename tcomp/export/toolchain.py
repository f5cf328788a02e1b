"""The C compiler and linker that put exported models together."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import TcompError
from ..target import CpuTarget

GLIBC = "2.28"
"""The oldest C library that what ziglang links runs with."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A program that makes code of files: a C compiler, which links, too, or a tool for object files."""

    command: tuple[str, ...]

    def run(self, arguments: Sequence[str], folder: Path) -> None:
        """Run it in a folder.

        Raises:
            TcompError: it failed; with what it said.
        """
        environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
        try:
            done = subprocess.run(
                [*self.command, *arguments], cwd=folder, capture_output=True, text=True, env=environment
            )
        except OSError as error:
            raise TcompError(f"cannot run {self.command[0]}", why=str(error)) from error
        if done.returncode:
            raise TcompError(f"{shlex.join(self.command)} failed", why=done.stderr.strip()[-2000:])

    def version(self) -> str:
        """The first line of what it says of itself; "" where it says nothing."""
        try:
            done = subprocess.run([*self.command, "--version"], capture_output=True, text=True)
        except OSError:
            return ""
        return next(iter(done.stdout.splitlines()), "") if not done.returncode else ""


def toolchain(target: CpuTarget) -> Toolchain:
    """The C compiler for a target: of this machine $CC, cc, gcc or clang; of another one its GNU cross compiler; else that of the package
    ziglang, which brings the libraries of all.

    Raises:
        TcompError: there is none.
    """
    arch = target.triple.split("-")[0]
    if target.is_here:
        found = _own()
    else:
        cross = shutil.which(f"{arch}-linux-gnu-gcc")
        found = None if cross is None else Toolchain((cross,))
    if found is not None:
        return found
    if importlib.util.find_spec("ziglang") is not None:
        return Toolchain((sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-gnu.{GLIBC}"))
    needed = "there is no C compiler" if target.is_here else f"there is no C compiler for {target.triple}"
    raise TcompError(f"cannot link: {needed}", hint='pip install "tcomp[deploy]", or install one')


def object_tool(target: CpuTarget) -> Toolchain:
    """GNU's objcopy for a target.

    Raises:
        TcompError: there is none.
    """
    name = "objcopy" if target.is_here else f"{target.triple.split('-')[0]}-linux-gnu-objcopy"
    found = shutil.which(name)
    if found is None:
        raise TcompError(
            f"cannot write an object file: there is no {name}", hint='install binutils, or format="shared"'
        )
    return Toolchain((found,))


def _own() -> Toolchain | None:
    asked = os.environ.get("CC")
    if asked:
        return Toolchain(tuple(shlex.split(asked)))
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found is not None:
            return Toolchain((found,))
    return None
