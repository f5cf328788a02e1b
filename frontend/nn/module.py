"""Module: what a layer or a model is; its parameters, modes, and state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..autograd import Tensor
from ..storage import read_safetensors, write_safetensors
from ..trace import trace


class Parameter(Tensor):
    """A tensor that training changes."""


def _members(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """(dotted name, object) of the modules and tensors in a value."""
    if isinstance(value, (Module, Tensor)):
        yield prefix, value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from _members(v, f"{prefix}.{k}")
    elif isinstance(value, (list, tuple)):
        for i, v in enumerate(value):
            yield from _members(v, f"{prefix}.{i}")


class Module:
    """A layer or model: attributes that are Parameters or Modules (or lists, tuples, dicts of them) belong to it.

    Other tensors among the attributes are its buffers: saved, not trained.
    """

    def __init__(self) -> None:
        self.training = True

    def _own(self) -> Iterator[tuple[str, Any]]:
        for name, value in self.__dict__.items():
            yield from _members(value, name)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        seen: set[int] = set()
        stack: list[Module] = [self]
        while stack:
            m = stack.pop()
            if id(m) not in seen:
                seen.add(id(m))
                yield m
                stack.extend(reversed([v for _, v in m._own() if isinstance(v, Module)]))

    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all parameters and buffers."""
        for name, value in self._own():
            if isinstance(value, Tensor):
                yield prefix + name, value
            else:
                yield from value.named_tensors(f"{prefix}{name}.")

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """(name, parameter), each parameter once, under its first name."""
        found: dict[int, tuple[str, Parameter]] = {}
        for name, t in self.named_tensors():
            if isinstance(t, Parameter):
                found.setdefault(id(t), (name, t))
        return list(found.values())

    def parameters(self) -> list[Parameter]:
        """The parameters, each once."""
        return [p for _, p in self.named_parameters()]

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers, by name."""
        return {name: t.numpy() for name, t in self.named_tensors()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set parameters and buffers.

        Raises:
            KeyError: a name is missing or unknown. ValueError: a shape differs. Nothing is changed then.
        """
        own = dict(self.named_tensors())
        missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
        if missing or unknown:
            raise KeyError(f"state_dict does not fit: missing {sorted(missing)}, unknown {sorted(unknown)}")
        arrays = {name: np.asarray(value) for name, value in state.items()}
        for name, t in own.items():
            if arrays[name].shape != t.shape:
                raise ValueError(f"{name} has shape {arrays[name].shape}, expected {t.shape}")
        for name, t in own.items():
            t.cached_data = arrays[name].astype(t.dtype).copy()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and buffers to a safetensors file. It takes its name when it is whole: a failure leaves the one
        before."""
        write_safetensors(self.state_dict(), path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Set parameters and buffers from a safetensors file.

        Raises:
            ValueError: the file is damaged, or a shape differs. KeyError: a name is missing or unknown. Nothing is changed then.
        """
        self.load_state_dict(read_safetensors(path))

    def train(self) -> Module:
        """Switch dropout and batch statistics on."""
        for m in self.modules():
            m.training = True
        return self

    def eval(self) -> Module:
        """Switch dropout and batch statistics off."""
        for m in self.modules():
            m.training = False
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def __repr__(self) -> str:
        parts = [
            f"  {name}: {value!r}".replace("\n", "\n  ") for name, value in self._own() if isinstance(value, Module)
        ]
        inside = "\n".join(parts)
        return f"{type(self).__name__}({self.describe()}" + (f"\n{inside}\n)" if inside else ")")

    def describe(self) -> str:
        """What `repr` says of the settings."""
        return ""

    def __tcomp_trace__(self, inputs: list[Any]) -> Any:
        """How `tcomp.compile` meets a model: the module's IRModule, for inputs like the given ones."""
        return trace(self, inputs)


class Stack(Module):
    """Layers one after another.

    Attributes:
        segment: while training, so many layers at a time keep only their input for the backward pass, which computes the rest
            again; None to keep everything.
    """

    segment: int | None = None

    def __init__(self, layers: Sequence[Module]) -> None:
        super().__init__()
        self.layers = layers

    def run(self, x: Tensor, *more: Any) -> Tensor:
        """All layers.

        Args:
            more: further arguments of each layer.
        """
        if self.segment is None or not self.training:
            return _chain(self.layers, x, *more)
        for start in range(0, len(self.layers), self.segment):
            part = self.layers[start : start + self.segment]
            params = list({id(p): p for layer in part for p in layer.parameters()}.values())
            x = ops.recompute(lambda y, part=part: _chain(part, y, *more), x, params=params)
        return x


def _chain(layers: Sequence[Module], x: Tensor, *more: Any) -> Tensor:
    for layer in layers:
        x = layer(x, *more)
    return x
