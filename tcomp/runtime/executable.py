"""A compiled model, ready to call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, TcompError, UnsupportedError
from . import threads
from .arguments import Spec, bind, check_bounds, check_outputs, check_scratch, result_shapes
from .call import Runner
from .device.arrays import DeviceArray
from .device.base import Library, OnDevice
from .graph import Graph
from .profile import profile_kernels, time_runs
from .program import Program
from .report import Memory, Profile, Timing
from .results import ResultMemory, empty, numpy_dtype, static_types


class TextViews(Protocol):
    """The program's stages as text: of one kernel, or all."""

    @property
    def kernels(self) -> Mapping[str, Any]:
        """What its kernels were made from, by their names in the program."""

    def __call__(self, stage: str, kernel: str | None = None) -> str: ...


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What a caller of `Executable.export` decides; see there."""

    format: str
    name: str | None
    weights: str
    state: Mapping[str, Any]
    state_names: Mapping[str, str]
    portable: bool | None


class Exporter(Protocol):
    """Writes an executable's code to files; returns their paths."""

    def __call__(self, exe: Executable, path: str | os.PathLike[str], options: ExportOptions) -> tuple[Path, ...]: ...


class Executable:
    """A compiled model. Call it with one array for each input; it may be called from several threads at once.

    Args:
        num_threads: threads of its parallel loops; by default TCOMP_NUM_THREADS, else the cores of this process.
        stages: shows the program at its stages; None where only the program itself is known.
        exporter: writes it to files; None where the compiler is not there.
    """

    def __init__(
        self,
        program: Program,
        library: Library,
        num_threads: int | None = None,
        stages: TextViews | None = None,
        exporter: Exporter | None = None,
    ) -> None:
        self.program = program
        self.stages = stages
        self._exporter = exporter
        self._runner = Runner(program, library)
        self._results = ResultMemory()
        self._expected = static_types(program.inputs) if not program.dims else None
        self._fresh = static_types(program.outputs) or ()
        self._updates = {result: number for number, result in program.updates}
        self.num_threads = num_threads

    def __reduce__(self) -> Any:
        raise TypeError(
            "an Executable holds loaded machine code and cannot be copied or pickled; share it, or compile again"
        )

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.program.inputs))
        return f"<Executable ({inputs}) -> {', '.join(map(str, self.program.outputs))}, {self.num_kernels} kernels>"

    @property
    def library(self) -> Library:
        """The code that it runs."""
        return self._runner.library

    @property
    def inputs(self) -> tuple[Spec, ...]:
        return self.program.inputs

    @property
    def outputs(self) -> tuple[Spec, ...]:
        return self.program.outputs

    @property
    def num_kernels(self) -> int:
        """Kernel calls of one run."""
        return len(self.program.kernels)

    @property
    def memory(self) -> Memory:
        """Bytes of the workspace, of constants, and what intermediate tensors would take without sharing."""
        p = self.program
        return Memory(p.arena_bytes, p.total_bytes, sum(c.nbytes for c in p.constants))

    @property
    def num_threads(self) -> int | None:
        """Threads of its parallel loops; None for as many as `tcomp.runtime.threads` says."""
        return self._runner.num_threads

    @num_threads.setter
    def num_threads(self, count: int | None) -> None:
        self._runner.num_threads = None if count is None else threads.valid_num_threads(count)

    # calling

    def __call__(self, *args: Any, out: Any = None, **named: Any) -> Any:
        """Run the model.

        Args:
            args, named: one array for each input, in order or by name: NumPy arrays, or anything with `__dlpack__` or the
                buffer protocol. They are read in place. For a GPU, arrays of its own memory, too, such as Torch's and CuPy's.
            out: an array (or a sequence, for several outputs) to write the result into. It may share memory with an input: the
                result is then computed elsewhere and copied.

        Returns:
            A NumPy array, or a tuple of them where the model has several results. DeviceArrays, where an argument is on a GPU: its results
            stay there, and this does not wait for them.

        Raises:
            InputError: an argument is missing, too many, not of the expected type, or holds an index that is out of range.
            OutOfMemoryError: there is no memory for what a kernel keeps while it runs.
        """
        if out is None and not named and not self._updates and self._fits(args):
            results = [self._results.array(i, *f) for i, f in enumerate(self._fresh)]
            self._runner.run(args, results, ())
        else:
            device = self.library.on_device
            if device is not None:
                args, named = [_viewed(device, a) for a in args], {n: _viewed(device, a) for n, a in named.items()}
                if any(isinstance(a, DeviceArray) for a in (*args, *named.values())):
                    return self._run_on_device(device, args, named, out)
            if self._updates:
                return self._run_updates(args, out, named)
            arrays, dims = self._bind(args, named, out)
            results = self._outputs(out, dims)
            self._runner.run_apart(arrays, results, dims)
        return results[0] if len(results) == 1 else tuple(results)

    def _run_on_device(self, device: OnDevice, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Any:
        """A call with arrays of the device."""
        arrays, dims = self._bind(args, named)
        results = self._device_results(device, arrays, dims)
        self._runner.run_on_device(arrays, results, dims)
        if out is not None:
            given = [_viewed(device, a) for a in (out if isinstance(out, (list, tuple)) else [out])]
            fits = len(given) == len(results) and all(
                isinstance(a, DeviceArray) and a.shape == r.shape and a.dtype == r.dtype for a, r in zip(given, results)
            )
            if not fits:
                wanted = ", ".join(map(str, self.outputs))
                raise InputError("the output arrays do not fit", why=f"on the device are wanted {wanted}")
            for target, result in zip(given, results):
                device.write(target, result)
            results = given
        return results[0] if len(results) == 1 else tuple(results)

    def _device_results(self, device: OnDevice, arrays: Sequence[Any], dims: Sequence[int]) -> list[DeviceArray]:
        """Arrays for results: new ones, and the inputs that the model updates."""
        specs = self.program.outputs
        shapes = result_shapes(specs, dims, self.program.dims)
        host = [self.program.inputs[n].name for n in self._updates.values() if not isinstance(arrays[n], DeviceArray)]
        if host:
            raise InputError(
                "the model changes inputs in place", why=f"{', '.join(host)}: they must be on the device, as others are"
            )
        return [
            arrays[self._updates[i]] if i in self._updates else device.empty(shape, numpy_dtype(spec))
            for i, (shape, spec) in enumerate(zip(shapes, specs))
        ]

    def on_device(self, array: Any) -> DeviceArray:
        """A copy of an array in the memory of the GPU that this is compiled for: to be an argument more than once.

        Raises:
            UnsupportedError: it is compiled for a CPU.
        """
        return self._needed_device("keep arrays there").copied(np.ascontiguousarray(array))

    def graph(self, *args: Any, **named: Any) -> Graph:
        """The model's run on these inputs, captured: a call of the result launches all kernels at once, on the same memory each time, as a
        CUDA graph does.

        Raises:
            UnsupportedError: it is compiled for a CPU; or what is launched depends on values that the run computes. InputError: as for a call.
        """
        device = self._needed_device("capture a run")
        args, named = [_viewed(device, a) for a in args], {n: _viewed(device, a) for n, a in named.items()}
        arrays, dims = self._bind(args, named)
        own = [device.copied(np.asarray(a)) for a in arrays]
        results = self._device_results(device, own, dims)
        return Graph(self.inputs, tuple(own), tuple(results), device, self._runner.captured(own, results, dims))

    def _needed_device(self, what: str) -> OnDevice:
        device = self.library.on_device
        if device is None:
            raise UnsupportedError(f"cannot {what}", why="the model is not compiled for a GPU", hint='target="cuda"')
        return device

    def _run_updates(self, args: Sequence[Any], out: Any, named: Mapping[str, Any]) -> Any:
        """A call of a model that changes inputs: they are its results, too."""
        inputs = {number for number, _ in self.program.updates}
        if out is not None or named or not self._fits(args) or any(not args[i].flags.writeable for i in inputs):
            self._bind(args, named)  # tells what is wrong with the arguments, if it is that
            names = ", ".join(self.program.inputs[i].name for i in sorted(inputs))
            raise InputError(
                "the model changes inputs in place",
                why=f"{names}: all inputs must be C-contiguous arrays of their dtypes, in order, these ones writeable, and out is not given",
            )
        results = [
            args[self._updates[i]] if i in self._updates else self._results.array(i, *f)
            for i, f in enumerate(self._fresh)
        ]
        self._runner.run(args, results, ())
        return results[0] if len(results) == 1 else tuple(results)

    def _fits(self, args: Sequence[Any]) -> bool:
        """Whether the arguments can be used as they are; else `_bind` converts them, or tells what is wrong."""
        if self._expected is None or len(args) != len(self._expected):
            return False
        for a, (shape, kind) in zip(args, self._expected):
            if type(a) is not np.ndarray or a.shape != shape or a.dtype != kind or not a.flags.c_contiguous:
                return False
        return True

    def _bind(
        self, args: Sequence[Any], named: Mapping[str, Any], out: Any = None
    ) -> tuple[list[np.ndarray], list[int]]:
        given = out if isinstance(out, (list, tuple)) else [out]
        p = self.program
        arrays, dims = bind(p.inputs, p.dims, args, named, list(zip(p.outputs, given)))
        check_bounds(dims, p.dims, p.dim_max)
        return arrays, dims

    def _outputs(self, out: Any, dims: Sequence[int]) -> list[np.ndarray]:
        specs = self.program.outputs
        shapes = result_shapes(specs, dims, self.program.dims)
        check_scratch(self.program.scratch, dims, self.program.dims)
        if out is not None:
            return check_outputs(out, specs, shapes)
        return [empty(shape, numpy_dtype(spec)) for shape, spec in zip(shapes, specs)]

    def named(self, *args: Any, **named: Any) -> dict[str, np.ndarray]:
        """The results by their names; arguments as for a call."""
        found = self(*args, **named)
        return dict(zip((s.name for s in self.outputs), found if isinstance(found, tuple) else (found,)))

    def export(
        self,
        path: str | os.PathLike[str],
        format: str = "shared",
        name: str | None = None,
        weights: str = "auto",
        state: Mapping[str, Any] | None = None,
        state_names: Mapping[str, str] | None = None,
        portable: bool | None = None,
    ) -> tuple[Path, ...]:
        """Write files that run this model without Python (docs/deploy.md).

        Args:
            path: the file to write, such as "model.so", "model.o" or "model.c"; a C header is written beside it.
            format: "shared", a shared library, which `tcomp.load` reads, too; "object", an object file to link into a program, with a
                CMake file; "c", C99 source; "wasm", a WebAssembly module with an ES module that loads it (compiled for that target).
            name: begins the names of the C interface; by default the file's name without its ending.
            weights: "inside" the file, or "beside" it, in NAME.safetensors, which is mapped into memory; "auto": beside from 64 MiB on.
            state: inputs that the exported model keeps from run to run, and their values at first: those that it changes, and others.
            state_names: what they are called in files, where that is not the input's name.
            portable: whether code that runs on nearly all x86-64 machines (x86-64-v2, without Winograd's larger weights) stands beside that
                for the target; by default where the model was compiled for "cpu", this machine's own.

        Returns:
            The paths of the files.

        Raises:
            TcompError: an unknown format, or no C compiler to link with. UnsupportedError: a model that cannot be exported so far.
        """
        if self._exporter is None:
            raise TcompError("this executable cannot be exported", why="it was loaded from an exported file")
        return self._exporter(
            self, path, ExportOptions(format, name, weights, state or {}, state_names or {}, portable)
        )

    # looking inside

    def time(self, *args: Any, repeat: int = 50, warmup: int = 5, **named: Any) -> Timing:
        """Time calls on the given inputs, results written to the same arrays each time.

        Args:
            repeat: timed runs; warmup: runs before them.

        Returns:
            Timing, in seconds: median, best, worst.
        """
        return time_runs(self._runner, *self._apart(args, named), repeat, warmup)

    def profile(self, *args: Any, repeat: int = 20, **named: Any) -> Profile:
        """Time each kernel on its own, in the order of a run: seconds, GFLOP/s, GB/s. Printing the result gives a table."""
        return profile_kernels(self.program, self._runner, *self._apart(args, named), repeat)

    def _apart(
        self, args: Sequence[Any], named: Mapping[str, Any]
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Arguments, results and extents of runs that change nothing of the caller's: inputs that the model updates are copied."""
        arrays, dims = self._bind(args, named)
        results = list(self._outputs(None, dims))
        for result, number in self._updates.items():
            arrays[number] = results[result] = np.array(arrays[number])
        return arrays, results, dims

    def ir(self, stage: str, kernel: str | None = None) -> str:
        """The program at a stage, as text.

        Args:
            stage: "graph", "fused", "loops", "scheduled", "schedule" or "explain", and what the target has besides: of a CPU "llvm", "asm" and
                "c", of the reference "python".
            kernel: only this kernel (for the stages that have kernels).

        Raises:
            TcompError: no such stage or kernel, or the module was loaded from a file without its sources.
        """
        if self.stages is None:
            raise TcompError("this module carries no program text", why="it was loaded from an exported file")
        return self.stages(stage, kernel)

    def explain(self, kernel: str | None = None) -> str:
        """Why a kernel (by default each) is as fast as it is: the rule that scheduled it, operations and bytes by arithmetic,
        registers of the inner tile, work spent on filled-up tiles, vector width and spills in the assembly."""
        return self.ir("explain", kernel)

    def schedule(self, kernel: str) -> str:
        """The schedule of a kernel as Python over a Schedule named `sch`: to read, copy and change."""
        return self.ir("schedule", kernel)


def _viewed(device: OnDevice, value: Any) -> Any:
    """What a caller gave: an array of the device, where it is one."""
    found = device.view(value)
    return value if found is None else found
