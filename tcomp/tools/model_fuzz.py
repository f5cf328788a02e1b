"""Mutated model files: each ends in a result or in a user's error; no crash, no hang, no file written, memory bounded."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler import compile
from ..errors import InternalError, TcompError
from ..importers import ModelSource, source_of

LIMIT_SECONDS, LIMIT_BYTES = 20, 4 << 30
OUTCOMES = ("result", "refused", "defect", "crash", "hang", "wrote")
"""How a case may end; the first two are right."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one file ended, and what was said."""

    kind: str
    text: str


def mutated(payload: bytes, rng: random.Random) -> bytes:
    """A file with some damage: of its bytes, or of the model that they are."""
    if rng.random() < 0.4:
        return _damaged(bytearray(payload), rng)
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(payload)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_EDITS)(model.graph, rng)
    return bytes(model.SerializeToString())


def _damaged(data: bytearray, rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data) + 1)])
    for _ in range(rng.choice((1, 2, 8, 64))):
        at = rng.randrange(len(data))
        if kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at] = rng.randrange(256)
        elif kind == 3:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        else:
            other = rng.randrange(len(data))
            data[at : at + 16] = data[other : other + 16]
    return bytes(data)


_ODD = (0, 1, -1, 2, 3, 7, -5, 1000, 1 << 20, 1 << 31, (1 << 40) + 1, -(1 << 63), (1 << 63) - 1)


def _node(graph: Any, rng: random.Random) -> Any:
    return rng.choice(graph.node) if graph.node else None


def _rewire(graph: Any, rng: random.Random) -> None:
    """An input of a node becomes another name: earlier, later, its own, or none."""
    n = _node(graph, rng)
    if n is not None and n.input:
        names = [o for m in graph.node for o in m.output] + [i.name for i in graph.input] + ["", "nobody"]
        n.input[rng.randrange(len(n.input))] = rng.choice(names)


def _reorder(graph: Any, rng: random.Random) -> None:
    if len(graph.node) > 1:
        a, b = rng.sample(range(len(graph.node)), 2)
        copy = type(graph.node[a])()
        copy.CopyFrom(graph.node[a])
        graph.node[a].CopyFrom(graph.node[b])
        graph.node[b].CopyFrom(copy)


def _drop(graph: Any, rng: random.Random) -> None:
    part = rng.choice((graph.node, graph.initializer, graph.input, graph.output))
    if part:
        del part[rng.randrange(len(part))]


def _repeat(graph: Any, rng: random.Random) -> None:
    n = _node(graph, rng)
    if n is not None:
        graph.node.add().CopyFrom(n)


def _attribute(graph: Any, rng: random.Random) -> None:
    n = _node(graph, rng)
    if n is None or not n.attribute:
        return
    a = rng.choice(n.attribute)
    if a.ints:
        a.ints[rng.randrange(len(a.ints))] = rng.choice(_ODD)
        if rng.random() < 0.3:
            a.ints.append(rng.choice(_ODD))
    elif a.HasField("i"):
        a.i = rng.choice(_ODD)
    elif a.HasField("f"):
        a.f = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
    else:
        a.name = "other"


def _operator(graph: Any, rng: random.Random) -> None:
    n, other = _node(graph, rng), _node(graph, rng)
    if n is not None:
        n.op_type = rng.choice(
            [other.op_type, "Loop", "If", "Resize", "ConstantOfShape", "Gizmo", "Reshape", "Tile", "LSTM", "Range"]
        )


def _extent(graph: Any, rng: random.Random) -> None:
    part = rng.choice((graph.input, graph.output))
    if part:
        dims = rng.choice(part).type.tensor_type.shape.dim
        if dims:
            rng.choice(dims).dim_value = rng.choice(_ODD)


def _weight(graph: Any, rng: random.Random) -> None:
    if not graph.initializer:
        return
    t = rng.choice(graph.initializer)
    kind = rng.randrange(4)
    if kind == 0 and t.dims:
        t.dims[rng.randrange(len(t.dims))] = rng.choice(_ODD)
    elif kind == 1:
        t.data_type = rng.randrange(30)
    elif kind == 2:
        t.raw_data = t.raw_data[: len(t.raw_data) // 2]
    else:
        t.data_location = 1
        e = t.external_data.add()
        e.key, e.value = "location", rng.choice(("/dev/zero", "../x", "/etc/passwd", "nothing"))


_EDITS: tuple[Callable[[Any, random.Random], None], ...] = (
    _rewire, _reorder, _drop, _repeat, _attribute, _attribute, _operator, _extent, _weight,
)  # fmt: skip


def inputs_of(source: ModelSource, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Small random inputs; open extents are 1 to 3."""
    made = {}
    for i in source.inputs:
        shape = [e if isinstance(e, int) else int(rng.integers(1, 4)) for e in i.shape or ()]
        if np.prod([float(e) for e in shape]) > 1 << 24:
            raise TcompError(f"input {i} is too large to try")
        made[i.name] = np.asarray(rng.standard_normal(shape) * 3).astype(i.dtype.numpy)
    return made


def _try(file: Path, seed: int) -> None:
    """In the child: compile and run; the exit status tells how it ended."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    status, said = 0, ""
    try:
        source = source_of(file)
        assert source is not None
        compile(file, num_threads=1)(**inputs_of(source, np.random.default_rng(seed)))
    except InternalError as error:
        status, said = 3, str(error)
    except TcompError as error:
        status, said = 2, str(error)
    except BaseException as error:
        status, said = 3, f"{type(error).__name__}: {error}"
    os.write(1, said.encode(errors="replace")[:4000])
    os._exit(status)


def run_case(payload: bytes, seed: int) -> Outcome:
    """Compile and run a file in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(payload)
        there, here = os.pipe()
        child = os.fork()
        if not child:
            os.close(there)
            os.chdir(folder)
            os.dup2(here, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _try(file, seed)
        os.close(here)
        status = _wait(child)
        said = os.read(there, 4000).decode(errors="replace")
        os.close(there)
        if [p.name for p in Path(folder).iterdir()] != ["model.onnx"] or file.read_bytes() != payload:
            return Outcome("wrote", said)
    if status is None:
        return Outcome("hang", said)
    if os.WIFSIGNALED(status):
        return Outcome("crash", f"signal {os.WTERMSIG(status)}")
    return Outcome({0: "result", 2: "refused"}.get(os.WEXITSTATUS(status), "defect"), said)


def _wait(child: int) -> int | None:
    """The status of a child; None where it was ended because it took too long."""
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def fuzz(files: Sequence[Path], cases: int, seed: int, keep: Path | None = None) -> Counter[str]:
    """Try mutated files; those that end wrongly are printed, and kept in a folder.

    Returns:
        How often each outcome was seen.
    """
    os.environ["TCOMP_CACHE"] = "0"
    os.environ["TCOMP_WORKERS"] = "0"
    payloads = [f.read_bytes() for f in files]
    found: Counter[str] = Counter()
    for n in range(cases):
        rng = random.Random(f"{seed}-{n}")
        which = rng.randrange(len(payloads))
        payload = mutated(payloads[which], rng)
        outcome = run_case(payload, n)
        found[outcome.kind] += 1
        if outcome.kind not in OUTCOMES[:2]:
            print(
                f"case {seed}-{n} of {files[which].name}: {outcome.kind}: {outcome.text[:600]}",
                file=sys.stderr,
                flush=True,
            )
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{n}.onnx").write_bytes(payload)
    return found
