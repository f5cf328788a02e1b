"""The default schedule of Winograd convolutions (`tcomp.ops.winograd` says what they compute)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from ....analysis.regions import writes
from ....dtype import DType, float32
from ....ir.arith import divisors
from ....ir.expr import Var
from ....ir.primfunc import PrimFunc
from ....ir.query import int_of
from ....target import CpuTarget
from ...library import accumulate_tile, fuse_all, tile_write_back, unroll_and_vectorize
from ...schedule import Schedule
from ..plan import decision, yes_or_no
from ..roles import by_role, has_role, inline_into_output
from .common import Work
from .tiles import Tile, choose_tile, rows_within, tile_cycles

NAME = "winograd"

PATCH, HALF, IMAGE, PRODUCT, ROWS, RESULT = (
    "winograd_patch", "winograd_half", "winograd_image", "winograd_product", "winograd_rows", "winograd_conv2d",
)  # fmt: skip
WIDEST = 2
"""Vectors in a panel of transformed weights, at most: of six convolutions five took 2 to 15 % longer with 4, one 4 % less (one core of a Granite Rapids)."""
TRANSFORMS = {2: (130, 80), 4: (330, 230)}
"""Vector instructions that transform a tile of the image and one of the result, by the tile's size."""


def applies(func: PrimFunc, target: CpuTarget) -> bool:
    return has_role(func, PRODUCT)


