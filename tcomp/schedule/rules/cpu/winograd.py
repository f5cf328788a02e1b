"""The default schedule of Winograd convolutions (`tcomp.ops.winograd` says what they compute)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ....analysis.regions import writes
from ....dtype import DType, float32
from ....ir.expr import Var
from ....ir.primfunc import PrimFunc
from ....target import Target
from ...library import accumulate_tile, fuse_all, tile_write_back, unroll_and_vectorize
from ...schedule import Schedule
from .common import inline_into_output, is_worth_threads
from .tiles import choose_tile, rows_within

NAME = "winograd"

PATCH, HALF, IMAGE, PRODUCT, ROWS, RESULT = (
    "winograd_patch", "winograd_half", "winograd_image", "winograd_product", "winograd_rows", "winograd_conv2d",
)  # fmt: skip
TRANSFORMS = {2: (130, 80), 4: (330, 230)}
"""Vector instructions that transform a tile of the image and one of the result, by the tile's size."""
BYTES_PER_CYCLE = 6.0
"""What one core gets from the last cache while it multiplies."""
STAGING = 8
"""How much dearer it is to write and read an element between stages than to read one of a weight once more."""
PANELS = 8
"""Panels of the weights that the second cache must hold: measured, larger ones are slower by half where the weights come from
memory, though the cache could keep them."""
ADVANTAGE = 1.1
"""How much faster the prediction must be, since rounding errors are larger."""


def applies(func: PrimFunc, target: Target) -> bool:
    return PRODUCT in func.blocks


def tile_for(target: Target, extents: Sequence[int], weight: tuple[int, ...], dtype: DType) -> tuple[int, int]:
    """(outputs along each side of a tile, columns of a weight panel) for a 3 x 3 convolution; (0, 0) where the direct way wins.

    Counts vector multiply-adds and the bytes of the weights, which come from beyond the second cache; the transformed ones are
    (m + 2)^2 / 9 times as many.

    Args:
        extents: of the result, (n, height, width, channels); weight: (3, 3, in, out).
    """
    n, h, w, o = extents
    itemsize = dtype.itemsize
    c, lanes = weight[2], target.lanes(itemsize)
    if c < lanes or o < lanes or dtype != float32:
        return 0, 0
    work = c * ceil(o / lanes)
    traffic = c * o * itemsize / BYTES_PER_CYCLE
    direct = n * h * w * 9 * work + 9 * traffic
    best, chosen = direct / ADVANTAGE, 0
    for m, (before, after) in TRANSFORMS.items():
        tiles, size = n * ceil(h / m) * ceil(w / m), m + 2
        transforms = tiles * (ceil(c / lanes) * before + ceil(o / lanes) * after)
        cycles = tiles * size * size * work + transforms + size * size * traffic
        if cycles < best:
            best, chosen = cycles, m
    if not chosen:
        return 0, 0
    tiles, columns = n * ceil(h / chosen) * ceil(w / chosen), ceil(o / lanes)
    most = (target.l2_bytes_per_core // PANELS - 1) // (c * lanes * itemsize)
    tile = choose_tile(
        [min(tiles, 64), columns * lanes], lanes, target, range(1, max(1, min(4, columns, most)) + 1),
        rows_within(c * itemsize, target),
    )  # fmt: skip
    return chosen, tile.vectors * lanes


def apply(sch: Schedule, target: Target) -> None:
    """Some rows of tiles at a time: the patches of the image are transformed, multiplied, and transformed back.

    The products of these tiles are (m + 2)^2 matrix products with register tiles, chosen as for any product. As many rows of
    tiles go together as half of the second cache holds; groups of rows run in parallel. Where there are too few, or large weights
    would pass too often, each stage takes all tiles, and is parallel on its own.
    """
    product = sch.func.blocks[PRODUCT]
    (size, _, tiles, columns), depth = [it.extent.value for it in product.iters[:4]], product.iters[4].extent.value
    itemsize = writes(product)[0].dtype.itemsize
    lanes, m = target.lanes(itemsize), size - 2
    is_big = is_worth_threads(sch.func, target.num_cores)
    cores = target.num_cores if is_big else 1
    tile_rows, channels, across = _write_back(sch, m, lanes)
    rows, wide = sch.get_extent(tile_rows), sch.get_extent(across)
    assert isinstance(rows, int) and isinstance(wide, int)
    room = target.l2_bytes_per_core // 2 // (size * size * (depth + columns) * itemsize)
    most = max(1, min(room // wide, rows // (2 * cores)))
    together = next(r for r in range(most, 0, -1) if rows % r == 0)
    weights = size * size * depth * columns
    between = 2 * size * size * tiles * (depth + columns)  # written and read again
    again = (rows // together - 1) * weights if weights * itemsize > target.l2_bytes_per_core // 2 else 0
    is_staged = (is_big and rows < 2 * cores) or again > STAGING * between
    site, _ = sch.split(tile_rows, [None, 1 if is_staged else together])
    sch.compute_at(ROWS, channels)
    unroll_and_vectorize(sch, sch.get_loops(ROWS)[-3:])
    products, around = sch.cache_write(PRODUCT, 0, "local").name, 0
    if not is_staged:
        sch.compute_at(products, site)
        around = 1
    width = next(a.shape[-1].value for a in sch.func.inputs if len(a.shape) == 5)
    count = tiles if is_staged else together * wide
    tile = choose_tile([count, columns], lanes, target, (width // lanes,), rows_within(depth * itemsize, target))
    _products(sch, products, around, tile.rows[-1], width // lanes, lanes, is_staged and is_big)
    if not is_staged:
        sch.compute_at(IMAGE, site)
    _transform(sch, around, lanes, is_staged and is_big)
    if is_big:
        sch.parallel(site)


def _write_back(sch: Schedule, m: int, lanes: int) -> tuple[Var, Var, Var]:
    """What follows joins the last stage. Its loops over rows of tiles, vectors of channels, and tiles of a row."""
    last = inline_into_output(sch, RESULT)
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
    sch.compute_at(PRODUCT, p)
    accumulate_tile(sch, PRODUCT, around + len(outer), vectors, lanes)
    unroll_and_vectorize(sch, inner)
    if parallel:
        loop = fuse_all(sch, [a, b, panel])
        assert loop is not None
        sch.parallel(loop)


def _transform(sch: Schedule, around: int, lanes: int, parallel: bool) -> None:
    """Patches of the image, a vector of channels at a time, in registers and the first cache."""
    a, b, p, c = sch.get_loops(IMAGE)[around:]
    group, lane = sch.split(c, [None, lanes])
    sch.reorder(p, group, a, b, lane)
    for name in (HALF, PATCH):
        sch.compute_at(name, group)
    for name in (IMAGE, HALF):
        unroll_and_vectorize(sch, sch.get_loops(name)[around + 2 :])
    sch.vectorize(sch.get_loops(PATCH)[-1])
    if parallel:
        sch.parallel(p)
