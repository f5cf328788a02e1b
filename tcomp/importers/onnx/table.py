"""Which function turns an ONNX operator into calls of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .node import Node

Converter = Callable[[Node], Any]
"""node -> its results: an operand, or a tuple of them (None for one that it does not make)."""

HARMLESS = {
    ("BatchNormalization", "momentum"), ("BatchNormalization", "is_test"), ("BatchNormalization", "consumed_inputs"),
    ("Dropout", "seed"), ("Dropout", "ratio"), ("Dropout", "is_test"),
    ("LayerNormalization", "stash_type"), ("RMSNormalization", "stash_type"), ("GroupNormalization", "stash_type"),
    ("SimplifiedLayerNormalization", "stash_type"), ("MaxPool", "storage_order"), ("Cast", "saturate"), ("CastLike", "saturate"),
    ("Cast", "round_mode"), ("CastLike", "round_mode"), ("QuantizeLinear", "saturate"), ("QuantizeLinear", "block_size"),
    ("DequantizeLinear", "block_size"), ("Resize", "cubic_coeff_a"), ("Resize", "extrapolation_value"), ("Resize", "nearest_mode"),
    ("Resize", "exclude_outside"), ("Resize", "antialias"), ("TopK", "sorted"), ("Scan", "num_scan_inputs"),
    ("ArgMax", "select_last_index"), ("Gemm", "broadcast"), ("Unique", "sorted"), ("Attention", "qk_matmul_output_mode"),
    ("Add", "broadcast"), ("Sub", "broadcast"), ("Mul", "broadcast"), ("Div", "broadcast"), ("Pad", "value"),
    ("Attention", "q_num_heads"), ("Attention", "kv_num_heads"), ("GridSample", "padding_mode"),
    ("If", "then_branch"), ("If", "else_branch"), ("ConvTranspose", "kernel_shape"), ("DeformConv", "kernel_shape"),
    *((f"Reduce{kind}", name) for name in ("keepdims", "noop_with_empty_axes")
      for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")),
}  # fmt: skip
"""(operator, attribute): those that need not be asked for, because they matter in training alone, or beside another choice."""

_TABLE: dict[tuple[str, str], list[tuple[int, Converter]]] = {}

ML, MICROSOFT = "ai.onnx.ml", "com.microsoft"


def converts(*names: str, since: int = 1, domain: str = "") -> Callable[[Converter], Converter]:
    """Decorator: register a converter for operators, from a version of their domain on."""

    def put(f: Converter) -> Converter:
        for name in names:
            versions = _TABLE.setdefault((domain, name), [])
            versions.append((since, f))
            versions.sort(key=lambda v: v[0])
        return f

    return put


def converter(domain: str, name: str, version: int) -> Converter | None:
    """The converter of an operator in a version of its domain; None where there is none."""
    fitting = [f for since, f in _TABLE.get((domain, name), []) if since <= version]
    return fitting[-1] if fitting else None
