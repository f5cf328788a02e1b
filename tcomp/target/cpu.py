"""A CPU to compile for."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..lazy import lazy_module
from .base import Target
from .costs import CostModel
from .families import family

llvm = lazy_module("llvmlite.binding")


@dataclass(frozen=True, slots=True)
class CpuTarget(Target):
    """A CPU, as schedules and code generation see it.

    Attributes:
        triple, cpu, features: in LLVM's words.
        vector_bytes: width of a vector register; num_registers: how many there are.
        fma_ports: vector multiply-adds that a core can start in a cycle.
        l1_bytes: data cache of a core. l2_bytes, l3_bytes: the next caches (l3 0 for none), and l2_cores, l3_cores: how many of
            the cores that tcomp counts (hardware threads) share one of them.
        num_cores: cores to schedule for.
        costs: what its operations cost.
    """

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    num_registers: int
    fma_ports: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    l2_cores: int
    l3_cores: int
    num_cores: int
    costs: CostModel = field(default_factory=CostModel)

    def __str__(self) -> str:
        return f"cpu -mcpu={self.cpu} -num-cores={self.num_cores} ({8 * self.vector_bytes}-bit vectors)"

    @property
    def text(self) -> str:
        """What `Target.parse` makes this target of, on any machine."""
        attributes = f" -mattr={self.features}" if self.features else ""
        sizes = {
            "l1": self.l1_bytes,
            "l2": self.l2_bytes,
            "l3": self.l3_bytes,
            "l2-cores": self.l2_cores,
            "l3-cores": self.l3_cores,
        }
        counts = {"num-cores": self.num_cores, "fma-ports": self.fma_ports, **sizes}
        told = " ".join(f"-{name}={count}" for name, count in counts.items())
        return f"llvm -mtriple={self.triple} -mcpu={self.cpu}{attributes} {told}"

    @property
    def l2_bytes_per_core(self) -> int:
        """The part of L2 that a core has to itself while all cores that the schedule uses are busy."""
        return self.l2_bytes // min(self.l2_cores, self.num_cores)

    def lanes(self, itemsize: int) -> int:
        """Elements in a vector register."""
        return max(self.vector_bytes // itemsize, 1)

    def has(self, feature: str) -> bool:
        """Whether the CPU certainly has a feature (in LLVM's words, such as "avx512vnni"); "" is had by all."""
        return not feature or feature in features_of(self.triple, self.cpu, self.features)

    @property
    def converts_halves(self) -> bool:
        """Whether the CPU has instructions that convert between float16 and float32 (F16C on x86-64)."""
        return not self.triple.startswith("x86_64") or self.has("f16c")

    @property
    def fuses_multiply_add(self) -> bool:
        """Whether the CPU has multiply-adds that round once."""
        arch = self.triple.split("-")[0]
        return self.has("fma") if arch == "x86_64" else not arch.startswith("wasm")

    @property
    def is_here(self) -> bool:
        """Whether this process can load the code: its architecture and system are the process's own."""
        here = llvm.get_process_triple()
        return self.triple.split("-")[0] == here.split("-")[0] and ("linux" in self.triple) == ("linux" in here)

    def missing_here(self) -> tuple[str, ...]:
        """The features of the target that this machine's CPU lacks: its code would end the process there. Empty for other
        architectures than x86-64."""
        if not self.is_here:
            return (f"{self.triple} code",)
        if not self.triple.startswith("x86_64"):
            return ()
        here = llvm.get_host_cpu_features()
        return tuple(sorted(f for f in features_of(self.triple, self.cpu, self.features) if not here.get(f, False)))


def features_of(triple: str, cpu: str, features: str) -> frozenset[str]:
    """The features that generated code may use: those known by the CPU's name, with those added and without those taken away by
    `features` (such as "+avx2,-avx512f")."""
    named = [f for f in features.split(",") if f]
    known = family(triple.split("-")[0], cpu).features
    return (known | {f[1:] for f in named if f[0] == "+"}) - {f[1:] for f in named if f[0] == "-"}
