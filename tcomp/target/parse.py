"""Targets from text; what the text does not tell is detected, or known by the CPU's name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import TargetError
from ..lazy import lazy_module
from ..runtime.threads import usable_cores
from .base import Target
from .costs import CostModel
from .cpu import CpuTarget, features_of
from .families import Family, byte_count, family, listed_name, name_of_host, names

llvm = lazy_module("llvmlite.binding")

PORTABLE = "x86-64-v2"
"""CPUs since about 2009."""
_OPTION = re.compile(r"-(mcpu|mattr|mtriple|num-cores|fma-ports|l1|l2|l3|l2-cores|l3-cores)=(\S+)$")
_OPTIONS = (
    "-mcpu=, -mattr=, -mtriple=, -num-cores=, -fma-ports=, -l1=, -l2=, -l3= (bytes, or 48K, 2M), -l2-cores=, -l3-cores="
)


def cpu_target(text: str, words: Sequence[str]) -> CpuTarget:
    """The CPU that the options of a target's text describe.

    Raises:
        TargetError: an unknown option, CPU or triple.
    """
    options: dict[str, str] = {}
    for word in words:
        match = _OPTION.match(word)
        if match is None:
            raise TargetError(f"unknown option {word!r} in target {text!r}", hint=_OPTIONS)
        options[match[1]] = match[2]
    return _make(tuple(sorted(options.items())))


def capability(target: Target) -> tuple[int, int]:
    """What tells of two CPUs of one architecture which can do more: width of vectors, number of features.

    Raises:
        TargetError: the target is no CPU.
    """
    if not isinstance(target, CpuTarget):
        raise TargetError(f"expected CPUs where there are several targets, got {target}", hint="one target")
    return target.vector_bytes, len(features_of(target.triple, target.cpu, target.features))


def portable(target: CpuTarget) -> CpuTarget | None:
    """What runs on nearly all machines where code for `target` may be brought; None where that is what it is for, or unknown."""
    if not target.triple.startswith("x86_64"):
        return None
    found = _make((("mcpu", PORTABLE), ("mtriple", target.triple), ("num-cores", str(target.num_cores))))
    return found if capability(found) < capability(target) else None


@cache
def _make(given: tuple[tuple[str, str], ...]) -> CpuTarget:
    llvm.initialize_all_targets()
    options = dict(given)
    cpu, attributes = options.get("mcpu"), options.get("mattr", "")
    host_triple = llvm.get_process_triple()
    triple = options.get("mtriple", host_triple)
    if cpu == "native" and triple == host_triple:
        cpu = None
    native = cpu is None and triple == host_triple
    name, features = cpu or "generic", attributes
    if native:
        had = llvm.get_host_cpu_features()
        name = name_of_host(
            triple.split("-")[0], llvm.get_host_cpu_name(), frozenset(f for f, has in had.items() if has)
        )
        features = ",".join(filter(None, [had.flatten(), attributes]))
    if cpu is None and not native and triple.startswith("riscv64"):  # every Linux for it asks for these
        name, features = "generic-rv64", ",".join(filter(None, ["+m,+a,+f,+d,+c", attributes]))
    if cpu is None and triple.startswith("wasm"):
        features = ",".join(filter(None, ["+simd128,+bulk-memory,+nontrapping-fptoint,+sign-ext", attributes]))
    try:
        llvm.Target.from_triple(triple)
    except RuntimeError as error:
        raise TargetError(f"unknown target triple {triple!r}", why=str(error)) from error
    arch = triple.split("-")[0]
    if cpu is not None and arch == "x86_64" and listed_name(arch, cpu) is None:
        raise TargetError(
            f"unknown CPU {cpu!r} for {arch}", hint=f"one of {', '.join(names(arch))}, or leave -mcpu out"
        )
    known = family(arch, name)
    width = _vector_bytes(arch, features_of(triple, name, features))
    caches = _caches() if native else _listed(known)
    cores = _count(options, "num-cores", 1 if triple.startswith("wasm") else usable_cores())
    return CpuTarget(
        triple, name, features, width,
        num_registers=32 if width == 64 or arch == "aarch64" else 16,
        fma_ports=_count(options, "fma-ports", known.fma_ports(width)),
        l1_bytes=_bytes(options, "l1", caches.l1), l2_bytes=_bytes(options, "l2", caches.l2), l3_bytes=_bytes(options, "l3", caches.l3),
        l2_cores=_count(options, "l2-cores", caches.l2_cores), l3_cores=_count(options, "l3-cores", caches.l3_cores or cores),
        num_cores=cores, costs=CostModel(**known.costs),
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
    try:
        return byte_count(text)
    except ValueError:
        raise TargetError(
            f"bad option -{name}={text}", why="it must be a number of bytes, or such as 48K or 2M"
        ) from None


def _vector_bytes(arch: str, features: frozenset[str]) -> int:
    if arch != "x86_64":
        return 16
    return 64 if "avx512f" in features else 32 if "avx2" in features else 16


@dataclass(frozen=True, slots=True)
class _Caches:
    """Sizes in bytes, common ones by default; how many cores share one, 0 for all of them."""

    l1: int = 32 * 1024
    l2: int = 1024 * 1024
    l3: int = 0
    l2_cores: int = 1
    l3_cores: int = 0


def _listed(known: Family) -> _Caches:
    return _Caches(known.l1, known.l2, known.l3, known.l2_cores, known.l3_cores)


def _caches() -> _Caches:
    """Those of the first core, as Linux tells; common ones elsewhere."""
    found: dict[str, int] = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind = int((index / "level").read_text()), (index / "type").read_text().strip()
            size, shared = ((index / n).read_text().strip() for n in ("size", "shared_cpu_list"))
            nbytes = byte_count(size)
        except (OSError, ValueError):
            continue
        if kind not in ("Data", "Unified") or level not in (1, 2, 3):
            continue
        found[f"l{level}"] = nbytes
        if level > 1:
            found[f"l{level}_cores"] = max(1, sum(map(_span, shared.split(","))))
    return _Caches(**found)


def _span(part: str) -> int:
    """How many numbers "3" or "4-7" stand for."""
    first, _, last = part.partition("-")
    return int(last or first) - int(first) + 1 if first.isdigit() and (last or "0").isdigit() else 1
