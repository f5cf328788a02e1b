"""The same comparison in processes of their own: what is faster only where this process's memory happens to lie is not faster."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..backends import backend_of
from ..errors import TcompError
from ..runtime import saved
from ..runtime.example import example_inputs
from ..runtime.executable import Executable
from ..target import Target
from .whole import Executables, compare

PROCESSES = 3
"""In each of them the gain must show."""
SECONDS = 120
"""Until a process that does not end counts as one that saw no gain."""


def ratios_elsewhere(before: Executables, after: Executables, target: Target, threads: int | None) -> list[float]:
    """The ratios of the times of two models, one of each new process.

    Args:
        before, after: copies that run at once. threads: of their parallel loops.
    """
    with tempfile.TemporaryDirectory(prefix="tcomp") as folder:
        files = [Path(folder) / name for name in ("before", "after")]
        for file, (exe, *_) in zip(files, (before, after)):
            with open(file, "wb") as f:
                for part in saved.dump(exe.program, exe.library.objects, {}):
                    f.write(part.tobytes() if isinstance(part, np.ndarray) else part)
        words = [sys.executable, "-m", __name__, *map(str, files), _text(target), str(threads or 0), str(len(before))]
        return [_ratio(words) for _ in range(PROCESSES)]


def _text(target: Target) -> str:
    told: str = getattr(target, "text", str(target))
    return told


def _ratio(words: list[str]) -> float:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        return float(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise TcompError("cannot compare models in another process", why=str(error)) from error


def _loaded(file: str, target: Target, threads: int, copies: int) -> list[Executable]:
    data = np.fromfile(file, np.uint8)
    data.flags.writeable = False
    program, objects, _ = saved.load(data)
    return [Executable(program, backend_of(target).load(objects), threads or None) for _ in range(copies)]


def main(before: str, after: str, target: str, threads: str, copies: str) -> None:
    """What a process of `ratios_elsewhere` does."""
    parsed = Target.parse(target)

    def make(is_after: bool) -> list[Executable]:
        return _loaded(after if is_after else before, parsed, int(threads), int(copies))

    arrays = example_inputs(make(False)[0].program)
    print(json.dumps(compare(make, arrays).middle))


if __name__ == "__main__":
    main(*sys.argv[1:])
