"""Mutated model files: each ends in a result or in a user's error; no crash, no hang, no file written, memory bounded."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler import compile
from ..config import config
from ..errors import InternalError, TcompError
from ..importers import ModelSource, source_of

LIMIT_SECONDS, LIMIT_BYTES = 20, 4 << 30
RIGHT = ("result", "refused")
"""How a case should end. Others: "defect" (any other exception), "crash", "hang", "wrote" (a file)."""


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
            os.environ.update(TCOMP_CACHE="0", TCOMP_WORKERS="0")
            config.cache_clear()
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


def _case(payloads: Sequence[bytes], seed: int, n: int) -> tuple[int, bytes]:
    """Which file a case damages, and what comes out."""
    rng = random.Random(f"{seed}-{n}")
    which = rng.randrange(len(payloads))
    return which, mutated(payloads[which], rng)


def _judge(payloads: Sequence[bytes], seed: int, n: int) -> Outcome:
    return run_case(_case(payloads, seed, n)[1], n)


def outcomes(
    files: Sequence[Path], cases: int, seed: int = 0, jobs: int = 1, keep: Path | None = None
) -> Iterator[tuple[str, Outcome]]:
    """(name of the case and its file, how it ended) of mutated files; those that end wrongly are kept in a folder."""
    payloads = [f.read_bytes() for f in files]
    judge = partial(_judge, payloads, seed)
    with nullcontext() if jobs <= 1 else ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        ended = map(judge, range(cases)) if pool is None else pool.map(judge, range(cases), chunksize=10)
        for n, outcome in enumerate(ended):
            which, payload = _case(payloads, seed, n)
            if outcome.kind not in RIGHT and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{n}.onnx").write_bytes(payload)
            yield f"{seed}-{n} of {files[which].name}", outcome
