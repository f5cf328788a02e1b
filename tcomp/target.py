"""What code is generated for: detected, or given as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import TargetError
from .lazy import lazy_module
from .runtime.threads import usable_cores

llvm = lazy_module("llvmlite.binding")

_VNNI = ("cascadelake", "icelake-client", "icelake-server", "rocketlake", "tigerlake")
_BF16 = ("cooperlake", "sapphirerapids", "emeraldrapids", "graniterapids", "znver4", "znver5")
_FP16 = ("sapphirerapids", "emeraldrapids", "graniterapids")
_VBMI = ("cannonlake", "icelake", "tigerlake", "rocketlake", "znver4", "znver5", *_FP16)
_CPUS_WITH = {"avx512vnni": (*_VNNI, *_BF16), "avx512bf16": _BF16}
"""CPUs, in LLVM's names, that have features which tensor intrinsics need."""

_SIZE = re.compile(r"(\d+)([KM]?)$")
_OPTION = re.compile(r"-(mcpu|mattr|mtriple|num-cores|fma-ports|l1|l2|l3|l2-cores|l3-cores)=(\S+)$")
_OPTIONS = (
    "-mcpu=, -mattr=, -mtriple=, -num-cores=, -fma-ports=, -l1=, -l2=, -l3= (bytes, or 48K, 2M), -l2-cores=, -l3-cores="
)
_ONE_PORT = ("znver4", "icelake-client", "tigerlake", "rocketlake", "cannonlake")
"""CPUs that start one 512-bit multiply-add a cycle; all other ones start two vectors' worth."""


