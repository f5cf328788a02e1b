"""The interpreter as a backend: what any other one must compute, by the same graph passes, memory plan and program."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..codegen.build import Kernel, LoweringStep, Scheduled, make_kernel
from ..codegen.cache import ObjectCache
from ..errors import InternalError
from ..ir.expr import Buffer
from ..ir.interp import evaluate, interpreted, python_source
from ..ir.primfunc import PrimFunc
from ..ir.printer import text
from ..runtime.device.cpu import CpuDevice
from ..runtime.program import Program
from ..runtime.steps import StepRunner
from ..target import Target
from ..target.reference import ReferenceTarget
from .layouts import PlainLayout
from .scheduling import told


@dataclass(frozen=True, slots=True)
class PythonGenerator:
    """A `Generator` of Python source, as the interpreter runs it."""

    target: Target
    steps: tuple[LoweringStep, ...] = ()

    def check(self, scheduled: PrimFunc, lowered: PrimFunc) -> None:
        """The interpreter runs every kernel."""

    def text(self, lowered: PrimFunc, symbol: str) -> str:
        return python_source(lowered)[0]

    def code(self, text: str) -> bytes:
        return text.encode()

    def assembly(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class ReferenceBackend:
    """A `Backend` that interprets. Denormal numbers are kept, whatever was asked for."""

    target: ReferenceTarget = field(default_factory=ReferenceTarget)

    @property
    def steps(self) -> tuple[LoweringStep, ...]:
        return ()

    @property
    def views(self) -> Mapping[str, Callable[[Kernel], str]]:
        return {"python": lambda k: k.text, "explain": lambda k: f"kernel {k.func.name}: interpreted, {k.made.rule}"}

    def layout(self, winograd: bool) -> PlainLayout:
        return PlainLayout()

    def kernel(self, func: PrimFunc, given: Any = None) -> Kernel:
        generator = PythonGenerator(self.target)
        if given is None:
            return make_kernel(func, generator, lambda f: Scheduled(f, "plain loops"))
        return make_kernel(func, generator, lambda _: told(given), f"given\n{text(given.schedule.func)}")

    def build(
        self, kernels: Sequence[Kernel], cache: ObjectCache, on_done: Callable[[Kernel], None] | None = None
    ) -> None:
        """Nothing is built: the interpreter takes kernels as they are."""
        for k in kernels:
            if on_done is not None:
                on_done(k)

    def link(self, program: Program, kernels: Sequence[Kernel], cache: ObjectCache) -> InterpretedLibrary:
        return InterpretedLibrary({k.symbol: k.scheduled for k in kernels})

    def load(self, objects: Sequence[bytes]) -> InterpretedLibrary:
        raise InternalError("the interpreter has no objects to load")


class InterpretedLibrary:
    """Kernels that the interpreter runs, on the very memory that native code would use (a `Library`)."""

    device = CpuDevice()
    lacking: tuple[str, ...] = ()
    objects: tuple[bytes, ...] = ()
    on_device = None

    def __init__(self, functions: Mapping[str, PrimFunc]) -> None:
        self._functions = functions

    def entry(self, program: Program) -> Callable[[int, Any, int, Any], None]:
        kernels = {s.symbol: self.kernel(s.symbol, [a.kind for a in s.arguments]) for s in program.kernels}
        num_arguments = len(program.inputs) + len(program.outputs)

        def run(args: int, consts: Any, arena: int, dims: Any) -> None:
            addresses = {
                "args": (ctypes.c_size_t * num_arguments).from_address(args),
                "consts": (ctypes.c_size_t * len(program.constants)).from_address(ctypes.addressof(consts)),
                "dims": list(dims or ()),
            }
            launch = lambda step, values: kernels[step.symbol](*values)
            StepRunner(program, self.device, addresses, arena, launch).run()

        return run

    def kernel(self, symbol: str, kinds: Sequence[str]) -> Callable[..., None]:
        func = self._functions[symbol]
        call = interpreted(func)
        buffers = func.buffers

        def run(*values: int) -> None:
            sizes = dict(zip(func.dims, values[len(buffers) :]))
            arrays = [_array(at, b, tuple(evaluate(e, sizes) for e in b.shape)) for at, b in zip(values, buffers)]
            call(*arrays, *values[len(buffers) :])

        return run


def _array(address: int, buffer: Buffer, shape: tuple[int, ...]) -> np.ndarray:
    """The memory at an address as an array."""
    kind = np.dtype(buffer.dtype.numpy)
    nbytes = prod(shape) * kind.itemsize
    if not nbytes:
        return np.empty(shape, kind)
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8).view(kind).reshape(shape)
