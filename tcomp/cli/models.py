"""What the verbs that take a model have in common: its options, its inputs, compiling with a progress bar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..compiler import compile
from ..dtype import DType
from ..errors import TcompError
from ..importers import Bound, ModelSource, NeedsValues, fixed_shapes, source_of
from ..ir.graph import Value
from ..ir.module import IRModule
from ..passes.indices import index_ranges
from ..progress import terminal_bar
from ..runtime.executable import Executable

ModelFile = Annotated[Path, typer.Argument(help="an ONNX file")]
Dims = Annotated[str, typer.Option(help="open extents: batch=1,sequence=128")]
Shapes = Annotated[str, typer.Option(help="whole shapes: x=1x3x224x224,mask=1x128")]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="a .npy file, name=file.npy, or an .npz file; random numbers by default"),
]
Target = Annotated[str, typer.Option(help='"cpu", or "llvm -mcpu=... -num-cores=..."')]
Threads = Annotated[int, typer.Option(help="threads of parallel loops; all cores by default")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Seed = Annotated[int, typer.Option(help="of random inputs")]


@dataclass
class Loaded:
    """A model for the shapes at hand.

    Attributes:
        inputs: by name; values: of those that decide extents, which are part of the module.
    """

    source: ModelSource
    module: IRModule
    inputs: dict[str, np.ndarray]
    values: dict[str, np.ndarray]

    @property
    def arguments(self) -> list[np.ndarray]:
        """What the compiled module is called with."""
        return [self.inputs[p.name] for p in self.module.main.params]


def pairs(text: str, what: str) -> dict[str, str]:
    """name=value,... as a dict.

    Raises:
        TcompError: it is none.
    """
    found = {}
    for part in filter(None, text.split(",")):
        name, sign, value = part.rpartition("=")
        if not sign or not name:
            raise TcompError(f"cannot read {part!r}", hint=f"{what}, such as {_EXAMPLE[what]}")
        found[name] = value
    return found


_EXAMPLE = {"--threads": "1,2", "--dims": "batch=1,sequence=128", "--shapes": "x=1x3x224x224"}


def number(text: str, what: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise TcompError(f"{text!r} is no number that fits", hint=f"{what}, such as {_EXAMPLE[what]}")
    return int(text)


def read_inputs(files: Sequence[str], source: ModelSource) -> dict[str, np.ndarray]:
    """Arrays from files, by the names of inputs: in their order where a file names none.

    Raises:
        TcompError: a file cannot be read, or fits no input.
    """
    found: dict[str, np.ndarray] = {}
    free = [i.name for i in source.inputs]
    for text in files:
        name, sign, file = text.rpartition("=")
        path = Path(file if sign else text)
        try:
            loaded = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TcompError(f"cannot read {path}", why=str(error), hint="a .npy or .npz file") from error
        if isinstance(loaded, np.ndarray):
            if not sign and not free:
                raise TcompError(
                    f"{path} is one input too many", why=f"the model takes {', '.join(map(str, source.inputs))}"
                )
            loaded = {name if sign else free[0]: loaded}
        for key, array in loaded.items():
            if key not in free:
                raise TcompError(f"no input {key!r}", why=f"the model takes {', '.join(map(str, source.inputs))}")
            free.remove(key)
            found[key] = array
    return found


def random_input(name: str, shape: Sequence[int], d: DType, rng: np.random.Generator) -> np.ndarray:
    """Normal numbers; small integers; masks that show everything."""
    if "mask" in name.lower():
        return np.ones(shape, d.numpy)
    if d.is_bool:
        return rng.random(shape) < 0.5
    if d.is_int:
        return rng.integers(0, 2, shape).astype(d.numpy)
    return np.asarray(rng.standard_normal(shape)).astype(d.numpy)


def _places(module: IRModule, inputs: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Those of random inputs that are places in tables, such as ids of words, drawn again from all of their table."""
    highest: dict[str, int] = {}
    for r in index_ranges(module):
        if isinstance(r.source, Value) and r.source.name in inputs:
            highest[r.source.name] = min(r.high, highest.get(r.source.name, r.high))
    return {
        n: rng.integers(0, high + 1, inputs[n].shape).astype(inputs[n].dtype) for n, high in sorted(highest.items())
    }


def closed_shapes(
    source: ModelSource, dims: str, shapes: str, given: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's inputs. An open extent along a first axis is 1.

    Raises:
        TcompError: what is open, or does not fit.
    """
    sizes = {k: number(v, "--dims") for k, v in pairs(dims, "--dims").items()}
    whole: dict[str, Any] = {
        k: [number(e, "--shapes") for e in v.split("x")] for k, v in pairs(shapes, "--shapes").items()
    }
    found = fixed_shapes(source, sizes, {**whole, **{k: a.shape for k, a in given.items()}})
    closed: dict[str, tuple[int, ...]] = {}
    for i in source.inputs:
        shape = found[i.name]
        extents = [] if shape is None else [1 if n == 0 and not isinstance(e, int) else e for n, e in enumerate(shape)]
        if shape is not None and all(isinstance(e, int) for e in extents):
            closed[i.name] = tuple(e for e in extents if isinstance(e, int))
    still = [str(i) for i in source.inputs if i.name not in closed]
    if still:
        names = sorted({e for i in source.inputs for e in i.shape or () if isinstance(e, str)})
        hint = f"--dims {','.join(f'{n}=...' for n in names)}" if names else "--shapes name=1x3x224x224"
        raise TcompError(f"extents of {', '.join(still)} are open", hint=hint)
    return closed


def load_model(model: Path, dims: str, shapes: str, files: Sequence[str], seed: int = 0) -> Loaded:
    """A model and inputs for it: those of the files, random ones for the others. An open extent along a first axis is 1.

    Raises:
        TcompError: what is open, or does not fit.
    """
    source = source_of(model)
    assert source is not None
    given = read_inputs(files, source)
    closed, rng = closed_shapes(source, dims, shapes, given), np.random.default_rng(seed)
    inputs = {
        i.name: np.asarray(given[i.name], i.dtype.numpy) if i.name in given else random_input(i.name, closed[i.name], i.dtype, rng)
        for i in source.inputs
    }  # fmt: skip
    values: dict[str, np.ndarray] = {}
    while True:
        try:
            shapes_of: dict[str, tuple[int | Bound, ...]] = {k: a.shape for k, a in inputs.items()}
            module = source.build(shapes_of, values)
            drawn = inputs.keys() - given.keys() - values.keys()
            return Loaded(source, module, {**inputs, **_places(module, {n: inputs[n] for n in drawn}, rng)}, values)
        except NeedsValues as error:
            if set(error.names) <= values.keys():
                raise
            values.update({n: inputs[n] for n in error.names})


def compiled(loaded: Loaded, target: str, threads: int, quiet: bool = False) -> Executable:
    """The executable, with a progress bar on a terminal."""
    with nullcontext() if quiet else terminal_bar(f"compiling {loaded.source.name}") as note:
        exe: Executable = compile(loaded.module, target=target, num_threads=threads or None, progress=note)
    return exe


def statistics_of(x: np.ndarray) -> Mapping[str, Any]:
    """A few numbers about a result."""
    if not x.size or x.dtype == np.bool_:
        return {}
    wide = x.astype(np.float64)
    return {
        "min": float(wide.min()),
        "mean": float(wide.mean()),
        "max": float(wide.max()),
        "nan": int(np.isnan(wide).sum()),
    }
