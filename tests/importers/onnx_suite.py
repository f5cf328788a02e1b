"""The ONNX operator suite, run through native code."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.runner import Runner

import tcomp

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


@cache
def cases(kind: str = "node") -> dict[str, Any]:
    """The suite's cases by name."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {c.name: c for c in load_model_tests(kind=kind)}


NODE = "onnx.backend.test.case.node"


def node_files() -> list[str]:
    """The files of the suite that define node cases, about one for each operator."""
    root = importlib.util.find_spec(NODE)
    assert root is not None and root.submodule_search_locations
    found = pkgutil.walk_packages(list(root.submodule_search_locations), f"{NODE}.")
    return sorted(m.name.removeprefix(f"{NODE}.") for m in found if not m.ispkg)


@cache
def cases_of(file: str) -> dict[str, Any]:
    """The node cases that a file defines. They are computed when it is first imported, some in seconds."""
    made = importlib.import_module(NODE)._NodeTestCases
    before = len(made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(f"{NODE}.{file}")
    return {c.name: c for c in made[before:]}


def _folder(case: Any) -> Path:
    return Path(case.model_dir)


def _array(x: Any) -> Any:
    return numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x


def _read(file: Path, declared: Any) -> Any:
    kind = declared.type.WhichOneof("value")
    if kind != "tensor_type":
        raise tcomp.UnsupportedError(f"{declared.name} is a {kind}")
    tensor = onnx.TensorProto()
    tensor.ParseFromString(file.read_bytes())
    return numpy_helper.to_array(tensor)


def data_sets(case: Any) -> list[tuple[onnx.ModelProto, list[np.ndarray], list[np.ndarray]]]:
    """(model, inputs, expected results) of a case."""
    if case.model_dir is None:
        model = case.model
        return [(model, *([_array(x) for x in part] for part in pair)) for pair in case.data_sets]
    model = onnx.load(_folder(case) / "model.onnx")
    sets = []
    for folder in sorted(_folder(case).glob("test_data_set_*")):
        found = []
        for what, declared in (("input", model.graph.input), ("output", model.graph.output)):
            files = sorted(folder.glob(f"{what}_*.pb"), key=lambda p: int(re.findall(r"\d+", p.name)[0]))
            found.append([_read(f, v) for f, v in zip(files, declared)])
        sets.append((model, *found))
    return sets


def run(case: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Compile a case and compare its results with the suite's own.

    Args:
        rtol, atol: where the suite's own tolerance is not what the case can hold (see DIFFERENT).

    Raises:
        AssertionError: they differ. TcompError: it cannot be compiled.
    """
    for model, inputs, outputs in data_sets(case):
        exe = tcomp.compile(model)
        names = [v.name for v in model.graph.input]
        found = exe(**dict(zip(names, inputs)))
        results = found if isinstance(found, tuple) else (found,)
        Runner.assert_similar_outputs(outputs, results, rtol or case.rtol, atol or case.atol)


REFUSED = {
    "texts": r"test_(regex_full_match|string_|strnorm|strsplit|equal_string|cast.*STRING|ai_onnx_ml_label_encoder_(string|tensor))|_STRING",
    "sequences and optionals": r"test_(sequence|optional|split_to_sequence|identity_(sequence|opt)|loop(13|16)_seq|if_(seq|opt)|ai_onnx_ml_.*map)",
    "floating-point numbers of 8 bits or less": r"FLOAT8|FLOAT4|_(e4m3|e5m2|e8m0|float4|float8)",
    "integers of less than 8 bits": r"INT4|INT2|_u?int[24](_|$)|quantizelinear_.*int[24]",
    "extents that depend on values": r"test_(unique|compress|nonzero|nonmaxsuppression|loop11)",
    "random numbers": r"test_(bernoulli|training_dropout(_default)?(_mask)?$)",
    "decoding of images": r"test_image_decoder",
    "derivatives": r"test_gradient_of",
    "tests of membership in trees": r"set_membership",
}
"""What is refused, and the names of its cases."""

DIFFERENT = {
    "test_dft_inverse": (0.0, 1e-6),  # rounding errors of the expected result, where the exact one is zero
    "test_dft_inverse_opset19": (0.0, 1e-6),
    "test_attention_4d_causal_fp16_expanded": (4e-3, 0.0),  # float16 between fused operators is kept in float32
}
"""Cases that do not pass by the suite's tolerance, on some CPUs at least, and the (rtol, atol) that they do hold; not counted as passed."""


def reason(name: str) -> str:
    """Why a case is refused; empty where it is not."""
    return next((why for why, pattern in REFUSED.items() if re.search(pattern, name)), "")


def main() -> None:
    """Print the table of docs/importers.md."""
    for kind in KINDS:
        passed, groups = 0, dict.fromkeys(REFUSED, 0)
        for name, case in cases(kind).items():
            try:
                run(case)
                passed += 1
            except tcomp.UnsupportedError:
                groups[reason(name)] += 1
            except AssertionError:
                print("differs:", name)
        print(f"{kind}: {passed} of {len(cases(kind))};", ", ".join(f"{n} {why}" for why, n in groups.items() if n))


if __name__ == "__main__":
    main()
