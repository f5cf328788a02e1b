"""What compile() asks of a kind of target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # what loads a compiled model needs none of these
    from ..codegen.build import Kernel, LoweringStep
    from ..codegen.cache import ObjectCache
    from ..ir.primfunc import PrimFunc
    from ..passes.pack import LayoutPolicy
    from ..runtime.device.base import Library
    from ..runtime.program import Program
    from ..target import Target


class Backend(Protocol):
    """Everything that differs between kinds of targets: policies of graph passes, schedules, lowering, code, device.

    Attributes:
        target: the machine.
        steps: lowering steps of scheduled kernels, in order.
        views: further stages that `Executable.ir` shows, by name.
    """

    @property
    def target(self) -> Target: ...

    @property
    def steps(self) -> tuple[LoweringStep, ...]: ...

    @property
    def views(self) -> Mapping[str, Callable[[Kernel], str]]: ...

    def layout(self, winograd: bool) -> LayoutPolicy:
        """How operands of kernels should lie.

        Args:
            winograd: whether 3 x 3 convolutions may go by Winograd's algorithm.
        """

    def kernel(self, func: PrimFunc, given: Any = None) -> Kernel:
        """A kernel with the schedule that somebody gave (a `Found`), else with the default one."""

    def build(
        self, kernels: Sequence[Kernel], cache: ObjectCache, on_done: Callable[[Kernel], None] | None = None
    ) -> None:
        """Make the code of kernels, or fetch it from the cache."""

    def link(self, program: Program, kernels: Sequence[Kernel], cache: ObjectCache) -> Library:
        """The code of a program, loaded."""

    def load(self, objects: Sequence[bytes]) -> Library:
        """A library from what it was linked from before (`Library.objects`)."""
