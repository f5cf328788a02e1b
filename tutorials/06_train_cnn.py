# %% [markdown]
# # 6. Train a convolutional network
#
# A residual network on the handwritten digits that scikit-learn carries, 8 x 8 pixels each. Forward, backward and optimizer are
# compiled into one native call.

# %%
import os
import time

import numpy as np

import frontend as ndl
import tcomp
from frontend import nn, optim, train
from frontend.data import DataLoader, DigitsDataset, RandomAffine
from frontend.models import conv_bn

EPOCHS = int(os.environ.get("TUTORIAL_EPOCHS", "60"))
PICTURE = os.environ.get("TUTORIAL_PICTURE", "digits.png")
WIDTH = 32
ndl.init.seed(0)

# %% [markdown]
# ## Data
#
# Images are turned, stretched and shifted a little, anew in each epoch. The loader has a seed of its own, so that a run that was
# cut short goes on in the same order.

# %%
training = DigitsDataset(train=True, transforms=[RandomAffine(12, 0.12, 0.7)])
test = DigitsDataset(train=False)
loader = DataLoader(training, 64, shuffle=True, drop_last=True, seed=0)
print(f"{len(training)} images to learn from, {len(test)} to be tested by")


# %% [markdown]
# ## The model
#
# Like ResNet-9: each stage halves the image, doubles the channels, and adds what two convolutions make of it.


# %%
def stage(width: int) -> nn.Residual:
    return nn.Residual(nn.Sequential(conv_bn(width, width), conv_bn(width, width)))


model = nn.Sequential(
    conv_bn(1, WIDTH), stage(WIDTH), nn.MaxPool2d(2), conv_bn(WIDTH, 2 * WIDTH), stage(2 * WIDTH), nn.MaxPool2d(2),
    nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * WIDTH, 10),
)  # fmt: skip
print(f"{sum(p.size for p in model.parameters()):,} parameters")

# %% [markdown]
# ## The step
#
# `compile_step` traces loss, gradients and the optimizer's update as one graph; its kernels change parameters and state in place.

# %%
optimizer = optim.AdamW(model.parameters(), 6e-3, weight_decay=0.3)
start = time.perf_counter()
step = train.compile_step(model, nn.SoftmaxLoss(), optimizer, next(loader.batches(0)))
program = step.compile([t.numpy() for t in next(loader.batches(0))]).exe
print(
    f"compiled in {time.perf_counter() - start:.1f} s: {program.program.fused_from} operations, {program.num_kernels} kernels"
)
print(program.memory)

# %% [markdown]
# ## Train
#
# The learning rate rises for an epoch, then falls along half a cosine. (With `checkpoint="digits.safetensors"` the run could be
# killed at any moment and would go on.)

# %%
start = time.perf_counter()
losses = train.fit(step, loader, EPOCHS, lr_scheduler=optim.cosine(EPOCHS * len(loader), len(loader)))
seconds = time.perf_counter() - start
print(f"{len(losses)} steps in {seconds:.1f} s, loss {np.mean(losses[:10]):.3f} -> {np.mean(losses[-10:]):.4f}")

# %% [markdown]
# ## Test
#
# In evaluation mode, compiled for all test images at once: batch normalisation has gone into the convolutions' weights.

# %%
exe = tcomp.compile(model.eval(), [test.X])
logits = exe(test.X)
print(f"test accuracy {100 * (logits.argmax(1) == test.y).mean():.2f} %")

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 4))
axes.semilogy(losses, lw=0.5)
axes.set_xlabel("step")
axes.set_ylabel("loss")
figure.tight_layout()
figure.savefig(PICTURE, dpi=120)
print(f"picture: {PICTURE}")