def choose_algorithm(
    target: CpuTarget, extents: Sequence[int], weight: tuple[int, ...], dtype: DType
) -> tuple[int, int]:
    """(outputs along each side of a tile, columns of a weight panel) for a 3 x 3 convolution; (0, 0) where the direct way wins.

    Counts vector multiply-adds and the bytes of the weights, which come from beyond L2, and from memory where the last cache cannot
    hold them; the transformed ones are (m + 2)^2 / 9 times as many.

    Args:
        extents: of the result, (n, height, width, channels); weight: (3, 3, in, out).
    """
    n, h, w, o = extents
    itemsize = dtype.itemsize
    c, lanes = weight[2], target.lanes(itemsize)
    if c < lanes or o < lanes or dtype != float32:
        return 0, 0
    work = c * ceil(o / lanes)

    def traffic(points: int) -> float:
        nbytes, costs = points * c * o * itemsize, target.costs
        return nbytes / (costs.shared_bytes if nbytes <= (target.l3_bytes or nbytes) else costs.outer_bytes)

    direct = n * h * w * 9 * work + traffic(9)
    best, chosen = direct / target.costs.winograd_margin, 0
    for m, (before, after) in TRANSFORMS.items():
        tiles, size = n * ceil(h / m) * ceil(w / m), m + 2
        transforms = tiles * (ceil(c / lanes) * before + ceil(o / lanes) * after)
        cycles = tiles * size * size * work + transforms + traffic(size * size)
        if cycles < best:
            best, chosen = cycles, m
    if not chosen:
        return 0, 0
    tiles, columns = n * ceil(h / chosen) * ceil(w / chosen), ceil(o / lanes)
    most = int((target.l2_bytes_per_core // target.costs.winograd_panels - 1) // (c * lanes * itemsize))
    tile = choose_tile(
        [min(tiles, 64), columns * lanes], lanes, target, range(1, max(1, min(WIDEST, columns, most)) + 1),
        rows_within(c * itemsize, target), uneven=target.costs.uneven,
    )  # fmt: skip
    return chosen, tile.vectors * lanes


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel.

    Attributes:
        m: outputs along a side of a tile.
        rows, wide: rows of tiles of all images, and tiles of a row.
        depth, columns: channels of the image and of the result, as the products count them; width: columns of a weight panel.
    """

    m: int
    rows: int
    wide: int
    depth: int
    columns: int
    width: int
    itemsize: int
    work: Work

    @property
    def size(self) -> int:
        """Elements along a side of a transformed tile."""
        return self.m + 2


def problem_of(func: PrimFunc) -> Problem:
    """The facts of a Winograd convolution."""
    product = func.blocks[by_role(func, PRODUCT)]
    (size, _, _, columns), depth = [int_of(it.extent) for it in product.iters[:4]], int_of(product.iters[4].extent)
    m = size - 2
    n, y, x = (int_of(it.extent) for it in func.blocks[by_role(func, RESULT)].iters[:3])
    return Problem(
        m, n * ceil(y / m), ceil(x / m), depth, columns,
        width=next(int_of(a.shape[-1]) for a in func.inputs if len(a.shape) == 5),
        itemsize=writes(product)[0].dtype.itemsize, work=Work.of(func),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class WinogradPlan:
    """How a Winograd convolution is staged and tiled."""

    m: int = decision("outputs along a side of a tile; the weight's transformation fixed it", lambda p, t: (p.m,))
    staged: bool = decision("each stage takes all tiles, in parallel on its own", yes_or_no)
    together: int = decision(
        "rows of tiles that go through all stages together",
        lambda p, t: divisors(p.rows),
    )
    rows: int = decision("tiles in a register tile of the products", lambda p, t: range(1, t.num_registers - 2))
    vectors: int = decision(
        "vectors in it; the weight's panels fixed them", lambda p, t: (p.width // t.lanes(p.itemsize),)
    )
    lanes: int = decision("elements of a vector", lambda p, t: (t.lanes(p.itemsize),))
    parallel: bool = decision("run rows of tiles on all cores", yes_or_no)


def plan(p: Problem, target: CpuTarget) -> WinogradPlan:
    """As many rows of tiles go together as half of L2 holds. Where there are too few for all cores, or large weights would pass too
    often, each stage takes all tiles."""
    lanes, area = target.lanes(p.itemsize), p.size * p.size
    parallel = p.work.is_worth_threads(target)
    cores = target.num_cores if parallel else 1
    half = target.l2_bytes_per_core // 2
    room = half // (area * (p.depth + p.columns) * p.itemsize)
    most = max(1, min(room // p.wide, p.rows // (2 * cores)))
    together = divisors(p.rows, most)[-1]
    weights = area * p.depth * p.columns
    between = 2 * area * p.rows * p.wide * (p.depth + p.columns)  # written and read again
    again = (p.rows // together - 1) * weights if weights * p.itemsize > half else 0
    staged = (parallel and p.rows < 2 * cores) or again > target.costs.stage * between
    count = (p.rows if staged else together) * p.wide
    most = rows_within(p.depth * p.itemsize, target)
    tile = choose_tile([count, p.columns], lanes, target, (p.width // lanes,), most, uneven=target.costs.uneven)
    return WinogradPlan(p.m, staged, 1 if staged else together, tile.rows[-1], p.width // lanes, lanes, parallel)


def cost(p: Problem, plan: WinogradPlan, target: CpuTarget) -> float:
    """How long the tiles of a plan's products take, to compare plans by; infinite where they do not fit the registers."""
    count = p.rows * p.wide if plan.staged else plan.together * p.wide
    tile = Tile((min(plan.rows, count),), plan.vectors, plan.lanes)
    return tile_cycles([count, p.columns], tile, target, uneven=target.costs.uneven) * (p.rows * p.wide / count)


def apply(sch: Schedule, plan: WinogradPlan) -> None:
    """Some rows of tiles at a time: the patches of the image are transformed, multiplied, and transformed back.

    The products of these tiles are (m + 2)^2 matrix products with register tiles, chosen as for any product.
    """
    in_stages = plan.staged and plan.parallel
    tile_rows, channels, _ = _write_back(sch, plan.m, plan.lanes)
    site, _ = sch.split(tile_rows, [None, plan.together])
    sch.compute_at(by_role(sch, ROWS), channels)
    unroll_and_vectorize(sch, sch.get_loops(by_role(sch, ROWS))[-3:])
    products, around = sch.cache_write(by_role(sch, PRODUCT), 0, "local").name, 0
    if not plan.staged:
        _compute_at(sch, products, site)
        around = 1
    _products(sch, products, around, plan.rows, plan.vectors, plan.lanes, in_stages)
    if not plan.staged:
        _compute_at(sch, by_role(sch, IMAGE), site)
    _transform(sch, around, plan.lanes, in_stages)
    if plan.parallel:
        sch.parallel(site)


def _compute_at(sch: Schedule, block: str, site: Var) -> None:
    """Compute the tiles that are needed there; a single one has a loop, too."""
    sch.compute_at(block, site)
    inner = sch.get_loops(block)[1:]
    if len(inner) == 3:
        sch.add_unit_loop(inner[2])


def _write_back(sch: Schedule, m: int, lanes: int) -> tuple[Var, Var, Var]:
    """What follows joins the last stage. Its loops over rows of tiles, vectors of channels, and tiles of a row."""
    last = inline_into_output(sch, by_role(sch, RESULT))
    n, y, x, o = sch.get_loops(last)
    y0, y1 = sch.split(y, [None, m])
    x0, x1 = sch.split(x, [None, m])
    group, lane = sch.split(o, [None, lanes])
    sch.reorder(n, y0, x0, group, y1, x1, lane)
    rows = sch.fuse(n, y0)
    unroll_and_vectorize(sch, [y1, x1, lane])
    return rows, group, x0


def _products(sch: Schedule, write: str, around: int, rows: int, vectors: int, lanes: int, parallel: bool) -> None:
    """One matrix product for each point of a transformed tile; a panel of the weight stays in cache for all tiles."""
    outer, inner = tile_write_back(sch, write, [rows], vectors, lanes, around)
    a, b, p, panel = outer
    sch.reorder(panel, p)
    sch.compute_at(by_role(sch, PRODUCT), p)
    accumulate_tile(sch, by_role(sch, PRODUCT), around + len(outer), vectors, lanes)
    unroll_and_vectorize(sch, inner)
    if parallel:
        loop = fuse_all(sch, [a, b, panel])
        assert loop is not None
        sch.parallel(loop)


def _transform(sch: Schedule, around: int, lanes: int, parallel: bool) -> None:
    """Patches of the image, a vector of channels at a time, in registers and L1."""
    a, b, p, c = sch.get_loops(by_role(sch, IMAGE))[around:]
    group, lane = sch.split(c, [None, lanes])
    sch.reorder(p, group, a, b, lane)
    for name in (by_role(sch, HALF), by_role(sch, PATCH)):
        sch.compute_at(name, group)
    for name in (by_role(sch, IMAGE), by_role(sch, HALF)):
        unroll_and_vectorize(sch, sch.get_loops(name)[around + 2 :])
    sch.vectorize(sch.get_loops(by_role(sch, PATCH))[-1])
    if parallel:
        sch.parallel(p)
