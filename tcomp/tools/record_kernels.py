"""Print the kernels of some programs, a JSON object a line. Run as a file, so that it asks whichever tcomp the first folder holds.

record_kernels.py CHECKOUT SOURCE SHARE OF TARGET...
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def records(tcomp: Any, source: str, share: int, of: int, targets: list[str]) -> Iterator[dict[str, str]]:
    """Every `of`-th program of a source, its kernels for each target.

    Args:
        source: "module:function" of something that yields (name, program).
    """
    module, function = source.split(":")
    for number, (name, program) in enumerate(getattr(importlib.import_module(module), function)()):
        if number % of != share:
            continue
        for target in targets:
            exe = tcomp.compile(program, target=target)
            for kernel in dict.fromkeys(k.name for k in exe.program.kernels):
                rule = exe.ir("scheduled", kernel).splitlines()[0].removeprefix("# rule: ")
                code = numbered(exe.ir("llvm", kernel))
                yield {
                    "program": name, "target": target, "kernel": kernel, "rule": rule,
                    "schedule": exe.schedule(kernel), "code": code,
                }  # fmt: skip


def numbered(code: str) -> str:
    """LLVM IR without names that say nothing: symbols, which hold a hash of tcomp itself, and the values' and labels', which follow
    those of loops; numbers in their order instead."""
    names: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        name = (match[1] or match[2]).strip('"')
        return ("%" if match[1] else "") + names.setdefault(name, f"n{len(names)}") + ("" if match[1] else ":")

    code = re.sub(r"\bk_[0-9a-f]{24}\b", "k", code)
    return re.sub(r'%("[^"]+"|[\w.]+)|^("[^"]+"|[\w.]+):', number, code, flags=re.MULTILINE)


def main() -> None:
    checkout, source, share, of, *targets = sys.argv[1:]
    sys.path[0] = checkout  # the folder of this file is there now
    tcomp = importlib.import_module("tcomp")
    assert Path(tcomp.__file__).is_relative_to(Path(checkout).resolve()), tcomp.__file__
    sys.path[0] = str(Path.cwd())  # programs are made by this checkout's code
    for record in records(tcomp, source, int(share), int(of), targets):
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
