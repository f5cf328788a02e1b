"""Devices. Eager tensors live in the memory of the CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A place where tensors live."""

    name: str

    def __repr__(self) -> str:
        return f"{self.name}()"

    def enabled(self) -> bool:
        return self.name == "cpu"


def cpu() -> Device:
    """The CPU."""
    return Device("cpu")


cpu_numpy = cpu


def cuda(index: int = 0) -> Device:
    """A GPU; there is none for eager tensors yet, so it is not enabled."""
    return Device("cuda")


def default_device() -> Device:
    """Where tensors are made unless told otherwise."""
    return cpu()


def all_devices() -> list[Device]:
    """Every device there is."""
    return [cpu()]
