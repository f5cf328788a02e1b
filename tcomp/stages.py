"""What a model looks like on its way, as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .codegen.build import Kernel
from .errors import TcompError
from .ir.graph import FuncCall
from .ir.module import IRModule
from .ir.node import with_fields
from .ir.printer import text
from .memory import zeros_like

_OF_KERNELS: dict[str, Callable[[Kernel], str]] = {
    "loops": lambda k: text(k.func),
    "scheduled": lambda k: f"# rule: {k.made.rule}\n{text(k.scheduled)}",
    "schedule": lambda k: k.made.schedule,
}


def without_values(m: IRModule) -> IRModule:
    """The module with zeros, which take no memory, for its constants: what is shown of them is types."""
    return with_fields(m, constants={name: zeros_like(a) for name, a in m.constants.items()})


@dataclass(frozen=True)
class Stages:
    """Shows a model, or one kernel of it, at a stage.

    Attributes:
        modules: the stages of the whole model; kernels: by name; views: stages of kernels that the backend adds.
    """

    modules: Mapping[str, IRModule]
    kernels: Mapping[str, Kernel]
    views: Mapping[str, Callable[[Kernel], str]]

    def __call__(self, stage: str, kernel: str | None = None) -> str:
        of_kernels = {**_OF_KERNELS, **self.views}
        if stage not in ("graph", "fused") and stage not in of_kernels:
            raise TcompError(f"no stage {stage!r}", hint=f"one of graph, fused, {', '.join(of_kernels)}")
        if kernel is not None and kernel not in self.kernels:
            raise TcompError(f"no kernel {kernel!r}", why=f"the kernels are {', '.join(self.kernels)}")
        if stage in ("graph", "fused"):
            module = self.modules[stage]
            return text(module.functions[kernel] if kernel and stage == "fused" else module)
        chosen = [self.kernels[kernel]] if kernel else list(self.kernels.values())
        return "\n\n".join(of_kernels[stage](k) + (self._origins(k) if stage == "explain" else "") for k in chosen)

    def _origins(self, k: Kernel) -> str:
        """The nodes of the source model that a kernel computes, a line for each call of it."""
        calls = (b for f in self.modules["fused"].graphs for b in f.bindings)
        names = (b.origin for b in calls if isinstance(b.call, FuncCall) and b.call.callee == k.func.name)
        found = dict.fromkeys(name for name in names if name)
        return "".join(f"\ncomputes {origin}" for origin in found)
