"""The interpreter as a target."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Target


@dataclass(frozen=True, slots=True)
class ReferenceTarget(Target):
    """No machine: kernels are run by the interpreter, as plain loops unless they are scheduled by hand. Slow, and right."""

    def __str__(self) -> str:
        return "reference"
