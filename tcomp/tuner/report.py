"""What a run of the tuner tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from .measure import Interval


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One kernel.

    Attributes:
        share: of the model's time, by default. trials: measured; refused: that could not be built, or were wrong. best: the highest ratio
            that the search saw, with its noise. accepted: the confirmed ratio; None where the default stays. changes: what the accepted plan
            decides otherwise, as text.
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


@dataclass(frozen=True)
class TuneReport:
    """A run.

    Attributes:
        model: time of the model with the default schedules divided by that with the records; None for a kernel alone, or where nothing was
            accepted. seconds: that the run took. undone: whether the model did not gain, so that no record was kept.
    """

    tasks: tuple[TaskReport, ...]
    model: Interval | None
    seconds: float
    undone: bool = False
    notes: tuple[str, ...] = field(default_factory=tuple)

    def __str__(self) -> str:
        width = max([len(t.name) for t in self.tasks] + [6])
        lines = [f"{'kernel':<{width}}  {'%':>5}  {'tried':>5}  {'refused':>7}  {'best':>5}  accepted"]
        for t in self.tasks:
            told = f"{t.accepted}  {t.changes}" if t.accepted else "the default stays"
            lines.append(f"{t.name:<{width}}  {100 * t.share:5.1f}  {t.trials:5}  {t.refused:7}  {t.best:5.2f}  {told}")
        if self.model is not None:
            lines.append(f"the model is {self.model} times as fast as with the default schedules")
        if self.undone:
            lines.append("the model does not gain: nothing is kept")
        return "\n".join([*lines, *self.notes, f"{self.seconds:.1f} s"])
