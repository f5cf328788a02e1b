"""Layouts of weights, tried layer by layer: how wide panels are, Winograd's algorithm or the direct way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import TcompError
from ..ir.module import IRModule
from ..ops.reference import evaluate
from ..runtime.example import example_inputs
from ..schedule.rules.cpu.layout import CpuLayout
from ..target import CpuTarget
from ..tuner.database import Database, Key, Record, Trial
from ..tuner.layouts import LAYOUT, Layer
from ..tuner.measure import Interval, interval_of, is_near
from ..tuner.report import TaskReport
from ..tuner.space import Candidate, differences
from ..tuner.tuner import CONFIRMED, MARGIN
from .whole import Executables, compare, pairs_of

LEAST_SHARE = 0.02
"""Of the model's time, below which a layer is left."""
PAIRS, CONFIRMING = 5, 3
"""Pairs of a first look; times that both are made again for a second one."""
WINOGRAD_ERROR = 1e-5
"""Relative error (2-norm, to float64) that Winograd's algorithm may have."""

Make = Callable[[IRModule, Database | str], Executables]
"""Compiles a model with records, "" for none."""


@dataclass
class LayerState:
    """A layer under way. share: of the model's time, by the default."""

    layer: Layer
    key: Key
    default: Candidate
    share: float
    trials: dict[Candidate, Trial] = field(default_factory=dict)
    seconds: float = 0.0
    accepted: Record | None = None

    @property
    def best(self) -> float:
        return max((t.ratio or 0.0 for t in self.trials.values()), default=1.0)

    def report(self) -> TaskReport:
        measured = sum(t.ratio is not None for t in self.trials.values())
        r = self.accepted
        changes = ""
        if r is not None:
            changes = ", ".join(f"{n} {b} -> {a}" for n, (a, b) in differences(r.candidate, self.default).items())
        return TaskReport(
            self.layer.name, self.share, self.layer.calls, measured, len(self.trials) - measured, self.best,
            None if r is None else r.ratio, changes, self.seconds,
        )  # fmt: skip


@dataclass
class LayerTuner:
    """Tries other layouts of the layers that take the most time.

    Args:
        target, threads: of what is compiled. use_winograd: whether that is allowed. records: where trials are kept.
    """

    make: Make
    target: CpuTarget
    threads: int | None
    use_winograd: bool
    records: Database

    def run(
        self, layers: Sequence[Layer], model_s: float, budget_s: float, tell: Callable[[], None]
    ) -> list[LayerState]:
        """Those that were looked at, with what was found.

        Args:
            model_s: seconds of the model's run by default. tell: called after each layer.
        """
        start = time.perf_counter()
        found = []
        for layer in sorted(layers, key=lambda k: k.flops * k.calls, reverse=True):
            left = budget_s - (time.perf_counter() - start)
            if left <= 0:
                break
            state = self.tuned(layer, model_s, left)
            if state.share >= LEAST_SHARE:
                found.append(state)
            tell()
        return found

    def tuned(self, layer: Layer, model_s: float, budget_s: float) -> LayerState:
        """Try what a layer's weight may look like, the nearest to the default first."""
        start = time.perf_counter()
        key = Key.of(layer.question.key, self.target, self.threads)
        default = layer.default(CpuLayout(self.target, self.use_winograd))
        module = layer.module(0)
        usual = self.make(module, "")
        arrays = example_inputs(usual[0].program)
        share = layer.calls * usual[0].time(*arrays, repeat=5).median / model_s
        state = LayerState(layer, key, default, share)
        if share < LEAST_SHARE:
            return state
        state.trials = {t.candidate: t for t in self.records.trials(key)}
        others = [c for c in layer.candidates(self.target, self.use_winograd) if c != default]
        for c in sorted(others, key=lambda c: _distance(c, default)):
            if c not in state.trials and time.perf_counter() - start < budget_s:
                trial = self._tried(module, usual, arrays, key, c)
                self.records.add(key, [trial])
                state.trials[c] = trial
        promising = sorted((t for t in state.trials.values() if (t.ratio or 0.0) > MARGIN), key=lambda t: -(t.ratio or 0.0))  # fmt: skip
        confirmed = [r for r in [self.records.record(key)] if r is not None and r.candidate.rule == LAYOUT]
        confirmed = confirmed or [
            r for t in promising[:CONFIRMED] if (r := self._confirmed(layer, key, t.candidate)) is not None
        ]
        state.accepted = max(confirmed, key=lambda r: r.ratio.low, default=None)
        state.seconds = time.perf_counter() - start
        return state

    def _tried(
        self, module: IRModule, usual: Executables, arrays: Sequence[np.ndarray], key: Key, candidate: Candidate
    ) -> Trial:
        try:
            other = self.make(module, only(_record(key, "", candidate)))
        except TcompError as error:
            return Trial(candidate, "", None, error.what)
        return Trial(candidate, candidate.to_json(), interval_of(pairs_of(usual, other, arrays, PAIRS)).middle)

    def _confirmed(self, layer: Layer, key: Key, candidate: Candidate) -> Record | None:
        """The record of a layout that is surely faster, and right, with other weights on other inputs."""
        record = _record(key, layer.name, candidate)
        module = layer.module(1)
        usual, other = self.make(module, ""), self.make(module, only(record))
        arrays = example_inputs(usual[0].program, 1)
        exact = evaluate(module, arrays, exact=True)[0]
        allowed = WINOGRAD_ERROR if dict(candidate.decisions)["tile"] else 0.0
        if not is_near(np.asarray(usual[0](*arrays)), np.asarray(other[0](*arrays)), exact, allowed):
            return None
        ratio = compare(lambda tuned: self.make(module, only(record) if tuned else ""), arrays, CONFIRMING)
        seconds = other[0].time(*arrays, repeat=5).median
        return replace(record, ratio=ratio, seconds=seconds) if ratio.low > MARGIN else None


def only(*records: Record) -> Database:
    """A database of these records alone, in memory."""
    found = Database()
    for r in records:
        found.accept(r)
    return found


def _record(key: Key, name: str, candidate: Candidate) -> Record:
    return Record(key, name, candidate, Interval(1.0, 1.0, 1.0), 0.0, {})


def _distance(a: Candidate, b: Candidate) -> tuple[bool, int]:
    one, other = dict(a.decisions), dict(b.decisions)
    return one["tile"] != other["tile"], abs(one["width"] - other["width"])
