"""Arrays in a device's memory, and what other libraries have there."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np

from ...dtype import bfloat16
from ...errors import InputError


class Reader(Protocol):
    """What brings a device's memory to the host.

    Attributes:
        index: the device's number.
    """

    index: int

    def to_host(self, array: np.ndarray, source: int) -> None:
        """Copy bytes of the device into an array."""

    def synchronize(self) -> None:
        """Wait for all launches."""


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array in a device's memory, without gaps, the last axis the fastest. Torch and CuPy take it as one of theirs, without a copy:
    `torch.as_tensor(array, device="cuda")`, `cupy.asarray(array)`.

    Attributes:
        address: where it begins. owner: keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any = field(repr=False)
    reader: Reader = field(repr=False)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def numpy(self) -> np.ndarray:
        """A copy on the host, after all that was launched before."""
        found = np.empty(self.shape, self.dtype)
        if found.nbytes:
            self.reader.synchronize()
            self.reader.to_host(found.reshape(-1).view(np.uint8), self.address)
        return found

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The protocol of Numba, CuPy and Torch, version 3: https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html"""
        data = (self.address, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": data, "strides": None, "version": 3}

    def overlaps(self, other: DeviceArray) -> bool:
        """Whether two arrays share memory."""
        return self.address < other.address + other.nbytes and other.address < self.address + self.nbytes


def foreign_array(value: Any, reader: Reader) -> DeviceArray | None:
    """What another library has on a GPU, as an array over the same memory; None where it is no such thing.

    Raises:
        InputError: it has gaps, or elements of a type that there is no name for.
    """
    if isinstance(value, DeviceArray):
        return value
    if hasattr(type(value), "__dlpack_device__") and int(value.__dlpack_device__()[0]) == _CUDA:
        return _from_dlpack(value, reader)
    told = getattr(value, "__cuda_array_interface__", None)
    if told is None:
        return None
    if told.get("stream") is not None:  # what fills it may still be under way there
        reader.synchronize()
    shape, kind = tuple(told["shape"]), np.dtype(told["typestr"])
    _refuse_gaps(shape, told.get("strides"), kind.itemsize)
    return DeviceArray(int(told["data"][0]), shape, kind, value, reader)


def _refuse_gaps(shape: tuple[int, ...], strides: Any, step: int) -> None:
    """Check that steps, in the units of `step`, are those of rows without gaps."""
    if strides is None or 0 in shape:
        return
    for extent, stride in zip(reversed(shape), reversed(tuple(strides))):
        if extent != 1 and stride != step:
            raise InputError(
                f"an array of shape {list(shape)} on the GPU has gaps, or another order of axes",
                why=f"its strides are {list(strides)}; inputs are read in place", hint=".contiguous()",
            )  # fmt: skip
        step *= extent


# DLPack, https://dmlc.github.io/dlpack/latest/c_api.html

_CUDA = 2
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}
_BFLOAT = 4


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(value: Any, reader: Reader) -> DeviceArray:
    try:
        capsule = value.__dlpack__()  # frees what it holds with itself, as nobody renames it
    except Exception as error:  # whatever the other library raises
        raise InputError("an array on the GPU is not handed out", why=f"{type(error).__name__}: {error}") from error
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    _refuse_gaps(shape, strides, 1)
    if tensor.device_id != reader.index:
        raise InputError(f"an array lies on GPU {tensor.device_id}", why=f"the model runs on GPU {reader.index}")
    if tensor.lanes != 1 or (tensor.code not in _KINDS and tensor.code != _BFLOAT):
        raise InputError("an array on the GPU has elements of an unknown type", why=f"DLPack's code {tensor.code}")
    kind = bfloat16.numpy if tensor.code == _BFLOAT else np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    address = (tensor.data or 0) + tensor.byte_offset
    return DeviceArray(address, shape, np.dtype(kind), (capsule, value), reader)
