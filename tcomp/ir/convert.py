"""Conversions between dtypes as the generated code does them, in NumPy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def convert(value: Any, to: np.dtype) -> Any:
    """A number or an array in another dtype.

    Floats become integers toward zero and saturate, NaN becomes 0; a float is rounded once; whatever is not 0 is true.

    Args:
        value: of any dtype that tcomp has.
    """
    array = np.asarray(value)
    is_float = array.dtype.kind == "f" or array.dtype == _BFLOAT16
    if array.dtype == to:
        result = array
    elif to.kind in "iu" and is_float:
        result = _saturate(array.astype(np.float64), to)
    elif to == np.bool_:
        result = array.astype(np.float64).astype(bool) if is_float else array.astype(bool)
    elif to == _BFLOAT16 and array.dtype.kind in "iu" and array.dtype.itemsize > 2:
        result = _round_to_odd(array.astype(np.float64)).astype(to)
    elif to in (_BFLOAT16, np.float16) and array.dtype == np.float64:
        result = _round_to_odd(array).astype(to)
    else:
        result = array.astype(to)
    return result if isinstance(value, np.ndarray) else result[()]


def _saturate(x: Any, to: np.dtype) -> Any:
    info = np.iinfo(to)
    wide = np.nan_to_num(np.trunc(x), nan=0.0, posinf=1e300, neginf=-1e300)
    below, above = wide <= info.min, wide >= info.max
    inside = np.where(below | above, 0.0, wide).astype(to)
    return np.where(below, to.type(info.min), np.where(above, to.type(info.max), inside)).astype(to)


def _round_to_odd(x: Any) -> Any:
    """float64 -> float32, truncated, with an odd last bit where that is not exact: what is rounded again then is rounded right.

    S. Boldo and G. Melquiond, Emulation of a FMA and Correctly Rounded Sums, IEEE Trans. Computers 57(4), 2008.
    """
    near = x.astype(np.float32)
    back = near.astype(np.float64)
    bits = near.view(np.uint32)
    inexact = back != x
    inexact &= ~np.isnan(x)
    toward_zero = bits - (inexact & (np.abs(back) > np.abs(x))).astype(np.uint32)
    return np.where(inexact, toward_zero | np.uint32(1), bits).view(np.float32)
