"""A whole training step, compiled: forward, backward and optimizer in one native call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, TextColumn

import tcomp

from . import ops, random
from .autograd import AnomalyError, Tensor
from .data import DataLoader
from .differentiate import gradients
from .modes import assigned, autocast, detect_anomaly, keep_graph, short_dtype
from .nn.module import Module, Stack
from .optim import LossScale, Optimizer
from .step import StepState, counted_numbers, evaluation_graph, export_with, given_numbers
from .storage import read_safetensors, write_safetensors
from .trace import flatten, infer, write_graph

_STEPS, _WORDS, _PLACE = "seed, steps, skipped", "numpy.random words", "numpy.random place"
_SCALE = "loss scale"
"""The entries of a checkpoint that are no tensors of the state."""


@dataclass(frozen=True)
class _Rules:
    """How a step computes and uses its gradients; as `compile_step` takes them."""

    precision: Any = None
    loss_scale: LossScale | None = None
    clip_norm: float | None = None
    detect_anomaly: bool = False


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
        loss_scale: see `LossScale`; or None.
        skipped: steps that changed nothing, since gradients overflowed.
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[..., Any],
        optimizer: Optimizer,
        seed: int,
        rules: _Rules,
        options: Mapping[str, Any],
    ) -> None:
        self.model, self.optimizer, self.seed = model, optimizer, seed
        self.loss_scale, self.skipped = rules.loss_scale, 0
        self._loss, self._rules, self._options = loss, rules, dict(options)
        self._programs: dict[tuple[Any, ...], _Program] = {}
        self._state = StepState(model, optimizer)
        self.executable: Any = None

    @property
    def steps(self) -> int:
        """Steps done: the optimizer's, and those that were skipped."""
        return self.optimizer.t + self.skipped

    def __call__(self, *batch: Any) -> Any:
        """Take a step.

        Args:
            batch: arrays or tensors, as the example was; another shape is compiled when it is first seen.

        Returns:
            The loss as a float; where the loss function returned more, a tuple of it and of arrays.

        Raises:
            AnomalyError: with `detect_anomaly`, the loss is NaN: the error names the operator that first made NaN. The state is
                the one before the step.
        """
        arrays = [np.ascontiguousarray(b.numpy() if isinstance(b, Tensor) else b) for b in batch]
        program = self.compile(arrays)
        self.executable = program.exe
        before = [a.copy() for a in self._state.arrays()] if self._rules.detect_anomaly else []
        numbers = [np.asarray(v, self._state.dtype) for v in self._numbers().values()]
        key = np.array([self.seed, self.steps + 1], np.int64)
        results = program.exe(*arrays, *numbers, key, *self._state.arrays())
        loss, *more = results[: len(results) - self._state.size] if isinstance(results, tuple) else (results,)
        if before and np.isnan(loss):
            self._blame(arrays, before)
        finite = True
        if self.loss_scale is not None:
            finite = bool(more.pop())
            self.loss_scale.update(finite)
        self.optimizer.t += finite
        self.skipped += not finite
        return float(loss) if program.single else (float(loss), *more)

    def _numbers(self) -> dict[str, float]:
        """What the next step reads beside the batch and the state."""
        scale = {} if self.loss_scale is None else {"loss_scale": self.loss_scale.value}
        return self.optimizer.hyperparameters(self.optimizer.t + 1) | scale

    def _blame(self, arrays: Sequence[np.ndarray], before: Sequence[np.ndarray]) -> None:
        """Find the operator that made NaN, by taking the step again, eagerly."""
        for (_, tensor), a in zip(self._state.tensors(), before, strict=True):
            tensor.cached_data = a
        with detect_anomaly(), np.errstate(all="ignore"):
            self.trace(arrays)
        raise AnomalyError(
            f"the loss of step {self.steps + 1} is NaN, but no operator made NaN of numbers when the step was taken again, eagerly: "
            "does the batch or the state hold NaN already?"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint: the model, the optimizer's state, the step count and the seed, and the state of NumPy's global
        generator, from which random transforms draw. The file takes its name when it is whole, so that a run that ends at any
        moment leaves the one before."""
        arrays = {name: t.numpy() for name, t in self._state.tensors()}
        _, words, place, has_gauss, gauss = np.random.get_state()
        extra = {
            _STEPS: np.array([self.seed, self.optimizer.t, self.skipped], np.int64), _WORDS: np.asarray(words),
            _PLACE: np.array([place, has_gauss, gauss], np.float64),
        }  # fmt: skip
        if self.loss_scale is not None:
            extra[_SCALE] = np.array([self.loss_scale.value, self.loss_scale.good], np.float64)
        write_safetensors({**arrays, **extra}, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint, or from what an exported step has saved: the next steps lose what they would have lost then, to the
        last bit.

        Raises:
            ValueError: the file is damaged, or of another model or optimizer. Nothing is changed then.
        """
        found = read_safetensors(path, needs_checksum=True)
        own = dict(self._state.tensors())
        extra = {_STEPS} | ({_SCALE} if self.loss_scale is not None else set())
        extra |= {_WORDS, _PLACE} if found.keys() & {_WORDS, _PLACE} else set()  # exported steps have no such generator
        missing, unknown = (own.keys() | extra) - found.keys(), found.keys() - own.keys() - extra
        if missing or unknown:
            raise ValueError(
                f"{path} is no checkpoint of this step: missing {sorted(missing)}, unknown {sorted(unknown)}"
            )
        for name, t in own.items():
            if (found[name].shape, found[name].dtype) != (t.shape, t.dtype):
                raise ValueError(
                    f"{path}: {name} is {found[name].dtype}{list(found[name].shape)}, expected {t.dtype}{list(t.shape)}"
                )
        generator = _generator_state(path, found[_WORDS], found[_PLACE]) if _WORDS in extra else np.random.get_state()
        self._check_counts(path, found)
        for name, t in own.items():
            t.cached_data = found[name]
        self.seed, self.optimizer.t, self.skipped = map(int, found[_STEPS])
        if self.loss_scale is not None:
            value, good = found[_SCALE]
            self.loss_scale.value, self.loss_scale.good = float(value), int(good)
        np.random.set_state(generator)

    def _check_counts(self, path: str | os.PathLike[str], found: dict[str, np.ndarray]) -> None:
        counts = found[_STEPS]
        if counts.shape != (3,) or counts.dtype != np.int64 or (counts[1:] < 0).any():
            raise ValueError(
                f"{path}: {_STEPS!r} must be three int64 numbers, steps and skipped at least 0, got {counts}"
            )
        if self.loss_scale is not None:
            scale = found[_SCALE]
            if scale.shape != (2,) or not np.isfinite(scale).all() or scale[0] <= 0 or scale[1] < 0:
                raise ValueError(f"{path}: {_SCALE!r} must be a scale above 0 and a count of at least 0, got {scale}")

    def export(
        self, path: str | os.PathLike[str], format: str = "shared", name: str | None = None, weights: str = "auto"
    ) -> tuple[Path, ...]:
        """Write files that take this step without Python, from the state of now on (see `tcomp.Executable.export` and docs/deploy.md).

        The exported step takes a batch like the last one, and the learning rate as a float64; it keeps parameters, buffers, the
        optimizer's state and the count of steps, which it saves and restores: `load` reads such files, too.

        Raises:
            ValueError: the step scales its loss, which depends on what the steps before were like.
        """
        if self.loss_scale is not None:
            raise ValueError("a step with a loss scale cannot be exported; bfloat16 and float32 need none")
        if not self._programs:
            raise ValueError("compile the step first: an exported step takes batches of one shape")
        arrays = [np.zeros(shape, dtype) for shape, dtype in list(self._programs)[-1]]
        counts = np.array([self.seed, self.optimizer.t, self.skipped], np.int64)
        state = {n: a for (n, _), a in zip(self._state.tensors(), self._state.arrays())} | {_STEPS: counts}
        exe = tcomp.compile(self.trace(arrays, counts)[0], **self._options)
        return export_with(exe, state, path, format, name, weights)

    def export_model(
        self,
        path: str | os.PathLike[str],
        inputs: Sequence[Any],
        format: str = "shared",
        name: str | None = None,
        weights: str = "auto",
    ) -> tuple[Path, ...]:
        """Write files that run the model in evaluation mode with parameters that can be set: it keeps them, and its buffers, under the names
        that an exported step has for them.

        Args:
            inputs: examples of what the model is called with.
        """
        exe = tcomp.compile(evaluation_graph(self.model, inputs), **self._options)
        state = {n: t.numpy() for n, t in self.model.named_tensors()}
        return export_with(exe, state, path, format, name, weights)

    def tune(self, database: str | os.PathLike[str], budget_s: float = 60.0, **how: Any) -> tcomp.TuneReport:
        """Tune the kernels of the step for batches like the last one, and run them so from here on; the state stays as it is.

        Args:
            database: file of records, for `compile_step(database=)` of later runs. budget_s, how: as for `tcomp.tune`.
        """
        arrays = [np.zeros(shape, dtype) for shape, dtype in list(self._programs)[-1]]
        same = {k: self._options[k] for k in ("target", "num_threads")}
        report = tcomp.tune(self.trace(arrays)[0], **same, database=database, budget_s=budget_s, **how)
        self._options["database"] = os.fspath(database)
        self._programs.clear()
        self.compile(arrays)
        return report

    def compile(self, arrays: Sequence[np.ndarray]) -> _Program:
        """The compiled step for a batch like this one."""
        key = tuple((a.shape, a.dtype.str) for a in arrays)
        if key not in self._programs:
            module, single = self.trace(arrays)
            self._programs[key] = _Program(tcomp.compile(module, **self._options), single)
        return self._programs[key]

    def fit_into(self, arrays: Sequence[np.ndarray], limit: int) -> None:
        """Choose how many layers are computed again at a time, so that the workspace has at most so many bytes.

        Raises:
            MemoryError: no choice does.
        """
        longest = max((len(m.layers) for m in self.model.modules() if isinstance(m, Stack)), default=0)
        needed: dict[int | None, int] = {}
        for every in (None, *range(1, longest)):
            segment_layers(self.model, every)
            needed[every] = tcomp.workspace_bytes(self.trace(arrays)[0], target=self._options["target"])
            if every is None and needed[every] <= limit:
                return
        best = min(needed, key=lambda k: (needed[k], k or 0))
        if needed[best] > limit:
            raise MemoryError(
                f"a step needs {needed[best]:,} bytes at least (recompute={best}), the limit is {limit:,}"
            )
        segment_layers(self.model, best)

    def trace(self, arrays: Sequence[np.ndarray], counts: np.ndarray | None = None) -> tuple[Any, bool]:
        """The graph of the next step: its inputs are the batch, the numbers of the step, the key, and the state, which it changes.

        Args:
            counts: seed, steps and skipped steps: the graph keeps them as state and computes the step's numbers and the key of them and
                of the learning rate.
        """
        batch = [Tensor(a, requires_grad=False) for a in arrays]
        with keep_graph(infer):
            if counts is None:
                step = given_numbers(self._numbers(), random.key_of(self.seed, self.steps + 1), self._state.dtype)
            else:
                step = counted_numbers(self.optimizer, counts, self._state.dtype)
        hyper, key = step.hyper, step.key
        precision, quiet = autocast(self._rules.precision), np.errstate(all="ignore")  # values on the way are not used
        with keep_graph(infer), random.using(random.Generator(key)), precision, quiet, assigned() as changes:
            out = self._forward(batch)
            loss, *more = flatten(out)
            if loss.size != 1:
                raise ValueError(f"the loss is one number, got a tensor of shape {loss.shape}")
            scale = hyper.get("loss_scale")
            found = gradients(loss if scale is None else loss * scale, self._state.params)
            if scale is not None:
                found = [g / ops.cast(scale, g.dtype) for g in found]
                more.append(_all_finite(found))
            if self._rules.clip_norm is not None:
                found = _clipped(found, self._rules.clip_norm)
            after = self._state.updates(loss, found, hyper, changes)
            if scale is not None:
                after = [(name, old, ops.where(more[-1], new, old)) for name, old, new in after]
        after += [(_STEPS, *pair) for pair in step.counted]
        inputs = [*((f"x{i}", x) for i, x in enumerate(batch)), *step.inputs]
        results = [ops.reshape(loss, ()) if loss.shape else loss, *more]
        updates = {f"state.{name}": len(results) + i for i, (name, _, _) in enumerate(after)}
        state = [(f"state.{name}", t) for name, t in self._state.tensors()]  # a parameter may be called lr, or key
        state += [(f"state.{_STEPS}", old) for old, _ in step.counted]
        module = write_graph([*inputs, *state], [*results, *(new for _, _, new in after)], updates)
        return module, isinstance(out, Tensor)

    def _forward(self, batch: Sequence[Tensor]) -> Any:
        if isinstance(self._loss, Module):
            *inputs, target = batch
            return self._loss(self.model(*inputs), target)
        return self._loss(self.model, *batch)


def _all_finite(grads: Sequence[Tensor]) -> Tensor:
    """Whether all gradients are numbers."""
    largest = [ops.cast(ops.max(ops.abs(g)), grads[0].dtype) for g in grads if g.size]
    return ops.less(ops.max(ops.stack(largest, 0)), float("inf"))


def _clipped(grads: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """The gradients, scaled so that their common norm is at most `max_norm`."""
    squares = [ops.cast(ops.summation(g * g), grads[0].dtype) for g in grads]
    norm = ops.sqrt(ops.summation(ops.stack(squares, 0)))
    factor = ops.where(ops.greater(norm, max_norm), max_norm / norm, 1.0)
    return [g * ops.cast(factor, g.dtype) for g in grads]


def compile_step(
    model: Module,
    loss: Callable[..., Any],
    optimizer: Optimizer,
    example_batch: Sequence[Any],
    target: Any = "cpu",
    *,
    num_threads: int | None = None,
    seed: int = 0,
    recompute: int | None = None,
    memory_limit: int | None = None,
    precision: Any = None,
    loss_scale: LossScale | float | None = None,
    clip_norm: float | None = None,
    detect_anomaly: bool = False,
    denormals: str = "flush",
    database: Any = None,
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
        recompute: of so many layers at a time (of a Sequential or a Transformer) only the input is kept for the backward pass,
            which computes the rest again: less memory, the same losses to the last bit. About the square root of the number of
            layers takes the least memory; `step.executable.memory` tells how much.
        memory_limit: bytes that the step's workspace may have: where it would have more, `recompute` is chosen for the least memory
            (the time is the same for all: each layer is computed again once).
        precision: "bfloat16" or "float16": products round their operands to it and add up in float32; parameters, the optimizer's
            state and everything else stay float32 (see `frontend.autocast`).
        loss_scale: a LossScale, or a constant: gradients are computed of the loss times this, and scaled back; a step of which one is
            not finite changes nothing and is counted as `skipped`. float16 gets a `LossScale()` by default.
        clip_norm: the gradients are scaled so that their common norm is at most this.
        detect_anomaly: keep the state before each step, so that after a loss of NaN the step can be taken again, eagerly, to
            name the operator that first made NaN.
        denormals: "flush" counts denormal numbers as zero while a step runs: gradients and optimizer states that fade away would
            take many times as long. "keep" computes with them.
        database: records of `TrainStep.tune`, as for `tcomp.compile`.
        progress: called with (kernels done, kernels in all, name) while kernels are built.

    Returns:
        A callable: `step(*batch)` returns the loss.

    Raises:
        ValueError: the loss is not one number, the optimizer has parameters that are not the model's, or an option cannot be.
        tcomp.UnsupportedError: the model uses an operation that cannot be compiled.
    """
    options = {
        "target": target, "num_threads": num_threads, "progress": progress, "denormals": denormals, "database": database
    }  # fmt: skip
    segment_layers(model, recompute)
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm is positive, got {clip_norm}")
    precision = None if precision is None else short_dtype(precision)
    if loss_scale is None and precision == np.float16:
        loss_scale = LossScale()
    if isinstance(loss_scale, (int, float)):
        loss_scale = LossScale(loss_scale, interval=None)
    rules = _Rules(precision, loss_scale, clip_norm, detect_anomaly)
    step = TrainStep(model, loss, optimizer, seed, rules, options)
    arrays = [np.ascontiguousarray(b.numpy() if isinstance(b, Tensor) else b) for b in example_batch]
    if memory_limit is not None:
        if recompute is not None:
            raise ValueError("give recompute, or a memory_limit by which it is chosen, not both")
        step.fit_into(arrays, memory_limit)
    step.compile(arrays)
    return step


def segment_layers(model: Module, every: int | None) -> None:
    """Set how many layers of the outermost stacks are computed again at a time; None to keep all results.

    Raises:
        ValueError: less than one layer, or a model without a stack of more layers.
    """
    if every is not None and every < 1:
        raise ValueError(f"at least one layer is computed again at a time, got {every}")
    found, waiting = 0, [model]
    while waiting:
        m = waiting.pop()
        if isinstance(m, Stack):
            m.segment = every if every is not None and len(m.layers) > every else None
            found += m.segment is not None
            if m.segment is not None:
                continue
        waiting += [child for _, child in m._own() if isinstance(child, Module)]
    if every is not None and not found:
        raise ValueError(f"the model has no Sequential or Transformer of more than {every} layers to compute again")


def fit(
    step: TrainStep,
    loader: DataLoader,
    epochs: int,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    lr_scheduler: Callable[[int], float] | None = None,
    on_step: Callable[[TrainStep, float], None] | None = None,
    quiet: bool = False,
) -> list[float]:
    """Train for some epochs, counted from the very first step; a run that was cut short goes on from its checkpoint.

    Args:
        loader: gives batches as `step` takes them. With a `seed` of its own a resumed run sees what it would have seen.
        checkpoint: a file that is written every `checkpoint_every` steps and in the end, and from which training goes on if it is there.
        lr_scheduler: from the number of a step (from 0) to a factor of the learning rate (see `optim.cosine`).
        on_step: called with the step and its loss after each.
        quiet: no progress bar.

    Returns:
        The losses of the steps taken now.

    Raises:
        FloatingPointError: a loss is NaN; the checkpoint from before remains.
    """
    if checkpoint is not None and os.path.exists(checkpoint):
        step.load(checkpoint)
    rate, total, losses = step.optimizer.lr, epochs * len(loader), []
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[shown]}"))
    with Progress(*columns, transient=True, disable=quiet) as bar:
        task = bar.add_task("training", total=total, completed=step.steps, shown="")
        while step.steps < total:
            epoch, done = divmod(step.steps, len(loader))
            for batch in loader.batches(epoch, done):
                if lr_scheduler is not None:
                    step.optimizer.lr = rate * lr_scheduler(step.steps)
                loss = step(*batch)
                loss = loss[0] if isinstance(loss, tuple) else loss
                if np.isnan(loss):
                    hint = "compile the step with detect_anomaly=True to see which operator made it"
                    raise FloatingPointError(f"the loss of step {step.steps} is NaN; {hint}")
                losses.append(loss)
                bar.update(task, completed=step.steps, shown=f"loss {loss:.4f}")
                if on_step is not None:
                    on_step(step, loss)
                if checkpoint is not None and (step.steps % checkpoint_every == 0 or step.steps == total):
                    step.save(checkpoint)
    step.optimizer.lr = rate
    return losses


def _generator_state(path: str | os.PathLike[str], words: np.ndarray, place: np.ndarray) -> tuple[Any, ...]:
    """NumPy's state of its global generator (MT19937), of which NumPy itself checks too little.

    Raises:
        ValueError: it is none.
    """
    if words.shape != (624,) or words.dtype != np.uint32 or not words.any():
        raise ValueError(f"{path}: {_WORDS!r} must be 624 uint32 words, got {words.dtype}{list(words.shape)}")
    if place.shape != (3,) or not np.isfinite(place).all() or place[0] not in range(625) or place[1] not in (0, 1):
        raise ValueError(f"{path}: {_PLACE!r} must be a place from 0 to 624, 0 or 1, and a number, got {place}")
    return ("MT19937", words, int(place[0]), int(place[1]), float(place[2]))
