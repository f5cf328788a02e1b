"""CPUs: LLVM, the default rules of schedule/rules/cpu, this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..lazy import lazy_module
from ..runtime.device.cpu import CpuLibrary, ForeignLibrary, load_objects
from ..runtime.program import Branch, Launch, Loop, Program, Step
from ..target import CpuTarget

if TYPE_CHECKING:
    from ..codegen.build import Kernel, LoweringStep
    from ..codegen.cache import ObjectCache
    from ..codegen.llvm.generator import LlvmGenerator
    from ..ir.primfunc import PrimFunc
    from ..passes.pack import LayoutPolicy

# what a model that was compiled before does not need
assembly = lazy_module("tcomp.codegen.assembly")
build = lazy_module("tcomp.codegen.build")
c_source = lazy_module("tcomp.codegen.c.source")
llvm = lazy_module("tcomp.codegen.llvm.generator")
printer = lazy_module("tcomp.ir.printer")
scheduling = lazy_module("tcomp.backends.scheduling")
workers = lazy_module("tcomp.backends.workers")
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
        generator: LlvmGenerator = llvm.LlvmGenerator(self.target)
        return generator

    @property
    def steps(self) -> tuple[LoweringStep, ...]:
        return self.generator.steps

    @property
    def views(self) -> Mapping[str, Callable[[Kernel], str]]:
        return {
            "llvm": lambda k: k.text,
            "asm": lambda k: k.assembly(),
            "c": c_source.kernel_text,
            "explain": self.explain,
        }

    def layout(self, winograd: bool) -> LayoutPolicy:
        policy: LayoutPolicy = layouts.CpuLayout(self.target, winograd)
        return policy

    def kernel(self, func: PrimFunc, given: Any = None) -> Kernel:
        variant, scheduler = "", scheduling.cpu_scheduler(self.target)
        if given is not None:
            variant, scheduler = f"given\n{printer.text(given.schedule.func)}", lambda _: scheduling.told(given)
        kernel: Kernel = build.make_kernel(func, self.generator, scheduler, variant)
        return kernel

    def build(
        self, kernels: Sequence[Kernel], cache: ObjectCache, on_done: Callable[[Kernel], None] | None = None
    ) -> None:
        build.build_all(kernels, cache, on_done, workers.helpers)

    def link(self, program: Program, kernels: Sequence[Kernel], cache: ObjectCache) -> CpuLibrary | ForeignLibrary:
        name = f"{list(map(_code_of, program.steps))!r}|{program.flush_denormals}"
        entry = build.cached_code(name, lambda: llvm_entry.entry_module(program), self.generator, cache)
        return self.load([*dict.fromkeys(k.object_code for k in kernels), entry])

    def load(self, objects: Sequence[bytes]) -> CpuLibrary | ForeignLibrary:
        if not self.target.is_here:
            return ForeignLibrary(objects, self.target.missing_here())
        return load_objects(objects, lacking=self.target.missing_here())

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
        return "\n".join([*lines, str(assembly.assembly_facts(k.assembly()))])


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
