"""The same graph in other libraries: torch, onnxruntime, OpenVINO, NumPy.

Each maker takes an IRModule and arrays for its inputs and returns a function of no arguments that computes the result, with its
inputs and weights bound beforehand, as a user of that library would have them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import typer
from threadpoolctl import threadpool_limits

import tcomp
from tcomp import IRModule, evaluate
from tcomp.cli.sides import BEFORE
from tcomp.ir.graph import ConstRef, OpCall

Side = Callable[[], np.ndarray]
_FIRST = (0, 3, 1, 2)
_LAST = (0, 2, 3, 1)


def make(name: str, module: IRModule, inputs: Sequence[np.ndarray], threads: int) -> Side:
    """A function that computes the graph in the named library.

    Raises:
        typer.BadParameter: no such peer. NotImplementedError: the peer has no such operator.
        ImportError: the peer is not installed.
    """
    makers: Mapping[str, Callable[[IRModule, Sequence[np.ndarray], int], Side]] = {
        "torch": _torch,
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "numpy": _numpy,
    }
    if name not in makers:
        raise typer.BadParameter(f"unknown peer {name!r}: one of {', '.join(makers)}")
    return makers[name](module, inputs, threads)


def _numpy(module: IRModule, inputs: Sequence[np.ndarray], threads: int) -> Side:
    threadpool_limits(threads, user_api="blas")  # of the whole process; torch and the others have threads of their own
    return lambda: evaluate(module, inputs)[0]


def _calls(module: IRModule) -> list[tuple[OpCall, Any]]:
    return [(b.call, b.result) for b in module.main.bindings if isinstance(b.call, OpCall)]


# torch


def _torch(module: IRModule, inputs: Sequence[np.ndarray], threads: int) -> Side:
    """torch, eager. Images lie as the graph says: channels last for NHWC, which is the fastest form torch has for them."""
    import torch

    torch.set_num_threads(threads)
    table = _torch_operators(torch)
    start: dict[Any, Any] = {p: torch.from_numpy(x) for p, x in zip(module.main.params, inputs)}
    steps = []
    for call, result in _calls(module):
        if call.op not in table:
            raise NotImplementedError(call.op)
        args: list[Any] = []
        for i, a in enumerate(call.args):
            if isinstance(a, ConstRef):
                value = torch.from_numpy(np.array(module.constants[a.name]))
                if call.op == "conv2d" and i == 1:
                    value = value.permute(3, 2, 0, 1) if call.attrs["kernel_layout"] == "HWIO" else value
                    last = call.attrs["layout"] == "NHWC"
                    value = value.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
                args.append((True, value))
            else:
                args.append((False, a))
        steps.append((table[call.op], args, dict(call.attrs), result))
    (wanted,) = module.main.results

    def run() -> np.ndarray:
        with torch.inference_mode():
            values = dict(start)
            for f, args, attrs, result in steps:
                values[result] = f(attrs, *(a if fixed else values[a] for fixed, a in args))
            return values[wanted].numpy()

    return run


def _axes_of(attrs: dict[str, Any], x: Any) -> tuple[int, ...]:
    given = attrs["axes"]
    return tuple(range(x.ndim)) if given is None else (given,) if isinstance(given, int) else tuple(given)


def _pad_widths(attrs: dict[str, Any]) -> list[int]:
    """As torch wants them: the last axis first."""
    return [w for pair in reversed(attrs["pad_width"]) for w in pair]


def _cut(attrs: dict[str, Any], x: Any) -> Any:
    steps = attrs["strides"] or (1,) * x.ndim
    return x[tuple(slice(b, e, s) for b, e, s in zip(attrs["begin"], attrs["end"], steps))].contiguous()


def _turned(attrs: dict[str, Any], xs: tuple[Any, ...]) -> list[Any]:
    return [x.mT if swap else x for x, swap in zip(xs, attrs["transposed"])]


def _torch_operators(torch: Any) -> dict[str, Callable[..., Any]]:
    F = torch.nn.functional

    def image(f: Callable[..., Any]) -> Callable[..., Any]:
        """An operator over NCHW images, called with the layout of the graph; the permutations are views."""

        def run(attrs: dict[str, Any], x: Any, *rest: Any) -> Any:
            if attrs["layout"] == "NHWC":
                return f(attrs, x.permute(_FIRST), *rest).permute(_LAST)
            return f(attrs, x, *rest)

        return run

    simple = {
        name: (lambda attrs, *xs, f=f: f(*xs))
        for name, f in {
            "add": torch.add, "multiply": torch.mul, "subtract": torch.sub, "relu": torch.relu,
            "exp": torch.exp, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": F.silu, "erf": torch.erf,
            "divide": torch.div, "sqrt": torch.sqrt, "log": torch.log,
        }.items()
    }  # fmt: skip

    return simple | {
        "matmul": lambda a, *xs: torch.matmul(*_turned(a, xs)),
        "conv2d": image(lambda a, x, w: F.conv2d(x, w, None, a["stride"], a["padding"], a["dilation"], a["groups"])),
        "max_pool2d": image(lambda a, x: F.max_pool2d(x, a["kernel"], a["stride"], a["padding"])),
        "avg_pool2d": image(lambda a, x: F.avg_pool2d(x, a["kernel"], a["stride"], a["padding"])),
        "global_avg_pool2d": image(lambda a, x: F.adaptive_avg_pool2d(x, 1)),
        "gelu": lambda a, x: F.gelu(x, approximate="tanh" if a["approximate"] else "none"),
        "softmax": lambda a, x: torch.softmax(x, a["axis"]),
        "log_softmax": lambda a, x: torch.log_softmax(x, a["axis"]),
        "layer_norm": lambda a, x, w, b: F.layer_norm(x, w.shape, w, b, a["eps"]),
        "rms_norm": lambda a, x, w: F.rms_norm(x, w.shape, w, a["eps"]),
        "attention": lambda a, q, k, v, mask=None: F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=a["causal"], scale=a["scale"]
        ),
        "take": lambda a, x, i: F.embedding(i, x),
        "sum": lambda a, x: x.sum(_axes_of(a, x), a["keepdims"]),
        "mean": lambda a, x: x.mean(_axes_of(a, x), a["keepdims"]),
        "max": lambda a, x: x.amax(_axes_of(a, x), a["keepdims"]),
        "argmax": lambda a, x: x.argmax(a["axis"], a["keepdims"]),
        "transpose": lambda a, x: x.permute(a["axes"]).contiguous(),
        "reshape": lambda a, x: x.reshape(a["shape"]),
        "concat": lambda a, *xs: torch.cat(xs, a["axis"]),
        "multiply_scalar": lambda a, x: x * a["scalar"],
        "add_scalar": lambda a, x: x + a["scalar"],
        "pad": lambda a, x: F.pad(x, _pad_widths(a), value=a["value"]),
        "slice": _cut,
    }


# ONNX


def to_onnx(module: IRModule) -> bytes:
    """The graph as an ONNX model. NHWC images are NCHW there, the only layout that ONNX has: see `input_array`.

    Raises:
        NotImplementedError: an operator without counterpart here.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    names = {p: p.name for p in module.main.params}
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32}
    inputs = [
        helper.make_tensor_value_info(p.name, kinds[p.type.dtype.name], _nchw(module, p.type.shape))
        for p in module.main.params
    ]
    tensors, nodes = [], []

    def constant(array: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), f"k{len(tensors)}"))
        return str(tensors[-1].name)

    for number, (call, result) in enumerate(_calls(module)):
        args = []
        for i, a in enumerate(call.args):
            if isinstance(a, ConstRef):
                value = module.constants[a.name]
                is_kernel = call.op == "conv2d" and i == 1 and call.attrs["kernel_layout"] == "HWIO"
                args.append(constant(value.transpose(3, 2, 0, 1) if is_kernel else value))
            else:
                args.append(names[a])
        names[result] = f"v{number}"
        op, args, attrs = _onnx_node(call, args, constant)
        nodes.append(helper.make_node(op, args, [names[result]], **attrs))
    (wanted,) = module.main.results
    shape = _nchw(module, wanted.type.shape)
    out = helper.make_tensor_value_info(names[wanted], kinds[wanted.type.dtype.name], shape)
    graph = helper.make_graph(nodes, "graph", inputs, [out], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _is_nhwc(module: IRModule) -> bool:
    return any(c.attrs.get("layout") == "NHWC" for c, _ in _calls(module))


def _nchw(module: IRModule, shape: Sequence[int]) -> list[int]:
    is_image = _is_nhwc(module) and len(shape) == 4
    return [shape[a] for a in _FIRST] if is_image else list(shape)


def _onnx_node(call: OpCall, args: list[str], constant: Callable[[np.ndarray], str]) -> tuple[str, list[str], dict]:
    a = call.attrs

    def two(value: Any) -> list[int]:
        return [value, value] if isinstance(value, int) else list(value)

    def ints(values: Any) -> str:
        return constant(np.asarray(values, np.int64))

    plain = {
        "matmul": "MatMul", "add": "Add", "multiply": "Mul", "subtract": "Sub", "relu": "Relu", "exp": "Exp", "tanh": "Tanh",
        "sigmoid": "Sigmoid", "erf": "Erf", "divide": "Div", "sqrt": "Sqrt", "log": "Log",
    }  # fmt: skip
    match call.op:
        case op if op in plain and not any(a.get("transposed", ())):
            return plain[op], args, {}
        case "conv2d":
            pads = two(a["padding"]) * 2
            return "Conv", args, {"strides": two(a["stride"]), "pads": pads, "dilations": two(a["dilation"]), "group": a["groups"]}  # fmt: skip
        case "max_pool2d" | "avg_pool2d":
            node = {"kernel_shape": two(a["kernel"]), "strides": two(a["stride"] or a["kernel"]), "pads": two(a["padding"]) * 2}  # fmt: skip
            if call.op == "avg_pool2d":
                node["count_include_pad"] = int(a["count_include_pad"])
            return ("MaxPool" if call.op == "max_pool2d" else "AveragePool"), args, node
        case "global_avg_pool2d":
            return "GlobalAveragePool", args, {}
        case "softmax" | "log_softmax":
            return ("Softmax" if call.op == "softmax" else "LogSoftmax"), args, {"axis": a["axis"]}
        case "layer_norm":
            return "LayerNormalization", args, {"epsilon": a["eps"], "axis": -1}
        case "rms_norm":
            return "RMSNormalization", args, {"epsilon": a["eps"], "axis": -1}
        case "attention":
            scale = {} if a["scale"] is None else {"scale": a["scale"]}
            return "Attention", args, {"is_causal": int(a["causal"]), **scale}
        case "gelu":
            return "Gelu", args, {"approximate": "tanh" if a["approximate"] else "none"}
        case "sum" | "mean" | "max":
            axes = a["axes"] if a["axes"] is not None else range(call.args[0].type.ndim)
            axes = [axes] if isinstance(axes, int) else list(axes)
            return f"Reduce{call.op.capitalize()}", [*args, ints(axes)], {"keepdims": int(a["keepdims"])}
        case "argmax":
            return "ArgMax", args, {"axis": a["axis"], "keepdims": int(a["keepdims"])}
    return _onnx_movement(call, args, constant, ints)


def _onnx_movement(
    call: OpCall, args: list[str], constant: Callable[[np.ndarray], str], ints: Callable[[Any], str]
) -> tuple[str, list[str], dict]:
    a = call.attrs
    match call.op:
        case "take":
            return "Gather", args, {"axis": a["axis"]}
        case "transpose":
            return "Transpose", args, {"perm": list(a["axes"])}
        case "reshape":
            return "Reshape", [*args, ints(a["shape"])], {}
        case "concat":
            return "Concat", args, {"axis": a["axis"]}
        case "multiply_scalar" | "add_scalar":
            scalar = constant(np.asarray(a["scalar"], np.float32))
            return ("Mul" if call.op == "multiply_scalar" else "Add"), [*args, scalar], {}
        case "pad":
            before, after = zip(*a["pad_width"])
            return "Pad", [*args, ints([*before, *after]), constant(np.asarray(a["value"], np.float32))], {}
        case "slice":
            count = len(a["begin"])
            steps = a["strides"] or (1,) * count
            return "Slice", [*args, ints(a["begin"]), ints(a["end"]), ints(range(count)), ints(steps)], {}
    raise NotImplementedError(call.op)


def input_array(module: IRModule, x: np.ndarray) -> np.ndarray:
    """An input as an ONNX runtime gets it: the same numbers, images in NCHW."""
    return np.ascontiguousarray(x.transpose(_FIRST)) if _is_nhwc(module) and x.ndim == 4 else x


def _back(module: IRModule, y: np.ndarray) -> np.ndarray:
    return y.transpose(_LAST) if _is_nhwc(module) and y.ndim == 4 else y


def _onnxruntime(module: IRModule, inputs: Sequence[np.ndarray], threads: int) -> Side:
    """onnxruntime, inputs and outputs bound beforehand."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(to_onnx(module), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for p, x in zip(module.main.params, inputs):
        binding.bind_ortvalue_input(p.name, ort.OrtValue.ortvalue_from_numpy(input_array(module, x)))
    first = session.run_with_iobinding
    name = session.get_outputs()[0].name
    (wanted,) = module.main.results
    result = np.empty(_nchw(module, wanted.type.shape), wanted.type.dtype.numpy)
    binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(result))

    def run() -> np.ndarray:
        first(binding)
        return _back(module, binding.get_outputs()[0].numpy())

    return run


def _openvino(module: IRModule, inputs: Sequence[np.ndarray], threads: int) -> Side:
    """OpenVINO, in float32 (its default on some machines is bfloat16), tuned for the latency of one request."""
    import openvino as ov

    core = ov.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
    }  # fmt: skip
    compiled = core.compile_model(core.read_model(to_onnx(module)), "CPU", settings)
    request = compiled.create_infer_request()
    given = [input_array(module, x) for x in inputs]
    for i, x in enumerate(given):
        request.set_input_tensor(i, ov.Tensor(x, shared_memory=True))

    def run(_given: object = given) -> np.ndarray:  # the tensors do not keep the memory that they share
        request.infer()
        return _back(module, request.get_output_tensor(0).data)

    return run


def serve(
    library: str, maker: tuple[str, str], arguments: tuple[Any, ...], threads: int, target: str = ""
) -> tuple[Side, dict[str, Any]]:
    """What a process of one library races (see `tcomp.cli.sides`): a graph of ours, made there.

    Args:
        maker: (module, function) that makes the graph and its inputs from the arguments.
    """
    module, inputs = getattr(importlib.import_module(maker[0]), maker[1])(*arguments)
    if library not in ("tcomp", BEFORE):
        return make(library, module, inputs, threads), {}
    start = time.perf_counter()
    exe = tcomp.compile(module, target=target or "cpu", num_threads=threads)
    seconds = time.perf_counter() - start
    flops = sum(k.flops for k in exe.program.kernels)
    return lambda: exe(*inputs), {"compile_s": seconds, "flops": flops, "kernels": exe.num_kernels}
