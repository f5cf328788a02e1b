"""An NVIDIA GPU to compile for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import TargetError
from ..lazy import lazy_module
from .base import Target
from .families import byte_count

device = lazy_module("tcomp.runtime.device.cuda")

WARP = 32
"""Threads that run in lockstep, on every NVIDIA GPU so far."""
BLOCK_THREADS = 1024
"""The most threads of a block, likewise."""
GRID_YZ = 65535
"""The most blocks of a grid along y and z."""
STATIC_SHARED = 48 * 1024
"""Bytes of shared memory that a block gets without asking the driver for more."""
DEFAULT_ARCH = "sm_80"
"""Where neither the text nor a device tells."""
_OPTION = re.compile(
    r"-(arch|device|sms|fma-lanes|tensor-lanes|threads|registers|block-shared|sm-shared|l2|bandwidth)=(\S+)$"
)
_OPTIONS = (
    "-arch=sm_80, -device=0 (or emulator), -sms=, -fma-lanes=, -tensor-lanes=, -threads=, -registers=, -block-shared=, -sm-shared=, -l2= (bytes, or 48K, 2M), "
    "-bandwidth= (GB/s)"
)
_SIZES = ("block_shared", "sm_shared", "l2")


@dataclass(frozen=True, slots=True)
class CudaTarget(Target):
    """An NVIDIA GPU, as schedules and code generation see it.

    Attributes:
        arch: its architecture, such as "sm_80".
        device: which of the machine's GPUs runs the code; -1 for the emulator, which runs CUDA C on the CPU and watches for races.
        sms: streaming multiprocessors. fma_lanes: float32 multiply-adds that each starts in a cycle.
        threads, registers: that an SM has; registers of 32 bits.
        block_shared, sm_shared: bytes of shared memory of a block, at most, and of an SM.
        l2: bytes of the cache that all SMs share. bandwidth: of the device's memory, in GB/s.
        tensor_lanes: multiply-adds of 16-bit floats that an SM's matrix instructions do in a cycle. tensor_cores: operand types of these.
    """

    arch: str
    device: int
    sms: int
    fma_lanes: int
    threads: int
    registers: int
    block_shared: int
    sm_shared: int
    l2: int
    bandwidth: int
    tensor_lanes: int
    tensor_cores: tuple[str, ...]

    def __str__(self) -> str:
        where = " on the emulator" if self.is_emulated else ""
        return f"cuda -arch={self.arch} ({self.sms} SMs){where}"

    @property
    def is_emulated(self) -> bool:
        return self.device < 0

    @property
    def text(self) -> str:
        """What `Target.parse` makes this target of, on any machine."""
        where = "emulator" if self.is_emulated else self.device
        told = {
            n: getattr(self, n)
            for n in ("sms", "fma_lanes", "tensor_lanes", "threads", "registers", *_SIZES, "bandwidth")
        }
        return f"cuda -arch={self.arch} -device={where} " + " ".join(
            f"-{n.replace('_', '-')}={v}" for n, v in told.items()
        )


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("gpus.toml").read_text(encoding="utf-8"))


def archs() -> tuple[str, ...]:
    """The architectures that the table lists, the oldest first."""
    return tuple(_table())


def cuda_target(text: str, words: Sequence[str]) -> CudaTarget:
    """The GPU that the options of a target's text describe: what they leave open is asked of the device, else known by the architecture.

    Raises:
        TargetError: an unknown option or architecture.
    """
    options: dict[str, str] = {}
    for word in words:
        match = _OPTION.match(word)
        if match is None:
            raise TargetError(f"unknown option {word!r} in target {text!r}", hint=_OPTIONS)
        options[match[1].replace("-", "_")] = match[2]
    where = options.pop("device", "0")
    if where != "emulator" and not (where.isdigit() and int(where) < 64):
        raise TargetError(f"bad option -device={where}", why="it is a GPU's number, or emulator")
    index = -1 if where == "emulator" else int(where)
    asked = options.pop("arch", None)
    found = device.facts(index) if index >= 0 else None
    arch = asked or (found["arch"] if found else DEFAULT_ARCH)
    facts = dict(_listed(arch, text))
    if found and found["arch"] == arch:
        facts.update(found)
    for name, value in options.items():
        facts[name] = _number(name, value)
    return CudaTarget(**{**facts, "arch": arch, "device": index, "tensor_cores": tuple(facts["tensor_cores"])})


def _listed(arch: str, text: str) -> dict[str, Any]:
    """What the table says of an architecture; of one between or beyond those listed, what it says of the last one before."""
    number = arch.removeprefix("sm_").removesuffix("a")
    known = [a for a in archs() if number.isdigit() and int(a.removeprefix("sm_")) <= int(number)]
    if not arch.startswith("sm_") or not known:
        raise TargetError(f"unknown architecture {arch!r} in target {text!r}", hint=f"one of {', '.join(archs())}")
    entry = dict(_table()[known[-1]])
    del entry["product"]
    return {**entry, **{n: byte_count(entry[n]) for n in _SIZES}}


def _number(name: str, text: str) -> int:
    try:
        value = byte_count(text) if name in _SIZES else int(text)
        if 0 < value < 1 << 48:
            return value
    except ValueError:
        pass
    raise TargetError(f"bad option -{name.replace('_', '-')}={text}", why="it must be a positive number")
