# %% [markdown]
# # 9. A generative adversarial network
#
# Points of a bent-out-of-round normal distribution in the plane; a generator that turns noise into points, and a discriminator
# that learns to tell them apart. Each of the two has a compiled step of its own, over the same parameters.

# %%
import os

import numpy as np

import frontend as ndl
from frontend import nn, optim, train

STEPS = int(os.environ.get("TUTORIAL_STEPS", "2500"))
PICTURE = os.environ.get("TUTORIAL_PICTURE", "gan.png")
BATCH = 256
ndl.init.seed(0)
rng = np.random.default_rng(0)

# %% [markdown]
# ## The truth

# %%
A, mean = np.array([[1.0, 2.0], [-0.2, 0.5]], "float32"), np.array([2.0, 1.0], "float32")
covariance = A.T @ A


def real(n: int) -> np.ndarray:
    return rng.standard_normal((n, 2)).astype("float32") @ A + mean


def noise(n: int) -> np.ndarray:
    return rng.standard_normal((n, 2)).astype("float32")


print("mean", mean, "covariance", covariance.round(3).tolist())

# %% [markdown]
# ## Two players
#
# A linear generator can make this distribution exactly. The discriminator is a small MLP.

# %%
generator = nn.Sequential(nn.Linear(2, 2))
discriminator = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1))
loss_of = nn.GANLoss()


def judge(model: nn.Module, x: ndl.Tensor, fake: ndl.Tensor) -> ndl.Tensor:
    """What the discriminator loses: on real points, and on generated ones."""
    return loss_of(model(x), True) + loss_of(model(fake), False)


class Pair(nn.Module):
    """The generator, seen by the discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def forward(self, z: ndl.Tensor) -> ndl.Tensor:
        return self.discriminator(self.generator(z))


def fool(model: nn.Module, z: ndl.Tensor) -> ndl.Tensor:
    return loss_of(model(z), True)


z = noise(BATCH)
opt_g = optim.Adam(generator.parameters(), 0.01, beta1=0.5)
opt_d = optim.Adam(discriminator.parameters(), 0.01, beta1=0.5)
step_d = train.compile_step(discriminator, judge, opt_d, (real(BATCH), z))
step_g = train.compile_step(Pair(), fool, opt_g, (z,))

# %% [markdown]
# ## Play
#
# The discriminator's step changes the discriminator's arrays in place, so the generator's step sees the new ones, and the other
# way round. The learning rates fall to nothing, so that the two come to rest.

# %%
losses = []
decay = optim.linear(STEPS)
for number in range(STEPS):
    opt_d.lr = opt_g.lr = 0.01 * decay(number)
    with ndl.no_grad():
        fake = generator(ndl.Tensor(noise(BATCH))).numpy()
    losses.append((step_d(real(BATCH), fake), step_g(noise(BATCH))))
    if number % max(1, STEPS // 5) == 0:
        print(f"step {number:5d}  discriminator {losses[-1][0]:.3f}  generator {losses[-1][1]:.3f}")

# %% [markdown]
# ## Compare

# %%
with ndl.no_grad():
    made = generator(ndl.Tensor(noise(20000))).numpy()
found, spread = made.mean(0), np.cov(made.T)
error_mean = np.linalg.norm(found - mean) / np.linalg.norm(mean)
error_covariance = np.linalg.norm(spread - covariance) / np.linalg.norm(covariance)
print("generated mean", found.round(3), "covariance", spread.round(3).tolist())
print(f"off by {100 * error_mean:.1f} % in the mean, {100 * error_covariance:.1f} % in the covariance")

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
left.plot([d for d, _ in losses], lw=0.5, label="discriminator")
left.plot([g for _, g in losses], lw=0.5, label="generator")
left.set_xlabel("step")
left.set_ylabel("loss")
left.legend()
truth = real(1000)
right.scatter(*truth.T, s=4, label="real")
right.scatter(*made[:1000].T, s=4, label="generated")
right.legend()
figure.tight_layout()
figure.savefig(PICTURE, dpi=120)
print(f"picture: {PICTURE}")
