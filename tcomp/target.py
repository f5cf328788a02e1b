"""What code is generated for: detected, or given as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import TargetError
from .lazy import lazy_module
from .runtime.threads import usable_cores

llvm = lazy_module("llvmlite.binding")

_VNNI = ("cascadelake", "icelake-client", "icelake-server", "rocketlake", "tigerlake")
_BF16 = ("cooperlake", "sapphirerapids", "emeraldrapids", "graniterapids", "znver4", "znver5")
_CPUS_WITH = {"avx512vnni": (*_VNNI, *_BF16), "avx512bf16": _BF16}
"""CPUs, in LLVM's names, that have features which tensor intrinsics need."""

_OPTION = re.compile(r"-(mcpu|mattr|mtriple|num-cores)=(\S+)$")


@dataclass(frozen=True, slots=True)
class Target:
    """A machine to compile for.

    Attributes:
        kind: "cpu".
        triple, cpu, features: in LLVM's words.
        vector_bytes: width of a vector register; num_registers: how many there are.
        l1_bytes, l2_bytes: data caches of one core.
        num_cores: cores to schedule for.
    """

    kind: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    num_registers: int
    l1_bytes: int
    l2_bytes: int
    num_cores: int

    def __str__(self) -> str:
        return f"{self.kind} -mcpu={self.cpu} -num-cores={self.num_cores} ({8 * self.vector_bytes}-bit vectors)"

    def lanes(self, itemsize: int) -> int:
        """Elements in a vector register."""
        return max(self.vector_bytes // itemsize, 1)

    def has(self, feature: str) -> bool:
        """Whether the CPU certainly has a feature (in LLVM's words, such as "avx512vnni"); "" is had by all."""
        named = f"+{feature}" in self.features.split(",")
        return not feature or named or (self.cpu in _CPUS_WITH.get(feature, ()) and f"-{feature}" not in self.features)

    @staticmethod
    def parse(text: str | Target) -> Target:
        """The target that a text describes.

        Args:
            text: "cpu" (this machine), or "llvm" or "cpu" with options: `-mcpu=skylake-avx512`, `-mattr=+avx2,-avx512f`,
                `-mtriple=x86_64-unknown-linux-gnu`, `-num-cores=8`.

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
                raise TargetError(
                    f"unknown option {word!r} in target {text!r}", hint="-mcpu=, -mattr=, -mtriple= or -num-cores="
                )
            options[match[1]] = match[2]
        return _make(options.get("mtriple"), options.get("mcpu"), options.get("mattr"), options.get("num-cores"))


@cache
def _make(triple: str | None, cpu: str | None, attributes: str | None, cores: str | None) -> Target:
    llvm.initialize_all_targets()
    if cores is not None and not (cores.isdigit() and 1 <= int(cores) <= 256):
        raise TargetError(f"bad option -num-cores={cores}", why="it must be an integer from 1 to 256")
    host_triple = llvm.get_process_triple()
    chosen = triple or host_triple
    native = cpu is None and chosen == host_triple
    name = cpu or (llvm.get_host_cpu_name() if native else "generic")
    features = ",".join(filter(None, [llvm.get_host_cpu_features().flatten() if native else "", attributes or ""]))
    try:
        llvm.Target.from_triple(chosen)
    except RuntimeError as error:
        raise TargetError(f"unknown target triple {chosen!r}", why=str(error)) from error
    if cpu is not None:
        _check_cpu(chosen, cpu)
    width = _vector_bytes(chosen, name, features, native, attributes or "")
    l1, l2 = _caches() if native else (32 * 1024, 1024 * 1024)
    registers = 32 if width == 64 or chosen.startswith("aarch64") else 16
    return Target("cpu", chosen, name, features, width, registers, l1, l2, int(cores) if cores else usable_cores())


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


def _caches() -> tuple[int, int]:
    """(L1 data, L2) bytes of the first core, as Linux tells; common sizes elsewhere."""
    sizes = {1: 32 * 1024, 2: 1024 * 1024}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind = int((index / "level").read_text()), (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind in ("Data", "Unified") and level in sizes and size.endswith("K"):
            sizes[level] = int(size[:-1]) * 1024
    return sizes[1], sizes[2]
