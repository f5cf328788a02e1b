# %% [markdown]
# # 3. A matrix product, from naive to peak
#
# The course on deep-learning systems walks from three loops to a fast matrix product: registers, caches, packing, vectors,
# threads. Here each of these steps is a few lines of schedule. For each we print the loops, what they cost by arithmetic
# (`estimate`), and what they reach; at the end a roofline picture shows all of them under the machine's ceilings.

# %%
import os

import numpy as np

import tcomp
from tcomp import te
from tcomp.schedule import library
from tcomp.tools.peak import fma_peak, memory_bandwidth

N = int(os.environ.get("TUTORIAL_SIZE", "1024"))
REPEAT = int(os.environ.get("TUTORIAL_REPEAT", "15"))
PICTURE = os.environ.get("TUTORIAL_PICTURE", "roofline.png")
target = tcomp.Target.parse("cpu")
LANES = target.lanes(4)
ROWS, VECTORS = 6, 4

A, B = te.placeholder((N, N), name="A"), te.placeholder((N, N), name="B")
k = te.reduce_axis(N, "k")
C = te.compute((N, N), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C")
func = te.create_prim_func([A, B, C], "matmul")

rng = np.random.default_rng(0)
a, b = rng.standard_normal((N, N)).astype("float32"), rng.standard_normal((N, N)).astype("float32")
reference = a.astype(np.float64) @ b.astype(np.float64)

# %% [markdown]
# ## The ceilings
#
# Two things bound every kernel: how many multiply-adds the cores can do, and how many bytes memory can bring. Both are
# measured here, by kernels that do nothing else (`tcomp/tools/peak.py`).

# %%
peak, one_core = fma_peak(), fma_peak(1)
bandwidth = memory_bandwidth()
print(target)
print(f"peak: {one_core:.1f} GFLOP/s on one core, {peak:.1f} on {target.num_cores}; memory: {bandwidth:.1f} GB/s")

results: list[tuple[str, float, float]] = []


def measure(name: str, sch: tcomp.Schedule, threads: int = 1, repeat: int = REPEAT) -> float:
    """Print the loops and their cost; compile, check against float64, time."""
    print(f"\n--- {name} ---\n{sch}\n{sch.estimate()}")
    exe = tcomp.compile(sch, num_threads=threads)
    error = np.sqrt(np.square(exe(a, b) - reference).sum() / np.square(reference).sum())
    assert error < 1e-5, error
    gflops = 2 * N**3 / exe.time(a, b, repeat=repeat, warmup=1).best / 1e9
    results.append((name, sch.estimate().intensity("L2"), gflops))
    print(f"{name}: {gflops:.1f} GFLOP/s on {threads} thread(s), error {error:.1e}")
    return gflops


# %% [markdown]
# ## Vanilla
#
# Three loops. For each element of the result a row of `A` meets a column of `B`: two loads for two operations.

# %%
measure("vanilla", tcomp.Schedule(func), repeat=1)

# %% [markdown]
# ## Register tile
#
# A tile of the result stays in registers while the reduction runs: every element of `A` and `B` that is loaded is used
# several times. `cache_write` makes the tile, `compute_at` puts it where it is used, `decompose_reduction` clears it.


# %%
def start(rows: int, columns: int) -> tuple:
    """The loops over tiles, and the reduction of one tile inside them."""
    sch = tcomp.Schedule(func)
    write = sch.cache_write("C", 0, "local")
    i0, j0, i1, j1 = library.tile_2d(sch, write, rows, columns)
    sch.compute_at("C", j0)
    _, _, ci, cj, ck = sch.get_loops("C")
    sch.reorder(ck, ci, cj)
    init = sch.decompose_reduction("C", ck)
    return sch, (i0, j0, i1, j1), (ck, ci, cj), init


sch, tiles, (ck, ci, cj), init = start(4, 4)
for loop in (ci, cj, *sch.get_loops(init)[2:], *tiles[2:]):
    sch.unroll(loop)
measure("register tile", sch, repeat=2)

# %% [markdown]
# ## Cache tile
#
# The same, inside tiles of a block of rows and columns that L2 holds.

# %%
sch, (i0, j0, i1, j1), (ck, ci, cj), init = start(4, 4)
io, ii = sch.split(i0, [None, 16])
jo, ji = sch.split(j0, [None, 16])
sch.reorder(jo, io, ji, ii)
for loop in (ci, cj, *sch.get_loops(init)[-2:], i1, j1):
    sch.unroll(loop)
measure("cache tile", sch, repeat=2)

# %% [markdown]
# ## Vectors
#
# A tile of 6 rows and 4 vectors needs 24 registers for its sums, 4 for a row of `B` and one for an element of `A`: what the
# register file of a machine with 32 vector registers holds. Its last axis runs in lanes. `library.register_tile` is the
# pattern as a function: read it, it is made of the same primitives.

# %%
sch = tcomp.Schedule(func)
tile = library.register_tile(sch, "C", [ROWS], VECTORS, LANES)
measure("vectors", sch)

# %% [markdown]
# ## Packing
#
# The panel of `B` that a column of tiles reads lies scattered over `N` rows, each in another page. One copy brings it into
# contiguous memory, for all rows of tiles. The loop over `k` is unrolled a little, so that its counting costs nothing.

# %%
library.pack_operand(sch, "C", "B", tile.outer[0], LANES)
sch.unroll(sch.split(tile.reduce[0], [None, 4])[1])
single = measure("packing", sch)

# %% [markdown]
# ## Threads
#
# Columns of tiles are independent, and each packs its own panel.

# %%
sch.parallel(tile.outer[0])
both = measure("threads", sch, threads=target.num_cores)
print(sch.trace)

# %% [markdown]
# ## The roofline
#
# Horizontally the operations for each byte that moves into L2 (`estimate`), vertically the speed. The slope is
# memory's bandwidth, the flat parts are the arithmetic peaks. (Williams, Waterman, Patterson, CACM 2009.)

# %%
print(f"\n{'step':<14} {'flop/byte':>10} {'GFLOP/s':>9}  of peak")
for name, intensity, gflops in results:
    ceiling = peak if name == "threads" else one_core
    print(f"{name:<14} {intensity:>10.1f} {gflops:>9.1f}  {100 * gflops / ceiling:5.1f} %")
print(f"one core {100 * single / one_core:.1f} % of peak, {target.num_cores} cores {100 * both / peak:.1f} % of peak")

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 4.5))
x = np.geomspace(min(0.05, *(i for _, i, _ in results)), max(200, *(i for _, i, _ in results)) * 2, 200)
ceilings = [(one_core, "1 core", "top")] if target.num_cores > 1 else []
for ceiling, label, side in [
    (peak, f"{target.num_cores} cores", "bottom"),
    *ceilings,
]:  # one label above its line, one below
    axes.loglog(x, np.minimum(ceiling, x * bandwidth), color="black", lw=1)
    axes.text(x[-1], ceiling, f"{ceiling:.0f} GFLOP/s, {label}", ha="right", va=side)
for name, intensity, gflops in results:
    axes.loglog(intensity, gflops, "o", label=f"{name}: {gflops:.3g} GFLOP/s")
axes.legend(loc="lower right")
axes.set_xlabel("operations for each byte into L2")
axes.set_ylabel("GFLOP/s")
axes.set_title(f"{N} x {N} x {N} float32 matrix product")
figure.tight_layout()
figure.savefig(PICTURE, dpi=120)
print(f"picture: {PICTURE}")

# %% [markdown]
# Ask a schedule why something cannot be done:

# %%
print(sch.explain(sch.get_loops("C")[2]))
