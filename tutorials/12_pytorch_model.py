# %% [markdown]
# # 12. A PyTorch module
#
# `tcomp.compile(module, [example])` exports a module with `torch.export`, reads the program that this makes, and compiles it. Parameters
# become constants, so what can be computed beforehand is: batch normalisation goes into the weights before it, weights are packed.

# %%
import os
import time

import numpy as np
import torch
from torch import nn

import tcomp

PICTURE = os.environ.get("TUTORIAL_PICTURE", "pytorch_model.png")
torch.manual_seed(0)


class Block(nn.Module):
    """Two convolutions beside a short cut (K. He et al., Deep Residual Learning for Image Recognition, 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(x + self.body(x))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Block(32) for _ in range(4)))
        self.head = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y = self.blocks(self.stem(image))
        return self.head(y.mean((2, 3)))


model = Network().eval()
x = torch.randn(1, 3, 64, 64)
exe = tcomp.compile(model, [x])
print(exe)

# %% [markdown]
# The same numbers, to float32's rounding:

# %%
with torch.inference_mode():
    want = model(x).numpy()
got = exe(x.numpy())
print("relative error:", np.linalg.norm(got - want) / np.linalg.norm(want))
print("agrees:", np.allclose(got, want, rtol=1e-4, atol=1e-5))

# %% [markdown]
# Convolution, normalisation, activation and short cut are one kernel each. `exe.ir("graph")` shows the graph after all passes; each kernel
# tells which calls of the module it computes.

# %%
for kernel in exe.program.kernels[:4]:
    print(f"{kernel.name}: {kernel.origin}")

# %% [markdown]
# ## Beside eager PyTorch
#
# Turn by turn, so that whatever else the machine does hits both alike; `python -m benchmarks.models` compares fairly, each library in a
# process of its own.

# %%
torch.set_num_threads(exe.num_threads or os.cpu_count() or 1)
times: dict[str, list[float]] = {"tcomp": [], "torch": []}
with torch.inference_mode():
    for _ in range(int(os.environ.get("TUTORIAL_REPEAT", "30"))):
        for name, run in (("tcomp", lambda: exe(x.numpy())), ("torch", lambda: model(x))):
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
for name, ms in times.items():
    print(f"{name}: {np.median(ms):.3f} ms")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

rows = sorted(exe.profile(x.numpy(), repeat=3).rows, key=lambda r: r.seconds)
figure, axes = plt.subplots(figsize=(9, 4))
axes.barh([r.name[:40] for r in rows], [1e6 * r.seconds for r in rows])
axes.set_xlabel("us")
figure.tight_layout()
figure.savefig(PICTURE)

# %% [markdown]
# ## What cannot be compiled
#
# A module in training mode changes its running statistics; a call without a converter is named. All of them are told at once.

# %%
for broken in (Network(), nn.Sequential(nn.Linear(4, 4), nn.Module())):
    try:
        tcomp.compile(broken, [x if isinstance(broken, Network) else torch.randn(2, 4)])
    except tcomp.TcompError as error:
        print(f"{type(error).__name__}: {str(error).splitlines()[0]}")
