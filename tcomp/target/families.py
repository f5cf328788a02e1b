"""The table of CPUs by name (families.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class Family:
    """What is known of a CPU by its name. Sizes in bytes; the fields are those of families.toml."""

    features: frozenset[str]
    fma_bytes: int
    fma_pipes: int
    l1: int
    l2: int
    l3: int
    l3_cores: int
    l2_cores: int = 1
    costs: Mapping[str, float] = field(default_factory=dict)

    def fma_ports(self, vector_bytes: int) -> int:
        """Vector multiply-adds that a core starts in a cycle."""
        return max(1, min(self.fma_pipes, self.fma_bytes // vector_bytes))


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("families.toml").read_text(encoding="utf-8"))


def names(arch: str) -> tuple[str, ...]:
    """The CPUs of an architecture that the table lists; none of an architecture that it does not have."""
    return tuple(_tables().get(arch, {}))


def listed_name(arch: str, cpu: str) -> str | None:
    """The entry of a CPU: of its own name, else of the longest one that its name goes on from with anything but a digit."""
    table = _tables().get(arch, {})
    fitting = [n for n in table if cpu == n or (cpu.startswith(n) and not cpu[len(n)].isdigit())]
    return max(fitting, key=len, default=None)


@cache
def family(arch: str, cpu: str) -> Family:
    """What is known of a CPU; what all of its architecture have where its name is not listed."""
    table = _tables().get(arch) or _tables()["other"]
    return _entry(table, listed_name(arch, cpu) or "generic")


def name_of_host(arch: str, cpu: str, features: frozenset[str]) -> str:
    """The name to go by for a machine that calls itself `cpu` and has these features.

    Its own name, unless the machine has more than a CPU of that name: virtual machines tell numbers of models that are not theirs. Then
    the listed CPU with most features that this one has all of; of several, one that multiplies most in a cycle.
    """
    told = {f for n in names(arch) for f in family(arch, n).features}
    if listed_name(arch, cpu) is None or (features & told) <= family(arch, cpu).features:
        return cpu
    fitting = [n for n in names(arch) if family(arch, n).features <= features]
    return max(fitting, key=lambda n: (len(family(arch, n).features), family(arch, n).fma_bytes), default=cpu)


def _entry(table: dict[str, Any], name: str) -> Family:
    own = dict(table[name])
    base = own.pop("like", None)
    fields = _fields(_entry(table, base)) if base is not None else {"features": frozenset(), "costs": {}}
    features = fields["features"] | frozenset(own.pop("features", ()))
    costs = {**fields["costs"], **own.pop("costs", {})}
    sizes = {k: byte_count(own.pop(k)) for k in ("l1", "l2", "l3") if k in own}
    return Family(**{**fields, **sizes, **own, "features": features, "costs": costs})


def _fields(f: Family) -> dict[str, Any]:
    return {name: getattr(f, name) for name in Family.__slots__}


def byte_count(text: str) -> int:
    """A size such as 48K, 2M, or a number of bytes.

    Raises:
        ValueError: it is none.
    """
    unit = _UNITS.get(text[-1:], 1)
    digits = text if unit == 1 else text[:-1]
    if not digits.isdigit():
        raise ValueError(f"no number of bytes: {text!r}")
    return int(digits) * unit
