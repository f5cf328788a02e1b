"""A whole training step, compiled: forward, backward and optimizer in one native call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tcomp

from . import ops, random
from .autograd import Tensor
from .differentiate import gradients
from .modes import assigned, keep_graph
from .nn.module import Module, Parameter, read_safetensors, write_safetensors
from .optim import Optimizer
from .trace import flatten, write_graph

_STEPS = "seed and steps"
"""The entry of a checkpoint that is no tensor of the state."""


@dataclass(frozen=True)
class _Program:
    """A compiled step for batches of some shapes.

    Attributes:
        single: whether the loss function returned the loss alone.
    """

    exe: Any
    single: bool


class TrainStep:
    """A training step as one native call; made by `compile_step`.

    The model's parameters and buffers and the optimizer's state live in the arrays that the native code changes in place, so
    they can be read, saved or set at any time, and eager and compiled steps can take turns.

    Attributes:
        executable: the compiled step for the batch that was run last (see `Executable.ir`, `explain`, `profile`).
    """

    def __init__(
        self, model: Module, loss: Callable[..., Any], optimizer: Optimizer, seed: int, options: Mapping[str, Any]
    ) -> None:
        self.model, self.optimizer, self.seed = model, optimizer, seed
        self._loss, self._options = loss, dict(options)
        self._programs: dict[tuple[Any, ...], _Program] = {}
        self._state = _State(model, optimizer)
        self.executable: Any = None

    @property
    def steps(self) -> int:
        """Steps done: the optimizer's."""
        return self.optimizer.t

    def __call__(self, *batch: Any) -> Any:
        """Take a step.

        Args:
            batch: arrays or tensors, as the example was; another shape is compiled when it is first seen.

        Returns:
            The loss as a float; where the loss function returned more, a tuple of it and of arrays.
        """
        arrays = [np.ascontiguousarray(b.numpy() if isinstance(b, Tensor) else b) for b in batch]
        program = self.compile(arrays)
        self.executable = program.exe
        self.optimizer.t += 1
        hyper = self.optimizer.hyperparameters(self.optimizer.t)
        key = np.array([self.seed, self.optimizer.t], np.int64)
        numbers = [np.asarray(v, self._state.dtype) for v in hyper.values()]
        results = program.exe(*arrays, *numbers, key, *self._state.arrays())
        loss, *more = results[: len(results) - self._state.size] if isinstance(results, tuple) else (results,)
        return float(loss) if program.single else (float(loss), *more)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint: the model, the optimizer's state, the step count and the seed. The file takes its name when it is
        whole, so that a run that ends at any moment leaves the one before."""
        arrays = {name: t.numpy() for name, t in self._state.tensors()}
        write_safetensors({**arrays, _STEPS: np.array([self.seed, self.steps], np.int64)}, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint: the next steps lose what they would have lost then, to the last bit.

        Raises:
            ValueError: the file is damaged, or of another model or optimizer. Nothing is changed then.
        """
        found = read_safetensors(path)
        own = dict(self._state.tensors())
        missing, unknown = own.keys() - found.keys(), found.keys() - own.keys() - {_STEPS}
        if missing or unknown or _STEPS not in found:
            raise ValueError(
                f"{path} is no checkpoint of this step: missing {sorted(missing)}, unknown {sorted(unknown)}"
            )
        for name, t in own.items():
            if (found[name].shape, found[name].dtype) != (t.shape, t.dtype):
                raise ValueError(
                    f"{path}: {name} is {found[name].dtype}{list(found[name].shape)}, expected {t.dtype}{list(t.shape)}"
                )
        for name, t in own.items():
            t.cached_data = found[name]
        self.seed, self.optimizer.t = map(int, found[_STEPS])

    def compile(self, arrays: Sequence[np.ndarray]) -> _Program:
        """The compiled step for a batch like this one."""
        key = tuple((a.shape, a.dtype.str) for a in arrays)
        if key not in self._programs:
            module, single = self._trace(arrays)
            self._programs[key] = _Program(tcomp.compile(module, **self._options), single)
        return self._programs[key]

    def _trace(self, arrays: Sequence[np.ndarray]) -> tuple[Any, bool]:
        """The graph of a step: its inputs are the batch, the numbers of the step, the key, and the state, which it changes."""
        batch = [Tensor(a, requires_grad=False) for a in arrays]
        hyper = {
            k: Tensor.make_const(np.asarray(v, self._state.dtype)) for k, v in self.optimizer.hyperparameters(1).items()
        }
        key = random.key_of(self.seed, 1)
        with keep_graph(), random.using(random.Generator(key)), assigned() as changes:
            out = self._forward(batch)
            loss, *more = flatten(out)
            if loss.size != 1:
                raise ValueError(f"the loss is one number, got a tensor of shape {loss.shape}")
            found = gradients(loss, self._state.params)
            after = self._state.updates(found, hyper, changes)
        inputs = [(f"x{i}", x) for i, x in enumerate(batch)] + list(hyper.items()) + [("key", key)]
        results = [ops.reshape(loss, ()) if loss.shape else loss, *more]
        owned = {name: t for name, t, _ in after}
        updates = {name: len(results) + i for i, name in enumerate(owned)}
        module = write_graph([*inputs, *owned.items()], [*results, *(new for _, _, new in after)], updates)
        return module, isinstance(out, Tensor)

    def _forward(self, batch: Sequence[Tensor]) -> Any:
        if isinstance(self._loss, Module):
            *inputs, target = batch
            return self._loss(self.model(*inputs), target)
        return self._loss(self.model, *batch)


