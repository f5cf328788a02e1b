# %% [markdown]
# # 1. Quickstart
#
# Train a model with the frontend, compile it for the CPU of this machine, call it, look inside.

# %%
import numpy as np

import frontend as ndl
import tcomp
from frontend import nn

np.random.seed(0)

# %% [markdown]
# ## A model
#
# `frontend` is an autograd library in the style of CMU 10-414's needle. Here is a small classifier for points in the plane:
# inside or outside of a ring.

# %%
points = np.random.randn(512, 2).astype("float32")
radius = np.hypot(points[:, 0], points[:, 1])
labels = ((radius > 0.7) & (radius < 1.5)).astype("int64")

model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
optimizer = ndl.optim.Adam(model.parameters(), lr=0.01)
loss_of = nn.SoftmaxLoss()

for step in range(200):
    optimizer.reset_grad()
    loss = loss_of(model(ndl.Tensor(points)), ndl.Tensor(labels))
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step:3d}  loss {loss.item():.4f}")

# %% [markdown]
# ## Compile it
#
# `tcomp.compile` traces the model for inputs like the given one, simplifies the graph, fuses operators into kernels,
# schedules each kernel from an analytic model of this CPU, and generates native code. No C compiler is involved.

# %%
exe = tcomp.compile(model, [points])
print(exe)

logits = exe(points)
print(f"accuracy {100 * (logits.argmax(1) == labels).mean():.1f} %")
print(f"largest difference to eager: {np.abs(logits - model(ndl.Tensor(points)).numpy()).max():.1e}")

# %% [markdown]
# ## How fast, and where the time goes

# %%
print(exe.time(points))
print(exe.profile(points))
print(exe.memory)

# %% [markdown]
# ## Look inside
#
# Every stage prints. The traced graph after simplification:

# %%
print(exe.ir("graph"))

# %% [markdown]
# The fused kernels become loop nests, and each loop nest gets a schedule. A default schedule is ordinary code in the public
# schedule language:

# %%
name = exe.program.kernels[0].name
print(exe.schedule(name))

# %% [markdown]
# Take it, change it, and compile with your own. A schedule that would change the result is refused:

# %%
code = exe.schedule(name)


def mine(sch: tcomp.Schedule) -> None:
    exec(code, {"sch": sch})


again = tcomp.compile(model, [points], schedules={name: mine})
assert np.array_equal(again(points), logits)

try:
    tcomp.compile(model, [points], schedules={name: lambda sch: sch.parallel(sch.get_loops("matmul")[2])})
except tcomp.TcompError as error:
    print(error)

# %% [markdown]
# ## When the input does not fit

# %%
try:
    exe(points.astype("float64"))
except tcomp.TcompError as error:
    print(error)