@dataclass(frozen=True, slots=True)
class Target:
    """A machine to compile for.

    Attributes:
        kind: "cpu".
        triple, cpu, features: in LLVM's words.
        vector_bytes: width of a vector register; num_registers: how many there are.
        fma_ports: vector multiply-adds that a core can start in a cycle.
        l1_bytes: data cache of a core. l2_bytes, l3_bytes: the next caches (l3 0 for none), and l2_cores, l3_cores: how many of
            the cores that tcomp counts (hardware threads) share one of them.
        num_cores: cores to schedule for.
    """

    kind: str
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

    def __str__(self) -> str:
        return f"{self.kind} -mcpu={self.cpu} -num-cores={self.num_cores} ({8 * self.vector_bytes}-bit vectors)"

    @property
    def own_l2_bytes(self) -> int:
        """The part of the second cache that a core has to itself while all cores that the schedule uses are busy."""
        return self.l2_bytes // min(self.l2_cores, self.num_cores)

    def lanes(self, itemsize: int) -> int:
        """Elements in a vector register."""
        return max(self.vector_bytes // itemsize, 1)

    def has(self, feature: str) -> bool:
        """Whether the CPU certainly has a feature (in LLVM's words, such as "avx512vnni"); "" is had by all."""
        named = f"+{feature}" in self.features.split(",")
        return not feature or named or (self.cpu in _CPUS_WITH.get(feature, ()) and f"-{feature}" not in self.features)

    @property
    def converts_halves(self) -> bool:
        """Whether the CPU has instructions that convert between float16 and float32 (F16C on x86-64)."""
        features = self.features.split(",")
        if not self.triple.startswith("x86_64"):
            return True
        by_name = self.cpu.startswith((*_KNOWN_AVX512, *_KNOWN_AVX2, "ivybridge"))
        return "+f16c" in features or (by_name and "-f16c" not in features)

    def missing_here(self) -> tuple[str, ...]:
        """The features of the target that this machine's CPU lacks: its code would end the process there. Empty for another
        machine's triple, which the loader refuses by itself."""
        if self.triple != llvm.get_process_triple():
            return ()
        here = llvm.get_host_cpu_features()
        if not self.triple.startswith("x86_64"):
            return ()
        return tuple(sorted(f for f in _features_of(self.cpu, self.features) if not here.get(f, False)))

    @staticmethod
    def parse(text: str | Target) -> Target:
        """The target that a text describes.

        Args:
            text: "cpu" (this machine), or "llvm" or "cpu" with options: `-mcpu=skylake-avx512` (or `native`), `-mattr=+avx2,-avx512f`,
                `-mtriple=x86_64-unknown-linux-gnu`, `-num-cores=8`; and of what is detected otherwise, `-fma-ports=2`,
                `-l1=48K`, `-l2=2M`, `-l3=32M`, and how many cores share a cache, `-l2-cores=1`, `-l3-cores=8`.

        Raises:
            TargetError: an unknown kind or option.
        """
        if isinstance(text, Target):
            return text
        words = text.split() if isinstance(text, str) else []
        if not words or words[0] not in ("cpu", "llvm"):
            why = "tcomp generates code for CPUs; cuda has no code generator yet" if "cuda" in words[:1] else ""
            raise TargetError(
                f"unknown target {text!r}", why=why, hint='"cpu", or "llvm -mcpu=skylake-avx512 -num-cores=8"'
            )
        options: dict[str, str] = {}
        for word in words[1:]:
            match = _OPTION.match(word)
            if match is None:
                raise TargetError(f"unknown option {word!r} in target {text!r}", hint=_OPTIONS)
            options[match[1]] = match[2]
        return _make(tuple(sorted(options.items())))


def _features_of(cpu: str, features: str) -> set[str]:
    """The features of an x86-64 CPU that generated code may use, as far as tcomp knows them by its name."""
    found = {"sse2"}
    if cpu.startswith(("nehalem", "sandybridge", "ivybridge", "x86-64-v2", *_KNOWN_AVX2, *_KNOWN_AVX512)):
        found |= {"sse4.2", "popcnt"}
    if cpu.startswith(("sandybridge", "ivybridge", *_KNOWN_AVX2, *_KNOWN_AVX512)):
        found |= {"avx"}
    if cpu.startswith((*_KNOWN_AVX2, *_KNOWN_AVX512)) and not cpu.startswith("x86-64-v2"):
        found |= {"avx2", "fma", "f16c", "bmi2"}
    if cpu.startswith(_KNOWN_AVX512):
        found |= {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    found |= {feature for feature, names in _CPUS_WITH.items() if cpu in names}
    found |= {"avx512fp16"} if cpu.startswith(_FP16) else set()
    found |= {"avx512vbmi"} if cpu.startswith(_VBMI) else set()
    named = [f for f in features.split(",") if f]
    return (found | {f[1:] for f in named if f[0] == "+"}) - {f[1:] for f in named if f[0] == "-"}


@cache
def _make(given: tuple[tuple[str, str], ...]) -> Target:
    llvm.initialize_all_targets()
    options = dict(given)
    cpu, attributes = options.get("mcpu"), options.get("mattr", "")
    host_triple = llvm.get_process_triple()
    triple = options.get("mtriple", host_triple)
    if cpu == "native" and triple == host_triple:
        cpu = None
    native = cpu is None and triple == host_triple
    name = cpu or (llvm.get_host_cpu_name() if native else "generic")
    features = ",".join(filter(None, [llvm.get_host_cpu_features().flatten() if native else "", attributes]))
    try:
        llvm.Target.from_triple(triple)
    except RuntimeError as error:
        raise TargetError(f"unknown target triple {triple!r}", why=str(error)) from error
    if cpu is not None:
        _check_cpu(triple, cpu)
    width = _vector_bytes(triple, name, features, native, attributes)
    caches = _caches() if native else _Caches()
    cores = _count(options, "num-cores", usable_cores())
    return Target(
        "cpu", triple, name, features, width,
        num_registers=32 if width == 64 or triple.startswith("aarch64") else 16,
        fma_ports=_count(options, "fma-ports", 1 if width == 64 and name.startswith(_ONE_PORT) else 2),
        l1_bytes=_bytes(options, "l1", caches.l1), l2_bytes=_bytes(options, "l2", caches.l2), l3_bytes=_bytes(options, "l3", caches.l3),
        l2_cores=_count(options, "l2-cores", caches.l2_cores), l3_cores=_count(options, "l3-cores", caches.l3_cores or cores),
        num_cores=cores,
    )  # fmt: skip


def _count(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name)
    if text is None:
        return default
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise TargetError(f"bad option -{name}={text}", why="it must be an integer from 1 to 256")
    return int(text)


def _bytes(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name)
    if text is None:
        return default
    match = _SIZE.match(text)
    if match is None:
        raise TargetError(f"bad option -{name}={text}", why="it must be a number of bytes, or such as 48K or 2M")
    return int(match[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[match[2]]


_KNOWN_AVX512 = ("skylake-avx512", "cascadelake", "cooperlake", "icelake", "sapphirerapids", "emeraldrapids", "granite", "znver4", "znver5", "x86-64-v4", "cannonlake", "tigerlake", "rocketlake")  # fmt: skip
_KNOWN_AVX2 = ("haswell", "broadwell", "skylake", "znver1", "znver2", "znver3", "x86-64-v3", "alderlake", "raptorlake", "meteorlake")  # fmt: skip


def _check_cpu(triple: str, cpu: str) -> None:
    arch = triple.split("-")[0]
    known = {
        "x86_64": (
            *_KNOWN_AVX512,
            *_KNOWN_AVX2,
            "x86-64",
            "x86-64-v2",
            "generic",
            "nehalem",
            "sandybridge",
            "ivybridge",
        )
    }
    names = known.get(arch)
    if names is not None and not cpu.startswith(names):
        raise TargetError(f"unknown CPU {cpu!r} for {arch}", hint=f"one of {', '.join(names)}, or leave -mcpu out")


def _vector_bytes(triple: str, cpu: str, features: str, native: bool, attributes: str) -> int:
    if not triple.startswith("x86_64"):
        return 16
    on = {f[1:] for f in features.split(",") if f.startswith("+")}
    off = {f[1:] for f in attributes.split(",") if f.startswith("-")}
    if not native:
        on |= (
            {"avx512f", "avx2"} if cpu.startswith(_KNOWN_AVX512) else {"avx2"} if cpu.startswith(_KNOWN_AVX2) else set()
        )
    if "avx512f" in on - off:
        return 64
    return 32 if "avx2" in on - off else 16


@dataclass(frozen=True, slots=True)
class _Caches:
    """Sizes in bytes, common ones by default; how many cores share one, 0 for all of them."""

    l1: int = 32 * 1024
    l2: int = 1024 * 1024
    l3: int = 0
    l2_cores: int = 1
    l3_cores: int = 0


def _caches() -> _Caches:
    """Those of the first core, as Linux tells; common ones elsewhere."""
    found: dict[str, int] = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind = int((index / "level").read_text()), (index / "type").read_text().strip()
            size, shared = ((index / n).read_text().strip() for n in ("size", "shared_cpu_list"))
        except (OSError, ValueError):
            continue
        match = _SIZE.match(size)
        if kind not in ("Data", "Unified") or level not in (1, 2, 3) or match is None:
            continue
        found[f"l{level}"] = int(match[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[match[2]]
        if level > 1:
            found[f"l{level}_cores"] = max(1, sum(map(_span, shared.split(","))))
    return _Caches(**found)


def _span(part: str) -> int:
    """How many numbers "3" or "4-7" stand for."""
    first, _, last = part.partition("-")
    return int(last or first) - int(first) + 1 if first.isdigit() and (last or "0").isdigit() else 1
