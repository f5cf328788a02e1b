"""A run that is repeated as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from .arguments import Spec, as_array
from .device.arrays import DeviceArray
from .device.base import OnDevice


@dataclass(frozen=True, eq=False)
class Graph:
    """A captured run of a model; see `Executable.graph`.

    Attributes:
        inputs: the arrays that it reads: write to them, or give others to a call, which are copied there. outputs: those that it writes, each
            time anew.
    """

    specs: Sequence[Spec] = field(repr=False)
    inputs: tuple[DeviceArray, ...]
    outputs: tuple[DeviceArray, ...]
    device: OnDevice = field(repr=False)
    replay: Callable[[], None] = field(repr=False)

    def __call__(self, *args: Any) -> Any:
        """Run the model.

        Args:
            args: an array for each input, in order, of the shapes that were captured; or none, for what the inputs hold.

        Returns:
            The outputs, which the next call overwrites.

        Raises:
            InputError: an argument is missing, or does not fit.
        """
        if args and len(args) != len(self.inputs):
            raise InputError(f"{len(args)} arguments given", why=f"the captured run has {len(self.inputs)} inputs")
        found = []
        for spec, own, given in zip(self.specs, self.inputs, args):
            array = self.device.view(given)
            array = as_array(given if array is None else array, spec)
            if array.shape != own.shape:
                raise InputError(
                    f"input {spec.name!r} has shape {list(array.shape)}",
                    why=f"the run was captured for {list(own.shape)}",
                )
            found.append((own, array))
        for own, array in found:
            if array is not own:
                self.device.write(own, array)
        self.replay()
        return self.outputs[0] if len(self.outputs) == 1 else self.outputs
