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


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A C compiler that links, too."""

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
            raise TcompError(f"cannot run the C compiler {self.command[0]}", why=str(error)) from error
        if done.returncode:
            raise TcompError(f"the C compiler {shlex.join(self.command)} failed", why=done.stderr.strip()[-2000:])


def host_toolchain() -> Toolchain:
    """The C compiler for this machine: $CC, cc, gcc or clang, else the one of the package ziglang.

    Raises:
        TcompError: there is none.
    """
    asked = os.environ.get("CC")
    if asked:
        return Toolchain(tuple(shlex.split(asked)))
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found is not None:
            return Toolchain((found,))
    if importlib.util.find_spec("ziglang") is not None:
        return Toolchain((sys.executable, "-m", "ziglang", "cc"))
    raise TcompError("cannot link: there is no C compiler", hint='pip install "tcomp[deploy]", or set CC')
