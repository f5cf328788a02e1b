"""A bar on the terminal for work that takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .lazy import lazy_module

console = lazy_module("rich.console")
progress = lazy_module("rich.progress")

Note = Callable[[int, int, str], None]
"""(done, of how many, the name of what is done)"""


@contextmanager
def terminal_bar(title: str) -> Iterator[Note | None]:
    """What moves a bar on standard error; None where that is no terminal. The bar is gone afterwards."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[name]}"),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, name="")

        def note(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, name=name)

        yield note
