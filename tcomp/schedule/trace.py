"""The record of a schedule: a list of steps that prints as Python, saves as JSON and replays."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ScheduleError, TcompError
from ..ir.expr import Buffer, Var
from ..ir.index_map import IndexMap
from .primitives import ALL, BlockRef
from .primitives.sampling import DRAW, Sampled

VERSION = 1


@dataclass(frozen=True, slots=True)
class Handle:
    """A name that stands for a loop or a block within a trace."""

    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a method of Schedule.

    Attributes:
        method: its name.
        args: handles, numbers, strings, or lists of these.
        results: the names that its results received.
        shape: "none", "one" or "many": how the results were returned.
    """

    method: str
    args: tuple[Any, ...]
    results: tuple[str, ...] = ()
    shape: str = "none"

    def as_python(self) -> str:
        call = f"sch.{self.method}({', '.join(map(_show, self.args))})"
        if not self.results:
            return call
        names = ", ".join(self.results)
        return f"{names}{',' if self.shape == 'many' and len(self.results) == 1 else ''} = {call}"


def _show(arg: Any) -> str:
    if isinstance(arg, Handle):
        return arg.name
    if isinstance(arg, (list, tuple)):
        return f"[{', '.join(map(_show, arg))}]"
    return repr(arg)


class _Nowhere:
    """Stands for a place that a sampling step did not name."""

    name = "nowhere"


@dataclass(slots=True)
class Trace:
    """Steps in order. `str()` gives runnable Python over a Schedule named `sch`."""

    steps: list[Step] = field(default_factory=list)
    _names: dict[Any, str] = field(default_factory=dict)

    def copy(self) -> Trace:
        return Trace(list(self.steps), dict(self._names))

    def as_python(self) -> str:
        """The steps as Python text."""
        return "\n".join(step.as_python() for step in self.steps)

    __str__ = as_python

    @property
    def samples(self) -> list[int]:
        """The places of the sampling steps."""
        return [place for place, step in enumerate(self.steps) if step.method in DRAW]

    def record(self, method: str, args: Sequence[Any], results: Any) -> Step:
        """Append a step; its results receive names."""
        many = isinstance(results, (list, tuple))
        values = list(results) if many else [] if results is None else [results]
        if method == "sample_compute_location" and results is None:
            values = [_Nowhere()]
        step = Step(
            method,
            tuple(self._encode(a) for a in args),
            tuple(self._name(v) for v in values),
            "many" if many else "one" if values else "none",
        )
        self.steps.append(step)
        return step

    def knows(self, handle: Any) -> bool:
        """Whether a loop or block is the result of some step."""
        return handle in self._names

    def _name(self, value: Any) -> str:
        key = value.token if isinstance(value, Sampled) else value
        known = self._names.get(key)
        if known is not None:
            return known
        base = "n" if isinstance(value, Sampled) else getattr(value, "name", "place")
        base = f"block_{base}" if isinstance(value, BlockRef) else base
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in base)
        name, number, taken = base, 0, set(self._names.values())
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        self._names[key] = name
        return name

    def _encode(self, arg: Any) -> Any:
        if isinstance(arg, BlockRef) and arg not in self._names:
            return arg.name  # the user named the block by a string
        if isinstance(arg, (Var, BlockRef)) or (isinstance(arg, Sampled) and arg.token in self._names):
            return Handle(self._name(arg))
        if isinstance(arg, Sampled):
            return int(arg)
        if isinstance(arg, IndexMap):
            return str(arg)
        if isinstance(arg, Buffer):
            return arg.name
        if isinstance(arg, (list, tuple)):
            return tuple(self._encode(a) for a in arg)
        return arg

    def as_json(self) -> str:
        """The steps as JSON text, with a version."""

        def encode(arg: Any) -> Any:
            if isinstance(arg, Handle):
                return {"handle": arg.name}
            return [encode(a) for a in arg] if isinstance(arg, tuple) else arg

        steps = [[s.method, [encode(a) for a in s.args], list(s.results), s.shape] for s in self.steps]
        return json.dumps({"version": VERSION, "steps": steps}, indent=1)

    @staticmethod
    def from_json(text: str) -> Trace:
        """The trace that `as_json` wrote.

        Raises:
            ScheduleError: the text is no trace, or one of another version.
        """

        def decode(arg: Any) -> Any:
            if isinstance(arg, dict):
                return Handle(arg["handle"])
            return tuple(decode(a) for a in arg) if isinstance(arg, list) else arg

        try:
            data = json.loads(text)
            if data["version"] != VERSION or isinstance(data["version"], bool):
                raise ScheduleError(
                    f"a trace of version {data['version']!r}", why=f"this tcomp reads version {VERSION}"
                )
            steps = [Step(m, tuple(decode(a) for a in args), tuple(r), shape) for m, args, r, shape in data["steps"]]
            for step in steps:
                if not all(isinstance(t, str) for t in (step.method, *step.results, *_handles(step.args))):
                    raise ScheduleError("the text is not a schedule trace", why="a method or handle is no string")
                if step.shape not in ("one", "many", "none") or (step.shape == "one" and len(step.results) != 1):
                    raise ScheduleError(
                        "the text is not a schedule trace", why=f"results {step.results} as {step.shape!r}"
                    )
            return Trace(steps)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, ScheduleError):
                raise
            raise ScheduleError("the text is not a schedule trace", why=str(error)) from error

    def replay(self, sch: Any, draw: bool | Collection[int] = False) -> Any:
        """Run the steps on a schedule of the same computation (of another shape, where each step is legal there).

        Args:
            draw: let sampling steps make new decisions, or those at these places of the trace; else they repeat those of the trace.

        Returns:
            The schedule.

        Raises:
            ScheduleError: a step is refused or unknown.
        """
        known: dict[str, Any] = {}

        def decode(arg: Any) -> Any:
            if isinstance(arg, Handle):
                return known[arg.name]
            return [decode(a) for a in arg] if isinstance(arg, tuple) else arg

        for place, step in enumerate(self.steps):
            if step.method not in ALL and step.method not in ("get_block", "get_loops"):
                raise ScheduleError(f"the trace calls {step.method!r}, which this tcomp's Schedule does not have")
            is_new = step.method in DRAW and (draw if isinstance(draw, bool) else place in draw)
            args = step.args[:-1] if is_new else step.args
            try:
                result = getattr(sch, step.method)(*map(decode, args))
                values = list(result) if step.shape == "many" else [result]
            except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
                if isinstance(error, TcompError):
                    raise
                unknown = isinstance(error, KeyError) and error.args[0] in _handles(step.args)
                why = f"no step before it made {error}" if unknown else f"{type(error).__name__}: {error}"
                raise ScheduleError(f"cannot replay {step.as_python()[:200]}", why=why) from error
            if step.shape != "none" and len(values) != len(step.results):
                raise ScheduleError(f"cannot replay {step.as_python()}", why=f"it gave {len(values)} results here")
            known.update(zip(step.results, values))
        return sch


def _handles(args: Any) -> list[Any]:
    """The names of the handles among arguments."""
    if isinstance(args, Handle):
        return [args.name]
    return [h for a in args for h in _handles(a)] if isinstance(args, tuple) else []
