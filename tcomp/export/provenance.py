"""What an artifact tells of how it was made, so that it can be made again and compared."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TcompError
from ..lazy import lazy_module
from ..runtime.artifact import ABI
from ..runtime.manifest import UNSEALED
from ..version import __version__
from .artifact import Artifact, Variant, golden_arrays, symbol_of

llvm = lazy_module("llvmlite.binding")


def digest(data: bytes) -> str:
    """The first 128 bits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def source_of_file(model: Any) -> Mapping[str, str]:
    """What is told of a model: of a file, its name and the SHA-256 of its bytes.

    Raises:
        TcompError: the file cannot be read.
    """
    if not isinstance(model, (str, os.PathLike)):
        return {"made of": type(model).__name__}
    try:
        with open(model, "rb") as file:
            return {"file": Path(model).name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise TcompError(f"cannot read the model {model}", why=error.strerror or str(error)) from error


def manifest(artifact: Artifact, compiler: str, beside: Mapping[Path, bytes]) -> Mapping[str, Any]:
    """All of it: the same for the same artifact and the same C compiler, as it calls itself.

    Args:
        beside: the files that are written with the one that holds the manifest.
    """
    return {
        "tcomp": __version__, "abi": ABI, "name": artifact.name, "compiler": compiler, "triple": artifact.target.triple, "weights": artifact.weights_name,
        **artifact.provenance, "variants": [_variant(v) for v in artifact.variants],
        "example": digest(b"".join(a.tobytes() for a in golden_arrays(artifact))),
        "state": {k.name: array_digest(k.array) for k in artifact.state.kept},
        "files": {file.name: hashlib.sha256(data).hexdigest() for file, data in beside.items()},
    }  # fmt: skip


def compressed(told: Mapping[str, Any]) -> bytes:
    """A manifest as it stands in binary files, behind room for a seal."""
    return UNSEALED + zlib.compress(json.dumps(told, sort_keys=True).encode(), 9)


def _variant(v: Variant) -> dict[str, Any]:
    """Of the code for one CPU: what runs, its constants, and of each kernel the schedule and the code."""
    codes = {symbol_of(code): code for code in v.objects}
    kernels = {}
    for launch in v.program.kernels:
        made, code = v.kernels[launch.name].made, codes.get(launch.symbol, b"")
        kernels[launch.name] = {
            "rule": made.rule,
            "schedule": made.schedule,
            "code": digest(code) if code else "as for an earlier one",
            "bytes": _loaded_bytes(code),
        }
    return {
        "target": str(v.target), "options": v.target.text, "program": v.program.to_json(), "kernels": kernels,
        "constants": [array_digest(c) for c in v.program.constants],
    }  # fmt: skip


def _loaded_bytes(code: bytes) -> int:
    """What of an object file is loaded: instructions and their constants."""
    if not code:
        return 0
    sections = llvm.ObjectFileRef.from_data(code).sections()
    return sum(s.size() for s in sections if (s.name() or b"").startswith((b".text", b".rodata", b"CODE", b"DATA")))


def array_digest(a: np.ndarray) -> str:
    return digest(f"{a.dtype} {a.shape} ".encode() + a.tobytes())


def differences(had: Mapping[str, Any], got: Mapping[str, Any]) -> Sequence[str]:
    """What two manifests tell differently, a line each."""
    found = [f"{key}: {had.get(key)!r}, now {got.get(key)!r}" for key in ("tcomp", "abi", "name", "triple", "weights", "compiler", "options", "source") if had.get(key) != got.get(key)]  # fmt: skip
    if len(had["variants"]) != len(got["variants"]):
        return [*found, f"code for {len(had['variants'])} kinds of CPUs, now for {len(got['variants'])}"]
    for a, b in zip(had["variants"], got["variants"]):
        found += [f"{a['target']}: {line}" for line in _variant_differences(a, b)]
    if had["state"] != got["state"]:
        changed = sorted(
            k for k in had["state"].keys() | got["state"].keys() if had["state"].get(k) != got["state"].get(k)
        )
        found.append(f"what it keeps at first: {', '.join(changed)}")
    if had["example"] != got["example"]:
        found.append("the inputs or results of the self-test")
    beside = had["files"].keys() | got["files"].keys()
    found += [f"the file {n} beside it" for n in sorted(beside) if had["files"].get(n) != got["files"].get(n)]
    return found


def _variant_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    found = []
    if a["options"] != b["options"]:
        found.append(f"compiled for {a['options']}, now for {b['options']}")
    shapes = [f"{c['dtype']}{c['shape']}" for c in json.loads(a["program"])["constants"]]
    if len(a["constants"]) != len(b["constants"]):
        found.append(f"{len(a['constants'])} constants, now {len(b['constants'])}")
    else:
        pairs = zip(a["constants"], b["constants"], shapes)
        changed = [f"{i} ({shape})" for i, (x, y, shape) in enumerate(pairs) if x != y]
        found += [f"constants {', '.join(changed)}"] if changed else []
    if a["program"] != b["program"]:
        found.append("the steps, shapes or sizes of the program")
    for name in sorted(a["kernels"].keys() | b["kernels"].keys()):
        x, y = a["kernels"].get(name), b["kernels"].get(name)
        if x is None or y is None:
            found.append(f"kernel {name} is there in one alone")
        elif x["schedule"] != y["schedule"]:
            found.append(f"the schedule of kernel {name}")
        elif x["code"] != y["code"]:
            found.append(f"the code of kernel {name}, of the same schedule")
    return found
