"""Where schedules come from, besides the default rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..errors import TcompError
from ..ir.primfunc import PrimFunc
from ..target import Target
from .schedule import Schedule
from .trace import Trace

UserSchedule = Callable[[Schedule], Any] | Trace | Schedule
"""A function that schedules a kernel, a recorded schedule, or a kernel scheduled already."""


class Found(NamedTuple):
    """A scheduled kernel, where its schedule comes from, and the plan that it follows (None where there is no plan)."""

    schedule: Schedule
    origin: str
    plan: Any = None


class ScheduleSource(Protocol):
    """Something that may know how to schedule a kernel."""

    def find(self, func: PrimFunc, target: Target) -> Found | None:
        """The schedule of a kernel (not yet scheduled) for a target; None where the source has none."""


@dataclass(frozen=True, slots=True)
class UserSchedules:
    """Schedules by the kernel's name: functions, traces that are replayed, or kernels as they stand.

    Raises:
        ScheduleError: a step is refused.
    """

    by_name: Mapping[str, UserSchedule]

    def find(self, func: PrimFunc, target: Target) -> Found | None:
        given = self.by_name.get(func.name)
        if given is None:
            return None
        if isinstance(given, Schedule):
            return Found(given, "given")
        sch = Schedule(func)
        if isinstance(given, Trace):
            given.replay(sch)
        elif callable(given):
            given(sch)
        else:
            raise TcompError(
                f"the schedule of kernel {func.name!r} is a {type(given).__name__}",
                hint="give a function of a Schedule, or a Trace",
            )
        return Found(sch, "given")
