"""What a compiled training step reads and changes, and how it leaves for files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import ops
from .autograd import Tensor, find_topo_sort
from .modes import keep_graph
from .nn.module import Module, Parameter
from .optim import Optimizer
from .trace import flatten, infer, write_graph


@dataclass(frozen=True)
class Numbers:
    """What a step reads beside the batch and the state.

    Attributes:
        hyper: the optimizer's numbers. inputs: what of it is given from outside. counted: (before, after) of what it counts itself.
    """

    hyper: Mapping[str, Tensor]
    key: Tensor
    inputs: tuple[tuple[str, Tensor], ...]
    counted: tuple[tuple[Tensor, Tensor], ...]


def given_numbers(numbers: Mapping[str, float], key: Tensor, dtype: Any) -> Numbers:
    """Of a step that is told of them each time."""
    hyper = {k: Tensor.make_const(np.asarray(v, dtype)) for k, v in numbers.items()}
    return Numbers(hyper, key, (*hyper.items(), ("key", key)), ())


def counted_numbers(optimizer: Optimizer, counts: np.ndarray, dtype: Any) -> Numbers:
    """Of a step that keeps count itself (of seed, steps and skipped steps) and is told the learning rate alone."""
    kept, given = Tensor.make_const(counts), optimizer.lr
    rate = Tensor.make_const(np.asarray(given, np.float64))
    seed, done, skipped = (ops.reshape(kept[i], ()) for i in range(3))
    try:
        optimizer.lr = rate
        numbers = optimizer.hyperparameters(ops.cast(done + 1, np.float64))
    finally:
        optimizer.lr = given
    hyper = {
        k: ops.cast(v, dtype) if isinstance(v, Tensor) else Tensor.make_const(np.asarray(v, dtype))
        for k, v in numbers.items()
    }
    key, more = ops.stack([seed, done + skipped + 1], 0), ops.stack([seed, done + 1, skipped], 0)
    return Numbers(hyper, key, (("lr", rate),), ((kept, more),))


def evaluation_graph(model: Module, inputs: Sequence[Any]) -> Any:
    """The graph of a model in evaluation mode; its inputs are those of the model, and its tensors, as state.NAME."""
    given = [Tensor(x.numpy() if isinstance(x, Tensor) else x, requires_grad=False) for x in inputs]
    modes = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        with keep_graph(infer):
            results = flatten(model(*given))
    finally:
        for m, was in modes:
            m.training = was
    tensors = [(f"state.{n}", t) for n, t in model.named_tensors()]
    return write_graph([*((f"x{i}", x) for i, x in enumerate(given)), *tensors], results)


def export_with(
    exe: Any, state: Mapping[str, np.ndarray], path: str | os.PathLike[str], format: str, name: str | None, weights: str
) -> tuple[Path, ...]:
    """Export what keeps its inputs state.NAME, as NAME in files."""
    values, names = {f"state.{n}": a for n, a in state.items()}, {f"state.{n}": n for n in state}
    files: tuple[Path, ...] = exe.export(path, format, name, weights, values, names)
    return files


class StepState:
    """What a step reads and changes: the optimizer's parameters and state, and the model's buffers; and what it only reads: other
    parameters of the model."""

    def __init__(self, model: Module, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        own = {id(p): name for name, p in model.named_parameters()}
        unknown = [p for p in optimizer.params if id(p) not in own]
        if unknown:
            raise ValueError(f"the optimizer has {len(unknown)} parameters that are not the model's")
        self.names = [own[id(p)] for p in optimizer.params]
        self.params = list(optimizer.params)
        self.dtype = self.params[0].dtype
        for i, p in enumerate(self.params):
            optimizer.state.setdefault(i, optimizer.initial_state(p))
        buffers: dict[int, tuple[str, Tensor]] = {}
        for name, t in model.named_tensors():
            if not isinstance(t, Parameter):
                buffers.setdefault(id(t), (name, t))
        self.buffers = list(buffers.values())
        trained = {id(p) for p in self.params}
        self.others = [(name, p) for name, p in model.named_parameters() if id(p) not in trained]

    def changing(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of what a step changes."""
        yield from zip(self.names, self.params)
        for i, name in enumerate(self.names):
            for slot, t in zip(self.optimizer.slots, self.optimizer.state[i]):
                yield f"{name}.{slot}", t
        yield from self.buffers

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of everything, in the order of the step's inputs."""
        yield from self.changing()
        yield from self.others

    @property
    def size(self) -> int:
        """How many tensors a step changes."""
        return sum(1 for _ in self.changing())

    def arrays(self) -> list[np.ndarray]:
        """The tensors' arrays, to be changed in place; made so first, where they are shared, read-only or not contiguous."""
        found: list[np.ndarray] = []
        taken: set[int] = set()
        for _, t in self.tensors():
            a = t.cached_data
            is_own = a.flags.c_contiguous and a.flags.writeable and a.flags.owndata and id(a) not in taken
            if not is_own:
                a = t.cached_data = np.array(a, order="C")
            taken.add(id(a))
            found.append(a)
        return found

    def updates(
        self, loss: Tensor, grads: Sequence[Tensor], hyper: Mapping[str, Tensor], changes: Mapping[int, Tensor]
    ) -> list[tuple[str, Tensor, Tensor]]:
        """(name, tensor, its new value) of everything that changes: in the order in which the backward pass reaches the parameters,
        so that each gradient is computed, used and freed before the next."""
        place = {id(node): i for i, node in enumerate(find_topo_sort([loss]))}
        found = [(name, t, changes.get(id(t), t)) for name, t in self.buffers]
        for i in sorted(range(len(self.params)), key=lambda i: -place.get(id(self.params[i]), 0)):
            p, name = self.params[i], self.names[i]
            own = {k: ops.cast(v, p.dtype) for k, v in hyper.items()}
            new, state = p, self.optimizer.state[i]
            if id(p) in place:  # one that the loss does not depend on stays as it is, weight decay or not
                new, state = self.optimizer.update(p, grads[i], state, own)
            slots = zip(self.optimizer.slots, self.optimizer.state[i], state)
            found += [(name, p, new), *((f"{name}.{slot}", before, after) for slot, before, after in slots)]
        return found
