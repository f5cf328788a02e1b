"""CPUs: LLVM, the default rules of schedule/rules/cpu, this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..codegen.assembly import assembly_facts
from ..codegen.build import Kernel, LoweringStep, build_all, cached_code, make_kernel
from ..codegen.cache import ObjectCache
from ..codegen.llvm.generator import LlvmGenerator
from ..ir.primfunc import PrimFunc
from ..ir.printer import text
from ..lazy import lazy_module
from ..passes.pack import LayoutPolicy
from ..runtime.device.cpu import CpuLibrary, load_objects
from ..runtime.program import Branch, Launch, Loop, Program, Step
from ..target import CpuTarget
from .scheduling import cpu_scheduler, told
from .workers import helpers

# what a model whose kernels are all in the cache does not need
llvm_entry = lazy_module("tcomp.codegen.llvm.entry")
layouts = lazy_module("tcomp.schedule.rules.cpu.layout")
schedules = lazy_module("tcomp.schedule")


@dataclass(frozen=True)
class CpuBackend:
    """A `Backend` for one CPU."""

    target: CpuTarget

    @property
    def generator(self) -> LlvmGenerator:
        return LlvmGenerator(self.target)

    @property
    def steps(self) -> tuple[LoweringStep, ...]:
        return self.generator.steps

    @property
    def views(self) -> Mapping[str, Callable[[Kernel], str]]:
        return {"llvm": lambda k: k.text, "asm": lambda k: k.assembly(), "explain": self.explain}

    def layout(self, winograd: bool) -> LayoutPolicy:
        policy: LayoutPolicy = layouts.CpuLayout(self.target, winograd)
        return policy

    def kernel(self, func: PrimFunc, given: Any = None) -> Kernel:
        if given is None:
            return make_kernel(func, self.generator, cpu_scheduler(self.target))
        return make_kernel(func, self.generator, lambda _: told(given), f"given\n{text(given.schedule.func)}")

    def build(
        self, kernels: Sequence[Kernel], cache: ObjectCache, on_done: Callable[[Kernel], None] | None = None
    ) -> None:
        build_all(kernels, cache, on_done, helpers)

    def link(self, program: Program, kernels: Sequence[Kernel], cache: ObjectCache) -> CpuLibrary:
        name = f"{list(map(_code_of, program.steps))!r}|{program.flush_denormals}"
        entry = cached_code(name, lambda: llvm_entry.entry_module(program), self.generator, cache)
        objects = dict.fromkeys(k.object_code for k in kernels)
        return load_objects([*objects, entry], lacking=self.target.missing_here())

    def explain(self, k: Kernel) -> str:
        """Which schedule a kernel got, what it costs by arithmetic, and what its assembly looks like."""
        lines = [f"kernel {k.func.name} for {self.target}", f"rule: {k.made.rule}"]
        lines += [f"    {line}" for line in k.made.plan.splitlines()]
        if k.func.dims:
            lines.append(f"extents {', '.join(v.name for v in k.func.dims)} are known only when it runs")
        else:
            cost = schedules.Schedule(k.scheduled).estimate(target=self.target)
            lines.append(str(cost))
            needed = k.func.attrs.get("flops", 0) if k.func.attrs.get("exact") else 0
            if 0 < needed < cost.flops:
                lines.append(f"{100 * (1 - needed / cost.flops):.1f} % of its operations fill up tiles and borders")
            elif needed > cost.flops:
                lines.append(
                    f"its algorithm saves {100 * (1 - cost.flops / needed):.1f} % of the direct way's operations"
                )
        return "\n".join([*lines, str(assembly_facts(k.assembly()))])


def _code_of(s: Step) -> Any:
    """What of a step decides the entry's code."""
    match s:
        case Launch():
            return s.symbol, s.arguments
        case Loop():
            return "loop", s.length, s.reverse, s.count, list(map(_code_of, s.steps))
        case Branch():
            return "if", s.condition, list(map(_code_of, s.then)), list(map(_code_of, s.orelse))
        case _:
            return s
