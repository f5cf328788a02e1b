# %% [markdown]
# # 14. Autotuning
#
# A default schedule follows a plan, which arithmetic has decided (tutorial 3, `exe.explain()`). The tuner tries other plans of the kernels that
# matter, measures them beside the default, and keeps one only where it is surely faster. docs/tuning.md says how.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import tcomp
from tcomp.tuner.database import Database

BUDGET = float(os.environ.get("TUTORIAL_BUDGET", "30"))
PICTURE = os.environ.get("TUTORIAL_PICTURE", "autotuning.png")
rng = np.random.default_rng(0)
database = Path(tempfile.mkdtemp(prefix="tcomp-tune-")) / "tune.db"

# %% [markdown]
# ## Two kernels
#
# A product, for which the default is hard to beat, and a softmax over long rows.

# %%
g = tcomp.GraphBuilder()
product = g.build(g.relu(g.matmul(g.input("x", (512, 512)), g.input("w", (512, 512)))))
g = tcomp.GraphBuilder()
softmax = g.build(g.softmax(g.input("x", (12, 512, 512))))
print(tcomp.compile(product, num_threads=1).explain())

# %% [markdown]
# ## Tune
#
# `budget_s` says how long. Each candidate is built in a process of its own, so that one that crashes or never ends is lost alone, and raced against
# the default in turns; the best are measured again at several places in memory and checked against float64.

# %%
curves: dict[str, list[tuple[float, float]]] = {}


def note(states, spent):
    for s in states:
        curves.setdefault(s.task.func.name, []).append((BUDGET * spent, max(1.0, s.best)))


for model in (product, softmax):
    report = tcomp.tune(model, budget_s=BUDGET, num_threads=1, database=database, progress=note)
    print(report, "\n")

# %% [markdown]
# ## The curve
#
# What the search saw. A ratio on the way is one short measurement, and flatters; what is accepted is the confirmed one, printed above.

# %%
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, points in curves.items():
    axes.step(*zip(*points), where="post", label=name)
axes.set(xlabel="seconds", ylabel="best ratio to the default so far")
axes.legend()
figure.savefig(PICTURE)

# %% [markdown]
# ## Use the records
#
# `database=` (or the variable TCOMP_TUNE_DB) gives kernels the recorded schedules; `explain` says so, and shows the plan. What a plan decides
# otherwise than the default, one sees by comparing both.

# %%
x = rng.standard_normal((12, 512, 512)).astype(np.float32)
before, after = tcomp.compile(softmax, num_threads=1), tcomp.compile(softmax, num_threads=1, database=database)
print(before.explain(), "\n")
print(after.explain(), "\n")
print(f"agrees: {np.allclose(before(x), after(x), rtol=1e-5, atol=1e-7)}")
print(f"{1e3 * before.time(x).median:.3f} ms -> {1e3 * after.time(x).median:.3f} ms")
print(after.schedule("softmax"))

# %% [markdown]
# ## Go on
#
# Trials are in the file, too: another run goes on from there, and starts with what was found.

# %%
with_more = tcomp.tune(softmax, budget_s=BUDGET / 3, num_threads=1, database=database)
print(with_more)
for r in Database(database).records():
    print(f"{r.name}: {r.ratio} times as fast, {1e6 * r.seconds:.1f} us")

# %% [markdown]
# ## Why is it faster
#
# The steps of both schedules differ in few places. `report.save` writes a page with the searches as pictures.

# %%
import difflib

pages = Path(PICTURE).with_suffix(".html")
print("report:", with_more.save(pages).name)
steps = [str(exe.schedule("softmax")).splitlines() for exe in (before, after)]
print("\n".join(difflib.unified_diff(*steps, "default", "tuned", lineterm="", n=1)) or "the default stays")

# %% [markdown]
# ## A schedule of your own
#
# Sampling steps leave decisions open. Here a bad one is given, for the tuner to beat.

# %%
from tcomp import te

A, B = te.placeholder((256, 256), name="A"), te.placeholder((256, 256), name="B")
k = te.reduce_axis(256, name="k")
kernel = te.create_prim_func(
    [A, B, te.compute((256, 256), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C")], "product"
)


def mine(sch):
    i, j, k = sch.get_loops("C")
    i0, i1 = sch.split(i, sch.sample_perfect_tile(i, 2, 16, decision=[128, 2]))
    j0, j1, j2 = sch.split(j, sch.sample_perfect_tile(j, 3, 64, decision=[32, 1, 8]))
    k0, k1 = sch.split(k, sch.sample_perfect_tile(k, 2, 16, decision=[256, 1]))
    sch.reorder(i0, j0, k0, k1, i1, j1, j2)
    sch.vectorize(j2)
    for loop in (k1, i1, j1):
        sch.unroll(loop)


own = tcomp.tune(kernel, schedule=mine, budget_s=BUDGET, num_threads=1)
print(own)
a, b = (rng.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
print(f"agrees: {np.allclose(tcomp.compile(own.schedules['product'])(a, b), a @ b, rtol=1e-4, atol=1e-3)}")

# %% [markdown]
# ## Many machines
#
# Building may run elsewhere: `executor=` takes what has the methods of `concurrent.futures.Executor`. Here two workers of a local Dask cluster build;
# `mpi4py.futures.MPICommExecutor` does as well. Measuring stays here, where the target is.

# %%
import importlib.util

if importlib.util.find_spec("distributed") is None:
    print("pip install distributed, to build on a cluster")
else:
    from distributed import Client, LocalCluster

    # threads, since a script whose workers are processes must guard all of its lines by `if __name__ == "__main__"`
    with LocalCluster(n_workers=2, processes=False, dashboard_address=None) as cluster, Client(cluster) as client:
        print(
            tcomp.tune(softmax, budget_s=BUDGET / 3, num_threads=1, executor=client.get_executor(), database=database)
        )

# %% [markdown]
# On the command line: `tcomp tune model.onnx --budget 60 --db tune.db --html tuned.html`, `tcomp tune --show --db tune.db`,
# `tcomp tune --replay softmax --db tune.db`.
