"""What a CPU's operations cost: every constant from which plans are computed, with where it was measured.

`python -m tcomp.tools calibrate` measures those that can be measured on this machine, beside these. Entries of families.toml may
say otherwise for a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

EMR = "Emerald Rapids, 2 cores"
ZEN5 = "Zen 5, 2 cores"
GNR = "Granite Rapids, one core of 2"
ZEN3 = "Zen 3, 2 cores"


def _cost(default: float, unit: str, what: str, where: str) -> Any:
    return field(default=default, metadata={"unit": unit, "what": what, "where": where})


@dataclass(frozen=True, slots=True)
class CostModel:
    """The constants of a machine, or of the algorithms on it, that decide between schedules."""

    fma_latency: float = _cost(
        4.5,
        "cycles",
        "a multiply-add until its result can be used, 4, and the wait of some for a port: 8 sums at once take an eighth longer than 10",
        f"{ZEN3}; 4 of {EMR} and {ZEN5}",
    )
    loads: float = _cost(1.7, "vectors per cycle", "loads from L1: of two, some come late", EMR)
    near_bytes: float = _cost(
        20, "bytes per cycle", "what L2 keeps delivering: tiles that ask for more wait for it", GNR
    )
    far_bytes: float = _cost(10, "bytes per cycle", "one stream read in order from beyond L2", EMR)
    shared_bytes: float = _cost(
        6, "bytes per cycle", "what the last-level cache gives a core that multiplies meanwhile", EMR
    )
    outer_bytes: float = _cost(3, "bytes per cycle", "what memory gives a core that multiplies meanwhile", ZEN3)
    tile_start: float = _cost(40, "cycles", "first loads and last sums of a register tile", EMR)
    window: float = _cost(
        512, "instructions", "how far a core looks ahead: a short tile starts before the end of its neighbour", EMR
    )
    pending_lines: float = _cost(
        16, "cache lines", "stores on their way at once; a tile that writes more of them waits", EMR
    )
    burst: float = _cost(3, "cycles", "wait for each cache line beyond those", EMR)
    load_slack: float = _cost(
        0.5,
        "of a multiply-add",
        "what a load takes from the multiply-adds beside it: of 6 x 4 vectors and 8 x 2, the former are 4 to 10 % faster",
        GNR,
    )
    uneven: float = _cost(
        1.03, "ratio", "Winograd's products where not all tiles are equal, to those where they are", f"{EMR}; {GNR}"
    )
    prefetch_cycles: float = _cost(400, "cycles", "an element of far weights until it arrives", EMR)
    flops: float = _cost(60e9, "per second", "multiply-adds, rough estimate for whether threads pay", EMR)
    function_seconds: float = _cost(1e-9, "seconds", "an elementary function of one element, rough", EMR)
    memory_bytes: float = _cost(10e9, "bytes per second", "memory traffic of one core, rough", EMR)
    parallel_seconds: float = _cost(
        10e-6,
        "seconds",
        "least work on one core for which a second thread pays: a region costs 1e-6 with the threads awake, tens of that where one must be woken",
        EMR,
    )
    accumulator_wait: float = _cost(0.05, "ratio", "each vector accumulator less in a sum along a row", EMR)
    copy: float = _cost(
        0.5, "vectors", "copying the factors of a streamed matrix, in vectors of a run worked on meanwhile", EMR
    )
    stage: float = _cost(8, "ratio", "an element written and read between stages, to a weight read once more", EMR)
    winograd_panels: float = _cost(
        8,
        "panels",
        "of Winograd weights that L2 must hold: larger ones are slower by half when they come from memory",
        EMR,
    )
    winograd_margin: float = _cost(
        1.1, "ratio", "predicted gain from which Winograd's rounding error is worth it", "chosen"
    )
    spare_rows: float = _cost(1.08, "ratio", "rows of attention computed for nothing to make larger groups", EMR)
    near_caches: float = _cost(
        4,
        "ratio",
        "operands and result of a layer to all L2 caches, from where on a batch is slower than its samples one by one",
        ZEN3,
    )
    turned_bytes: float = _cost(
        32 * 1024, "bytes", "a transposed matrix up to which reading rows as columns stays in L1", EMR
    )


def described() -> list[tuple[str, float, str, str, str]]:
    """(name, default, unit, what, where it was measured) of each constant."""
    return [(f.name, float(f.default), *(f.metadata[k] for k in ("unit", "what", "where"))) for f in fields(CostModel)]
