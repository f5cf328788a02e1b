"""The CUDA C generator: checks and text of kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import prod
from pathlib import Path

from ...analysis.regions import loops_around
from ...errors import TargetError, UnsupportedError
from ...ir.arith import simplify
from ...ir.expr import Buffer, Expr, Load, const
from ...ir.matrix_intrin import FEATURE
from ...ir.names import plain_name, printable_name
from ...ir.node import walk
from ...ir.primfunc import PrimFunc
from ...ir.query import as_int
from ...ir.stmt import Allocate, walk_statements
from ...ir.tensor_intrin import tensor_intrin
from ...runtime.device.grid import Grid, GridKernel, Parameter
from ...target.cuda import BLOCK_THREADS, GRID_YZ, STATIC_SHARED, WARP, CudaTarget
from ..build import LoweringStep
from ..c.source import header
from ..c.types import element_type
from ..extents import code_of
from ..lowering.gpu import STEPS
from .kernel import CudaPrinter
from .launches import GridLaunch, exchanges_values, is_of_warp, launches_of, with_body
from .vectors import CudaVectors

EXCHANGES = 1024
"""Bytes of shared memory that exchanges of threads may declare besides."""
DECLARED = STATIC_SHARED - EXCHANGES
POOL_ALIGN = 128
"""Bytes of which the places of shared buffers are multiples."""


@dataclass(frozen=True, slots=True)
class CudaGenerator:
    """A `Generator` of CUDA C. Its texts are `GridKernel`s as JSON: the source, and how it is launched."""

    target: CudaTarget

    @property
    def steps(self) -> tuple[LoweringStep, ...]:
        return tuple(STEPS)

    def check(self, scheduled: PrimFunc, lowered: PrimFunc) -> None:
        """Refuse launches that the target cannot run.

        Raises:
            UnsupportedError: a block has too many threads, or takes too much shared memory.
        """
        self._check_matrices(scheduled)
        limit = self.target.block_shared
        for launch in launches_of(lowered).launches:
            threads = prod(launch.block)
            if threads > BLOCK_THREADS:
                raise UnsupportedError(
                    f"cannot launch kernel {scheduled.name}",
                    why=f"{threads} threads in a block, at most {BLOCK_THREADS}",
                )
            if launch.block[0] != WARP and any(is_of_warp(s) for s in walk_statements(launch.body)):
                raise UnsupportedError(
                    f"cannot launch kernel {scheduled.name}",
                    why=f"its blocks have {launch.block[0]} threads along threadIdx.x; where warps hold tiles, these are the {WARP} of a warp",
                    hint="bind a loop of 32 to threadIdx.x, and warps to threadIdx.y and z",
                )
            if any(as_int(e, 1) > GRID_YZ for e in launch.grid[1:]):
                raise UnsupportedError(
                    f"cannot launch kernel {scheduled.name}",
                    why=f"a grid has at most {GRID_YZ} blocks along y and z, not {' x '.join(str(as_int(e, 0)) for e in launch.grid)}",
                    hint="fuse the loops, and bind them to blockIdx.x",
                )
            taken = {b.name: -(-n // POOL_ALIGN) * POOL_ALIGN for b, n in shared_buffers(launch).items()}
            exchanges = {s.value.op for s in walk_statements(launch.body) if exchanges_values(s)}
            if threads > WARP and exchanges:  # a value of each warp, for each kind of exchange
                taken["exchanges"] = len(exchanges) * -(-threads // WARP) * 8
            if sum(taken.values()) > limit:
                told = ", ".join(f"{name} {nbytes}" for name, nbytes in taken.items())
                raise UnsupportedError(
                    f"cannot launch kernel {scheduled.name}: its blocks take {sum(taken.values())} bytes of shared memory",
                    why=f"a block has {limit}; {told}",
                    hint="smaller tiles",
                )

    def _check_matrices(self, scheduled: PrimFunc) -> None:
        """Refuse matrix instructions that the target lacks, and those that not all lanes of a warp come to."""
        for block in scheduled.blocks.values():
            intrin = tensor_intrin(str(block.annotations.get("tensor_intrin", "")))
            if intrin is None or not intrin.feature:
                continue
            kinds = {x.dtype.name for x in walk(intrin.description) if isinstance(x, Load)} - {"float32"}
            if intrin.feature != FEATURE or not kinds <= set(self.target.tensor_cores):
                raise TargetError(
                    f"cannot compile block {block.name} for {self.target}",
                    why=f"it is tensorized with {intrin.name}; the target has {', '.join(self.target.tensor_cores) or 'no such instructions'}",
                    hint="leave tensorize out for this target",
                )
            lanes = next((s for s in loops_around(scheduled, block) if s.thread == "threadIdx.x"), None)
            if lanes is not None:
                raise UnsupportedError(
                    f"cannot compile block {block.name}",
                    why=f"all lanes of a warp do it together, and loop {lanes.var.name} around it is bound to threadIdx.x",
                    hint="bind warps to threadIdx.y and z",
                )

    def check_schedule(self, scheduled: PrimFunc) -> None:
        """Refuse a schedule whose launches the target cannot run; raises as `check`."""
        self.check(scheduled, reduce(lambda func, step: step(func), self.steps, scheduled))

    def text(self, lowered: PrimFunc, symbol: str) -> str:
        """A lowered kernel as a `GridKernel`."""
        found, vectors = launches_of(lowered), CudaVectors()
        texts, grids = [], []
        for i, launch in enumerate(found.launches):
            name = f"{symbol}_{plain_name(lowered.name).replace('.', '_')}" + (f"_{i}" if i else "")
            comment = f"{lowered.name}: blocks of {' x '.join(map(str, launch.block))} threads"
            pool, nbytes = _pool(launch)
            printer = CudaPrinter(with_body(lowered, launch), name, vectors, launch.block, pool)
            texts.append(printer.function_text(printable_name(comment)))
            grids.append(self._grid(lowered, launch, name, found.scratch, nbytes))
        sizes = [_nbytes(b) for b in (*lowered.buffers, *found.scratch)]
        codes = tuple(code_of(e, lowered.dims) for e in sizes)
        count = len(lowered.buffers)
        kernel = GridKernel(symbol, codes[:count], tuple(grids), codes[count:], vectors.functions, "\n".join(texts))
        return kernel.to_json()

    def _grid(self, func: PrimFunc, launch: GridLaunch, name: str, scratch: tuple[Buffer, ...], pool: int) -> Grid:
        def parameter(b: Buffer) -> Parameter:
            kind, among = ("scratch", scratch) if b in scratch else ("given", func.buffers)
            return Parameter(kind, among.index(b), f"{element_type(b.dtype)} *")

        count = len(func.buffers)
        extents = (Parameter("given", count + func.dims.index(v), "int64_t") for v in launch.dims)
        blocks = tuple(code_of(simplify(e), func.dims) for e in launch.grid)
        return Grid(name, blocks, launch.block, (*map(parameter, launch.buffers), *extents), pool)

    def code(self, text: str) -> bytes:
        """The same: it is compiled with the other kernels of its program."""
        return text.encode()

    def assembly(self, text: str) -> str:
        return source_of(text)


def shared_buffers(launch: GridLaunch) -> dict[Buffer, int]:
    """The buffers that the threads of a block share, and their bytes."""
    return {
        s.buffer: prod(as_int(e, 0) for e in s.buffer.shape) * s.buffer.dtype.itemsize
        for s in walk_statements(launch.body)
        if isinstance(s, Allocate) and s.buffer.scope == "shared"
    }


def _pool(launch: GridLaunch) -> tuple[dict[Buffer, int], int]:
    """Where each shared buffer lies in memory that a block asks for, and its bytes; nothing where code may declare them all."""
    sizes = shared_buffers(launch)
    if sum(sizes.values()) <= DECLARED:
        return {}, 0
    places, end = {}, 0
    for b, nbytes in sizes.items():
        places[b], end = end, end + -(-nbytes // POOL_ALIGN) * POOL_ALIGN
    return places, end


def source_of(text: str) -> str:
    """The CUDA C in a kernel's text."""
    return GridKernel.from_json(text).source


def prelude() -> str:
    """What kernels are written in."""
    return (Path(__file__).parent / "prelude.cuh").read_text(encoding="utf-8") + header("arithmetic.h")


def _nbytes(b: Buffer) -> Expr:
    size: Expr = const(b.dtype.itemsize)
    for e in b.shape:
        size = size * e
    return simplify(size)
