"""How the tests judge a schedule: it computes the same, in the interpreter and natively; it replays; a refused step changes
nothing and says why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tcomp
from tcomp.errors import ScheduleError
from tcomp.ir import PrimFunc
from tcomp.ir.equal import structural_equal
from tcomp.ir.interp import run
from tcomp.ir.verify import verify
from tcomp.schedule import Schedule, Trace
from tcomp.tools.fuzz import agree, cooperating, make_inputs
from tcomp.tools.races import races


def check(sch: Schedule, func: PrimFunc, native: bool = True) -> None:
    """The schedule computes the same, is free of races, replays from text and from JSON, and is well formed."""
    verify(sch.func)
    inputs = make_inputs(func, 1)
    want = run(func, inputs)
    assert all(map(agree, run(sch.func, inputs), want))
    assert not races(sch.func, inputs, {}, cooperating(sch.func))
    again = Trace.from_json(sch.trace.as_json()).replay(Schedule(func))
    assert structural_equal(again.func, sch.func)
    scope = {"sch": Schedule(func)}
    exec(sch.trace.as_python(), scope)
    assert structural_equal(scope["sch"].func, sch.func)
    if native:
        got = tcomp.compile(sch)(*inputs)
        assert all(map(agree, got if isinstance(got, tuple) else [got], want))


class _Recorder:
    """A schedule that notes its state before each call."""

    def __init__(self, sch: Schedule, note: Callable[[Schedule, str], None]) -> None:
        self._sch, self._note = sch, note

    def __getattr__(self, name: str) -> object:
        value = getattr(self._sch, name)
        if callable(value) and not name.startswith("get_"):

            def call(*args: object, **named: object) -> object:
                self._note(self._sch, name)
                return value(*args, **named)

            return call
        return value


def expect(func: PrimFunc, reason: str, step: Callable[[Schedule], object]) -> str:
    """The last step is refused for that reason, and leaves the schedule as it was; returns its name."""
    sch = Schedule(func)
    before: list = []

    def prepared(s: Schedule, name: str) -> None:
        before.append((s.func, len(s.trace.steps), name))

    with pytest.raises(ScheduleError, match=reason) as error:
        step(_Recorder(sch, prepared))
    assert error.value.why or error.value.what
    assert sch.func is before[-1][0]
    names = [x.method for x in sch.trace.steps[before[-1][1] :]]
    assert all(n.startswith("get_") for n in names)
    return before[-1][2]


def filled(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Small whole numbers."""
    return rng.integers(0 if dtype.startswith("u") else -3, 4, shape).astype(dtype)
