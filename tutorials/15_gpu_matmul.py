# %% [markdown]
# # 15. A matrix product on a GPU
#
# The path of tutorial 3, for another machine: the same product, the same schedule language, and after each step its CUDA C, and what it asks of the
# memories. A GPU has thousands of threads, in blocks; the threads of a block share a small fast memory, and 32 threads (a warp) run in step. Where
# there is no GPU the emulator runs the kernels on the CPU and watches each access (docs/cuda.md).

# %%
import shutil

import numpy as np

import tcomp
from tcomp import Schedule, te

N = 128
TARGET = "cuda -arch=sm_80 -device=emulator"
CAN_RUN = shutil.which("gcc") is not None
rng = np.random.default_rng(0)
a, b = (rng.standard_normal((N, N)).astype(np.float32) for _ in range(2))
exact = a.astype(np.float64) @ b.astype(np.float64)
told = {}


def product():
    x, y = te.placeholder((N, N), name="A"), te.placeholder((N, N), name="B")
    k = te.reduce_axis(N, "k")
    c = te.compute((N, N), lambda i, j: te.sum(x[i, k] * y[k, j], axis=k), name="C")
    return Schedule(te.create_prim_func([x, y, c], "product"))


def show(name, sch):
    """The step's CUDA C and what it asks of memory; its result, checked."""
    exe = tcomp.compile(sch, target=TARGET)
    print(exe.ir("cuda"))
    told[name] = exe.explain().splitlines()[-1].strip()
    print(told[name])
    if CAN_RUN:
        got = exe(a, b)
        print("error:", float(np.linalg.norm(got - exact) / np.linalg.norm(exact)))
        assert np.linalg.norm(got - exact) < 1e-6 * np.linalg.norm(exact)


# %% [markdown]
# ## Naive
#
# Each element of C is a thread: the loops over C are split into blocks of 16 x 16, and bound to the indices of blocks and threads. Threads side by
# side read neighbours of B and the same element of A, so that a warp uses most of each sector (32 bytes) that it asks for. But for each
# multiply-add a thread loads two numbers and moves its sum to memory and back, and each row of A is read again by each block of columns.

# %%
naive = product()
i, j, k = naive.get_loops("C")
i0, i1 = naive.split(i, [None, 16])
j0, j1 = naive.split(j, [None, 16])
naive.reorder(i0, j0, i1, j1, k)
for loop, index in ((i0, "blockIdx.y"), (j0, "blockIdx.x"), (i1, "threadIdx.y"), (j1, "threadIdx.x")):
    naive.bind(loop, index)
show("naive", naive)

# %% [markdown]
# ## A tile in registers
#
# A thread that computes 4 x 4 elements loads 4 of A and 4 of B for 16 multiply-adds: 2 bytes each instead of 8. The result stays in registers
# (`cache_write` to scope "local") until it is done; the product is computed inside of the loops that write a tile back. A tenth of the bytes is
# left; of each sector a fifth is used, as threads side by side now read every fourth number.


# %%
def tiled(sch, threads=8, own=4):
    """C in blocks of threads x threads, own x own elements in the registers of each; the loop over tiles, and those of the product."""
    write = sch.cache_write("C", 0, "local")
    i, j = sch.get_loops(write)
    i0, i1, i2 = sch.split(i, [None, threads, own])
    j0, j1, j2 = sch.split(j, [None, threads, own])
    sch.reorder(i0, j0, i1, j1, i2, j2)
    sch.compute_at("C", j0)
    _, _, ci, cj, ck = sch.get_loops("C")
    ci1, ci2 = sch.split(ci, [threads, own])
    cj1, cj2 = sch.split(cj, [threads, own])
    k0, k1 = sch.split(ck, [None, 16])
    sch.reorder(k0, ci1, cj1, k1, ci2, cj2)
    for y, x in ((i1, j1), (ci1, cj1)):
        sch.bind(y, "threadIdx.y")
        sch.bind(x, "threadIdx.x")
    for loop in (k1, ci2, i2):
        sch.unroll(loop)
    sch.bind(i0, "blockIdx.y")
    sch.bind(j0, "blockIdx.x")
    return k0, cj2, j2


registers = product()
k0, cj2, j2 = tiled(registers)
registers.decompose_reduction("C", k0)
show("registers", registers)

# %% [markdown]
# ## Shared memory
#
# The threads of a block need the same rows of A and columns of B. So they bring 16 steps of both to shared memory together, each thread its part,
# wait for each other, and compute from there. `cache_read` makes the copies, `compute_at` puts them into the loop over steps; the loops of a copy
# become one, which is shared out among the threads. Nobody writes the barriers: they follow from who reads what another thread wrote.


# %%
def bring(sch, name, at, threads=8, lanes=1):
    """A slice of an operand to shared memory, by all threads of a block, some neighbours at once."""
    copy = sch.cache_read("C", name, "shared")
    sch.compute_at(copy, at)
    whole = sch.fuse(*sch.get_loops(copy)[3:])
    _, y, x, *vector = sch.split(whole, [None, threads, threads, *([lanes] if lanes > 1 else [])])
    sch.bind(y, "threadIdx.y")
    sch.bind(x, "threadIdx.x")
    for v in vector:
        sch.vectorize(v)
    return copy


shared = product()
k0, cj2, j2 = tiled(shared)
for name in "AB":
    bring(shared, name, k0)
shared.decompose_reduction("C", k0)
show("shared memory", shared)

# %% [markdown]
# ## Sixteen bytes at once
#
# An access of 16 bytes costs about as much as one of 4. The copies move four neighbours, the four columns of a thread are loaded, computed and
# written as a vector. Rows of A's slice become longer than they need be, so that those which the threads of a warp read together lie in different
# banks of shared memory.

# %%
wide = product()
k0, cj2, j2 = tiled(wide)
copies = [bring(wide, name, k0, lanes=4) for name in "AB"]
wide.storage_align(copies[0], 0, 0, 8, 4)
for loop in (cj2, j2):
    wide.vectorize(loop)
wide.decompose_reduction("C", k0)
show("16 bytes at once", wide)

# %% [markdown]
# ## What a check refuses
#
# A sum whose parts threads would add at the same time is no product any more; the step is refused, and says why.

# %%
wrong = product()
try:
    wrong.parallel(wrong.get_loops("C")[2])
except tcomp.errors.ScheduleError as error:
    print(error)

# %% [markdown]
# ## All steps
#
# What warps ask of the device's memory (or its caches), how much of it 16 bytes at once, and how long shared memory takes for one without
# conflicts. The default rule takes the same steps, with sizes by arithmetic; `exe.schedule` prints it as code.

# %%
for name, line in told.items():
    print(f"{name}: {line}")
g = tcomp.GraphBuilder()
default = tcomp.compile(g.build(g.matmul(g.input("a", (N, N)), g.input("b", (N, N)))), target=TARGET)
print(default.explain(), "\n")
print(default.schedule("matmul"))

# %% [markdown]
# Exercises: bring the next slice while this one is computed is not there yet, nor are tensor cores. Let a thread own 8 x 8 elements at N = 512:
# how many bytes a multiply-add are left? Leave `storage_align` out, and compare the conflicts.
