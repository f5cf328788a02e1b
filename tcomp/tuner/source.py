"""Records as a source of schedules."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import ScheduleError, TcompError
from ..ir.primfunc import PrimFunc
from ..schedule.rules.cpu.layout import CpuLayout
from ..schedule.source import Found
from ..target import CpuTarget, Target
from .database import Database, Key
from .layouts import TunedLayout
from .space import Space
from .task import kernel_key


@lru_cache(maxsize=8)
def opened(path: str) -> Database:
    """The database of a file, opened once a process.

    Raises:
        TcompError: there is none, or it is none.
    """
    if not Path(path).is_file():
        raise TcompError(f"there is no database of records at {path}", hint="tcomp.tune(..., database=...) makes one")
    return Database(path)


log = logging.getLogger("tcomp")


@dataclass(frozen=True, slots=True)
class TunedSchedules:
    """Schedules that follow accepted plans (a `ScheduleSource`): of the same number of threads if there is one, else of all.

    A plan that a rule refuses, since it was recorded by another version, is passed over with a warning.
    """

    database: Database
    threads: int | None = None

    def layout(self, usual: Any) -> Any:
        """The layouts of a policy, those of layers that have records as these say (a `LayoutPolicy`)."""
        if not isinstance(usual, CpuLayout):
            return usual
        return TunedLayout(usual.target, usual.use_winograd, database=self.database, threads=self.threads)

    def find(self, func: PrimFunc, target: Target) -> Found | None:
        if not isinstance(target, CpuTarget) or func.dims:
            return None
        kernel = kernel_key(func)
        for threads in dict.fromkeys((self.threads, None)):
            record = self.database.record(Key.of(kernel, target, threads))
            if record is None:
                continue
            try:
                space = Space(func, target)
                plan, schedule = space.plan(record.candidate), space.schedule(record.candidate)
            except ScheduleError as error:
                log.warning("the record of kernel %s cannot be used: %s", func.name, error.what)
                continue
            told = f"{record.candidate.rule}, tuned: {record.ratio} times as fast as the default"
            return Found(schedule, told, plan)
        return None
