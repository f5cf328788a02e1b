# %% [markdown]
# # 2. Tensor expressions and schedules
#
# A tensor expression says *what* to compute; a schedule says *how*. This tutorial takes a 512 x 512 x 512 matrix product from
# the naive loops to most of what the machine can do, one schedule step at a time, and prints what each step is worth.

# %%
import os

import numpy as np

import tcomp
from tcomp import te
from tcomp.tools.peak import fma_peak

N = int(os.environ.get("TUTORIAL_SIZE", "512"))
REPEAT = int(os.environ.get("TUTORIAL_REPEAT", "20"))
target = tcomp.Target.parse("cpu")
LANES = target.lanes(4)
print(target)

# %% [markdown]
# ## What: a tensor expression

# %%
A = te.placeholder((N, N), name="A")
B = te.placeholder((N, N), name="B")
k = te.reduce_axis(N, "k")
C = te.compute((N, N), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C")
func = te.create_prim_func([A, B, C], "matmul")
print(tcomp.Schedule(func))

# %%
rng = np.random.default_rng(0)
a, b = rng.standard_normal((N, N)).astype("float32"), rng.standard_normal((N, N)).astype("float32")
reference = a.astype(np.float64) @ b.astype(np.float64)
results: list[tuple[str, float]] = []


def measure(name: str, sch: tcomp.Schedule, repeat: int = REPEAT) -> None:
    """Compile, check against float64, print GFLOP/s."""
    exe = tcomp.compile(sch)
    # no BLAS here: its idle threads spin for a while and would take a core from what is timed next
    error = np.sqrt(np.square(exe(a, b) - reference).sum() / np.square(reference).sum())
    assert error < 1e-5, error
    gflops = 2 * N**3 / exe.time(a, b, repeat=repeat, warmup=1).best / 1e9
    results.append((name, gflops))
    print(f"{name:<12} {gflops:8.1f} GFLOP/s   (error {error:.1e})")


# %% [markdown]
# ## Step 0: naive
#
# The loops as written. `B` is read down its columns, one element a cache line.

# %%
measure("naive", tcomp.Schedule(func), 1)

# %% [markdown]
# ## Step 1: tiled
#
# Work on tiles that stay in cache. `tile` splits two loops and moves the inner parts inside; `reorder` brings the reduction
# between them.

# %%
sch = tcomp.Schedule(func)
i, j, r = sch.get_loops("C")
i0, j0, i1, j1 = sch.tile(i, j, 32, 64)
r0, r1 = sch.split(r, [None, 8])
sch.reorder(i0, j0, r0, i1, r1, j1)
measure("tiled", sch, 2)

# %% [markdown]
# ## Step 2: a register tile
#
# Keep a tile of the result in registers while the reduction runs. `cache_write` gives the block a copy of its output,
# `compute_at` shrinks the copy to the tile at hand, `decompose_reduction` clears it before the reduction. After unrolling,
# every index into the tile is a constant, so it never touches memory until it is written back.

# %%
ROWS, VECTORS = 6, 4


def register_tile(vectorized: bool) -> tuple:
    sch = tcomp.Schedule(func)
    write = sch.cache_write("C", 0, "local")
    i, j = sch.get_loops(write)
    j0, j1 = sch.split(j, [None, VECTORS * LANES])
    i0, i1 = sch.split(i, [None, ROWS])
    sch.reorder(j0, i0, i1, j1)
    sch.compute_at("C", i0)
    *_, ci, cj, ck = sch.get_loops("C")
    vector, lane = sch.split(cj, [VECTORS, LANES])
    sch.reorder(ck, ci, vector, lane)
    init = sch.decompose_reduction("C", ck)
    if vectorized:
        for loops in ([ci, vector, lane], sch.get_loops(init)[2:], [i1, *sch.split(j1, [VECTORS, LANES])]):
            for loop in loops[:-1]:
                sch.unroll(loop)
            sch.vectorize(loops[-1])
    return sch, j0, ck


sch, _, _ = register_tile(vectorized=False)
measure("tile copied", sch, 2)

# %% [markdown]
# ## Step 3: vectorized
#
# The lanes of the tile become vector instructions. Vectors are explicit: what the schedule says is what the machine runs.

# %%
sch, _, _ = register_tile(vectorized=True)
measure("vectorized", sch)

# %% [markdown]
# ## Step 4: packed
#
# The panel of `B` that a column of tiles reads lies scattered over `N` rows. `cache_read` copies it into one contiguous panel,
# once for all rows of tiles.

# %%
sch, j0, ck = register_tile(vectorized=True)
panel = sch.cache_read("C", "B", "global")
sch.compute_at(panel, j0)
sch.vectorize(sch.split(sch.get_loops(panel)[-1], [None, LANES])[1])
r0, r1 = sch.split(ck, [None, 4])
sch.unroll(r1)
measure("packed", sch)

# %% [markdown]
# ## Step 5: parallel
#
# Columns of tiles are independent: each thread packs its own panels. That is already most of what the machine can do.

# %%
sch.parallel(j0)
measure("parallel", sch)
print()
print(sch)
print(sch.trace)

# %% [markdown]
# ## What the machine can do
#
# The peak, measured with a kernel that does nothing but multiply-adds on registers (`tcomp/tools/peak.py` is its schedule).

# %%
peak = fma_peak()
print(f"measured peak of {target.num_cores} cores: {peak:.1f} GFLOP/s")
for name, gflops in results:
    print(f"{name:<12} {gflops:8.1f} GFLOP/s  {100 * gflops / peak:5.1f} % of peak")

# %% [markdown]
# Wrong steps are refused, with the reason and the place:

# %%
try:
    sch.parallel(sch.get_loops("C")[2])
except tcomp.TcompError as error:
    print(error)
