"""A program's steps run one by one from Python: by the reference backend, and where each kernel is timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

from .device.base import Device
from .extents import Extent
from .program import Argument, Branch, Clear, Copy, Launch, Loop, Program, Step


class StepRunner:
    """Runs steps on memory.

    Args:
        addresses: of inputs, then outputs ("args"), of constants ("consts"); the sizes of symbolic extents ("dims").
        arena: where the workspace begins.
        launch: called with each kernel call and its values: addresses, and sizes.
    """

    def __init__(
        self,
        program: Program,
        device: Device,
        addresses: Mapping[str, Sequence[int]],
        arena: int,
        launch: Callable[[Launch, list[int]], None],
    ) -> None:
        self._steps = program.steps
        self._device = device
        self._addresses = addresses
        self._arena = arena
        self._launch = launch

    def run(self) -> None:
        """Run the whole program once."""
        self._run(self._steps, ())

    def _run(self, steps: Sequence[Step], trips: tuple[int, ...]) -> None:
        for step in steps:
            match step:
                case Launch():
                    self._launch(step, [self._value(a, trips) for a in step.arguments])
                case Copy():
                    source, target = self._value(step.source, trips), self._value(step.target, trips)
                    self._device.copy(target, source, self._size(step.nbytes))
                case Clear():
                    self._device.clear(self._value(step.target, trips), self._size(step.nbytes))
                case Loop():
                    rows = self._size(step.length)
                    if step.count is not None:
                        rows = min(max(self._read(step.count, trips, 8), 0), rows)
                    for at in reversed(range(rows)) if step.reverse else range(rows):
                        self._run(step.steps, (*trips, at))
                case Branch():
                    self._run(step.then if self._read(step.condition, trips, 1) else step.orelse, trips)
                case _:
                    assert_never(step)

    def _read(self, a: Argument, trips: tuple[int, ...], nbytes: int) -> int:
        return int.from_bytes(self._device.read(self._value(a, trips), nbytes), "little", signed=True)

    def _value(self, a: Argument, trips: tuple[int, ...]) -> int:
        at = self._arena + a.index if a.kind == "arena" else self._addresses[a.kind][a.index]
        return at + sum(trips[loop] * self._size(nbytes) for loop, nbytes in a.strides)

    def _size(self, e: int | Extent) -> int:
        return e if isinstance(e, int) else e.value(self._addresses["dims"])