class _State:
    """What a step changes: parameters, the optimizer's state, the model's buffers."""

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

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of everything, in the order of the step's inputs."""
        yield from zip(self.names, self.params)
        for i, name in enumerate(self.names):
            for slot, t in zip(self.optimizer.slots, self.optimizer.state[i]):
                yield f"{name}.{slot}", t
        yield from self.buffers

    @property
    def size(self) -> int:
        return sum(1 for _ in self.tensors())

    def arrays(self) -> list[np.ndarray]:
        """The tensors' arrays, to be changed in place; made so first, where they are shared, read-only or not contiguous."""
        found = []
        for _, t in self.tensors():
            a = t.cached_data
            if not (a.flags.c_contiguous and a.flags.writeable and a.flags.owndata):
                a = t.cached_data = np.array(a, order="C")
            found.append(a)
        return found

    def updates(
        self, grads: Sequence[Tensor], hyper: Mapping[str, Tensor], changes: Mapping[int, Tensor]
    ) -> list[tuple[str, Tensor, Tensor]]:
        """(name, tensor, its new value) of everything."""
        new_params, new_state = [], []
        for i, (p, g) in enumerate(zip(self.params, grads)):
            own = {k: ops.cast(v, p.dtype) for k, v in hyper.items()}
            new, state = self.optimizer.update(p, g, self.optimizer.state[i], own)
            new_params.append(new)
            new_state += state
        after = [*new_params, *new_state, *(changes.get(id(t), t) for _, t in self.buffers)]
        return [(name, t, new) for (name, t), new in zip(self.tensors(), after, strict=True)]


def compile_step(
    model: Module,
    loss: Callable[..., Any],
    optimizer: Optimizer,
    example_batch: Sequence[Any],
    target: Any = "cpu",
    *,
    num_threads: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> TrainStep:
    """Compile a whole training step: forward, backward and optimizer become one native call.

    Args:
        model: in training mode.
        loss: a Module such as SoftmaxLoss, called with the model's result and the last element of a batch; or a function, called
            with the model and all elements of a batch, that returns the loss, and perhaps more tensors (the state of a recurrent
            layer), which each step then returns, too.
        optimizer: of the model's parameters; its learning rate may change from step to step.
        example_batch: arrays or tensors like those of each step.
        seed: of dropout; each step draws its own numbers.
        progress: called with (kernels done, kernels in all, name) while kernels are built.

    Returns:
        A callable: `step(*batch)` returns the loss.

    Raises:
        ValueError: the loss is not one number, or the optimizer has parameters that are not the model's.
        tcomp.UnsupportedError: the model uses an operation that cannot be compiled.
    """
    options = {"target": target, "num_threads": num_threads, "progress": progress}
    step = TrainStep(model, loss, optimizer, seed, options)
    step.compile([np.ascontiguousarray(b.numpy() if isinstance(b, Tensor) else b) for b in example_batch])
    return step
