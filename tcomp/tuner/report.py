"""What a run of the tuner tells."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..schedule import Schedule
from .measure import Interval
from .page import page_of

MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One kernel.

    Attributes:
        share: of the model's time, by default. trials: measured; refused: that could not be built, or were wrong. best: the highest ratio
            that the search saw, with its noise. accepted: the confirmed ratio; None where the default stays. changes: what the accepted plan
            decides otherwise, as text. curve: (seconds spent on this kernel, best ratio by then). predictions: (what the model of costs
            expected, what was measured) of the candidates that it ranked.
    """

    name: str
    share: float
    calls: int
    trials: int
    refused: int
    best: float
    accepted: Interval | None
    changes: str
    seconds: float
    curve: tuple[tuple[float, float], ...] = ()
    predictions: tuple[tuple[float, float], ...] = ()

    @property
    def gain(self) -> float:
        """Share of the model's time that is saved."""
        return self.share * (1 - 1 / self.accepted.middle) if self.accepted else 0.0

    def next(self, seconds: float) -> float:
        """Share of the model's time that so many more seconds for this kernel may save, as the second half of its search did; each time as long
        brings half of that."""
        if len(self.curve) < 2 or not self.seconds:
            return 0.0
        half = [best for spent, best in self.curve if spent <= self.seconds / 2] or [self.curve[0][1]]
        late = math.log(max(self.curve[-1][1], 1.0) / max(half[-1], 1.0))
        return self.share * late / 2 * min(1.0, 2 * seconds / self.seconds)


@dataclass(frozen=True)
class TuneReport:
    """A run. Printing it gives a table; `save` writes a page with pictures.

    Attributes:
        model: time of the model with the default schedules divided by that with the records; None for a kernel alone, or where nothing was
            accepted. seconds: that the run took. undone: whether the model did not gain, so that no record was kept. schedules: the accepted
            ones by kernel, as `compile(schedules=)` takes them; of a user's own schedule always, tuned or not. layers: whose weights were
            laid out otherwise, to see whether that is faster.
    """

    tasks: tuple[TaskReport, ...]
    model: Interval | None
    seconds: float
    undone: bool = False
    notes: tuple[str, ...] = field(default_factory=tuple)
    schedules: Mapping[str, Schedule] = field(default_factory=dict, repr=False)
    layers: tuple[TaskReport, ...] = ()

    @property
    def next_minute(self) -> float:
        """Share of the model's time that another minute may save: a guess, from how the search went lately."""
        left, found = MINUTE, 0.0
        for t in sorted(self.tasks, key=lambda t: -t.next(MINUTE)):
            given = min(left, t.seconds)
            found, left = found + t.next(given), left - given
        return found

    def __str__(self) -> str:
        lines = [*_table("layouts of", self.layers), *([""] if self.layers else []), *_table("kernel", self.tasks)]
        return "\n".join([*lines, *self._summary()])

    def _summary(self) -> list[str]:
        lines = []
        if self.model is not None:
            lines.append(f"the model is {self.model} times as fast as with the default schedules")
        if self.undone:
            lines.append("the model does not gain by what was accepted: nothing of it is kept")
        if self.tasks:
            lines.append(f"another minute may save about {100 * self.next_minute:.1f} % of the time")
        return [*lines, *self.notes, f"{self.seconds:.1f} s"]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained HTML page: kernels before and after, the search of each, predictions beside measurements."""
        file = Path(path)
        rows = [
            [t.name, f"{100 * t.share:.1f}", str(t.calls), str(t.trials), str(t.refused), f"{t.best:.2f}", str(t.accepted or ""), t.changes, f"{t.seconds:.1f}"]
            for t in (*self.layers, *self.tasks)
        ]  # fmt: skip
        bars = [(t.name, t.share, t.share - t.gain) for t in self.tasks]
        pictures: list[tuple[str, Sequence[tuple[float, float]], Sequence[tuple[float, float]]]] = [
            (t.name, t.curve, t.predictions) for t in self.tasks
        ]
        file.write_text(page_of(self._summary(), rows, bars, pictures), encoding="utf-8")
        return file


def _table(what: str, tasks: Sequence[TaskReport]) -> list[str]:
    if not tasks:
        return []
    width = max(len(what), *(len(t.name) for t in tasks))
    lines = [f"{what:<{width}}  {'%':>5}  {'tried':>5}  {'refused':>7}  {'best':>5}  accepted"]
    for t in tasks:
        told = f"{t.accepted}  {t.changes}" if t.accepted else "the default stays"
        lines.append(f"{t.name:<{width}}  {100 * t.share:5.1f}  {t.trials:5}  {t.refused:7}  {t.best:5.2f}  {told}")
    return lines
