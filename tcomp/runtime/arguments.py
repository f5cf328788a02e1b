"""From what a caller gives to arrays that fit a model's inputs and results, or an error that says what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import memory_bytes
from ..dtype import dtype
from ..errors import InputError
from .device.arrays import DeviceArray
from .extents import Extent, evaluate_shape


@dataclass(frozen=True, slots=True)
class Spec:
    """What an input or output is.

    Attributes:
        shape: ints, and Extents where they are known only when the model is called.
    """

    name: str
    shape: tuple[int | Extent, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """All elements of input number `input` must lie in low <= element <= high: an operator uses them as places.

    Attributes:
        reader: the operator.
    """

    input: int
    low: int
    high: int
    reader: str


def bind(
    specs: Sequence[Spec],
    dim_names: Sequence[str],
    args: Sequence[Any],
    named: Mapping[str, Any],
    results: Sequence[tuple[Spec, Any]] = (),
) -> tuple[list[np.ndarray], list[int]]:
    """The arrays of a call in the order of the inputs, and the values of the symbolic extents.

    Args:
        results: what results are, with the array that the caller gave for each: their extents tell what those of the inputs do not.

    Raises:
        InputError: an argument is missing, unknown, or does not fit.
    """
    expected = ", ".join(map(str, specs)) or "no inputs"
    if len(args) > len(specs):
        raise InputError(f"{len(args)} arguments given", why=f"the model takes {len(specs)}: {expected}")
    unknown = named.keys() - {s.name for s in specs[len(args) :]}
    if unknown:
        name = sorted(unknown)[0]
        twice = any(s.name == name for s in specs)
        raise InputError(f"input {name!r} is {'given twice' if twice else 'unknown'}", why=f"the inputs are {expected}")
    dims = [-1] * len(dim_names)
    arrays = []
    for i, spec in enumerate(specs):
        if i >= len(args) and spec.name not in named:
            raise InputError(f"input {spec.name!r} is missing", why=f"the model takes {expected}")
        arrays.append(as_array(args[i] if i < len(args) else named[spec.name], spec))
    fitting = [(s, a) for s, a in results if isinstance(a, np.ndarray) and a.ndim == len(s.shape)]
    for _ in dim_names:  # an extent may tell another: n, then the m of n * m
        before = list(dims)
        for spec, array in (*zip(specs, arrays), *fitting):
            for extent, s in zip(array.shape, spec.shape):
                if isinstance(s, Extent):
                    s.solve(extent, dims)
        if dims == before:
            break
    for array, spec in zip(arrays, specs):
        _check_shape(array, spec, dims, dim_names)
    if -1 in dims:
        name = dim_names[dims.index(-1)]
        raise InputError(
            f"extent {name} is not the extent of any input",
            why=f"the inputs are {expected}",
            hint="out=, of the shape wanted",
        )
    return arrays, dims


def check_bounds(dims: Sequence[int], names: Sequence[str], largest: Sequence[int]) -> None:
    """Refuse extents beyond those for which the workspace was made.

    Raises:
        InputError: one is larger than its bound.
    """
    for value, name, bound in zip(dims, names, largest):
        if bound and value > bound:
            raise InputError(
                f"extent {name} is {value}",
                why=f"the model was compiled for at most {bound}",
                hint="a larger max= of the dim",
            )


def as_array(value: Any, spec: Spec) -> Any:
    """An argument as an array over its own memory, on the host or a device.

    Raises:
        InputError: it is no array, or not of the spec's dtype, number of axes and layout.
    """
    array = value if isinstance(value, DeviceArray) else _from(value, spec)
    if array.dtype != dtype(spec.dtype).numpy:
        raise InputError(
            f"input {spec.name!r} has dtype {array.dtype}",
            why=f"expected {spec}",
            hint=f"{spec.name}.astype({spec.dtype!r})",
        )
    if array.ndim != len(spec.shape):
        raise InputError(f"input {spec.name!r} has shape {list(array.shape)}", why=f"expected {spec}")
    if isinstance(array, np.ndarray) and not array.flags.c_contiguous:
        raise InputError(
            f"input {spec.name!r} is not C-contiguous",
            why=f"its strides are {array.strides}; inputs are read in place, never copied behind your back",
            hint=f"np.ascontiguousarray({spec.name})",
        )
    return array


def _from(value: Any, spec: Spec) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(
            f"input {spec.name!r} is a masked array",
            why="the model would read what the mask hides",
            hint="give its .data, or .filled(value)",
        )
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(value if hasattr(value, "__array__") else memoryview(value))
    except Exception as error:  # whatever the other library raises
        raise InputError(
            f"input {spec.name!r} is no array",
            why=f"got {type(value).__name__} ({type(error).__name__}: {error}); expected {spec}",
            hint="a NumPy array, or anything with __dlpack__, __array__ or the buffer protocol",
        ) from error


def _check_shape(array: np.ndarray, spec: Spec, dims: Sequence[int], names: Sequence[str]) -> None:
    for axis, (have, want) in enumerate(zip(array.shape, spec.shape)):
        if isinstance(want, Extent) and any(dims[d] < 0 for d in want.dims()):
            unknown = [names[d] for d in sorted(want.dims()) if dims[d] < 0]
            few = len(unknown) == 1
            why = f"no {unknown[0]} of at least 0 makes" if few else f"many {' and '.join(unknown)} make"
            raise InputError(
                f"input {spec.name!r} has shape {list(array.shape)}",
                why=f"expected {spec}; {why} axis {axis} {have}",
                hint="" if few else "out=, of the shape wanted, tells which",
            )
        if have != (want if isinstance(want, int) else want.value(dims)):
            known = "".join(f", {k} = {n}" for k, n in zip(names, dims) if n >= 0)
            raise InputError(
                f"input {spec.name!r} has shape {list(array.shape)}", why=f"expected {spec}{known}; axis {axis} differs"
            )


def result_shapes(specs: Sequence[Spec], dims: Sequence[int], names: Sequence[str]) -> list[tuple[int, ...]]:
    """The shapes of the results.

    Raises:
        InputError: an extent would be negative.
    """
    shapes = [evaluate_shape(spec.shape, dims) for spec in specs]
    for spec, shape in zip(specs, shapes):
        if any(e < 0 for e in shape):
            known = ", ".join(f"{k} = {n}" for k, n in zip(names, dims))
            raise InputError(f"result {spec} would have a negative extent", why=f"with {known} its shape is {shape}")
    return shapes


def check_scratch(scratch: Sequence[tuple[str, Extent]], dims: Sequence[int], names: Sequence[str]) -> None:
    """Refuse a call whose kernels would need more memory than there is: asking for it would end the process.

    Raises:
        InputError: a buffer inside is larger than this machine's memory.
    """
    for name, extent in scratch:
        nbytes = extent.value(dims)
        if nbytes > memory_bytes():
            known = ", ".join(f"{k} = {n}" for k, n in zip(names, dims))
            raise InputError(
                f"buffer {name} inside the kernel would take {nbytes / 2**30:.0f} GiB",
                why=f"with {known}; this machine has {memory_bytes() / 2**30:.0f} GiB",
                hint="compute its producer inside a loop of its consumer (compute_at), or keep less of it",
            )


def check_outputs(out: Any, specs: Sequence[Spec], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """The arrays that a caller gave for the results.

    Raises:
        InputError: they do not fit, or two of them share memory.
    """
    given = list(out) if isinstance(out, (list, tuple)) else [out]
    if len(given) != len(specs):
        raise InputError(f"{len(given)} output arrays given", why=f"the model has {len(specs)} results")
    for array, shape, spec in zip(given, shapes, specs):
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype(spec.dtype).numpy:
            raise InputError(f"output array for {spec} does not fit", why=describe(array))
        if not array.flags.c_contiguous or not array.flags.writeable:
            raise InputError(f"output array for {spec} must be writeable and C-contiguous")
    for i, a in enumerate(given):
        for j in range(i):
            if np.may_share_memory(a, given[j]):
                raise InputError(
                    f"the output arrays for {specs[j]} and {specs[i]} share memory",
                    why="each result needs memory of its own",
                )
    return given


def check_indices(checks: Sequence[IndexCheck], specs: Sequence[Spec], arrays: Sequence[np.ndarray]) -> None:
    """Test the inputs that are used as places.

    Raises:
        InputError: one is out of range; nothing has been written yet.
    """
    for c in checks:
        array = np.asarray(arrays[c.input])
        place = first_outside(array, c.low, c.high)
        if place is not None:
            raise InputError(
                f"input {specs[c.input].name!r} holds {array[place]} at {list(place)}",
                why=f"{c.reader} needs {c.low} <= place <= {c.high} there",
                hint="compile(..., check_indices=False) moves such places to the nearest end instead",
            )


def first_outside(array: np.ndarray, low: int, high: int) -> tuple[int, ...] | None:
    """Where an integer array first leaves low <= element <= high; None where it does not."""
    if array.size == 0 or (int(array.min()) >= low and int(array.max()) <= high):
        return None
    outside = [not low <= x <= high for x in array.reshape(-1).tolist()]  # Python's integers hold any bound
    return tuple(int(i) for i in np.unravel_index(outside.index(True), array.shape))


def describe(value: Any) -> str:
    """What a value is, for a message."""
    if isinstance(value, np.ndarray):
        return f"got {value.dtype}{list(value.shape)}"
    return f"got {type(value).__name__}"
