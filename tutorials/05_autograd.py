# %% [markdown]
# # 5. Differentiation
#
# Four ways to the derivative of a function: by differences, forward, in reverse, and again. `frontend` builds gradients from
# the same operators as values, so that a gradient is itself a function that can be differentiated, traced and compiled.

# %%
import os

import numpy as np

import frontend as ndl
import tcomp
from frontend import nn, ops, optim

PICTURE = os.environ.get("TUTORIAL_PICTURE", "newton.png")
np.random.seed(0)

# %% [markdown]
# ## The function
#
# Rosenbrock's valley: its minimum lies at (1, 1), at the end of a long bent valley.


# %%
def rosenbrock(x: ndl.Tensor) -> ndl.Tensor:
    a, b = x[:-1], x[1:]
    return ((b - a * a) ** 2 * 100 + (1 - a) ** 2).sum()


at = np.array([-1.2, 1.0])
print(f"f = {rosenbrock(ndl.Tensor(at)).item():.4f}")

# %% [markdown]
# ## By differences
#
# (f(x + h) - f(x - h)) / 2h along each axis. Too large a step bends, too small a step rounds: near h = eps^(1/3) the error is
# least, about eps^(2/3).


# %%
def differences(h: float) -> np.ndarray:
    steps = np.eye(len(at)) * h
    return np.array(
        [(rosenbrock(ndl.Tensor(at + s)).item() - rosenbrock(ndl.Tensor(at - s)).item()) / (2 * h) for s in steps]
    )


exact = ndl.grad(rosenbrock)(at).numpy()
for h in (1e-1, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11):
    print(f"step {h:.0e}: error {np.abs(differences(h) - exact).max():.1e}")

# %% [markdown]
# ## In reverse
#
# One pass from the result back gives all partial derivatives: `backward` puts them into `.grad`, `grad` and `value_and_grad`
# are functions of functions. The cost is a small multiple of the function's, however many inputs there are.

# %%
x = ndl.Tensor(at)
rosenbrock(x).backward()
print("reverse:", x.grad.numpy())
value, slope = ndl.value_and_grad(rosenbrock)(at)
print("the same:", np.array_equal(slope.numpy(), x.grad.numpy()), "value", f"{value.item():.4f}")

# %% [markdown]
# ## Forward
#
# `jvp` pushes a direction through the function along with the value: one pass gives the derivative of all results along one
# direction. So forward is cheap for few inputs, reverse for few results; they agree on <gradient, direction>.

# %%
direction = np.array([1.0, 0.5])
_, along = ndl.jvp(rosenbrock, [at], [direction])
print(f"forward {along.item():.6f}, reverse {slope.numpy() @ direction:.6f}")

# %% [markdown]
# ## Again
#
# The gradient's derivative along a direction is a column of the Hessian times that direction: forward over reverse, without
# ever writing the Hessian down.

# %%
hessian = np.stack([ndl.hessian_vector_product(rosenbrock, at, e).numpy() for e in np.eye(len(at))])
print(np.round(hessian, 2))
print("symmetric:", np.allclose(hessian, hessian.T))

# %% [markdown]
# ## Check your own operator
#
# `gradcheck` compares with differences, second derivatives too. Here an operator whose gradient forgets a factor:


# %%
class Cube(ndl.TensorOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return a**3

    def gradient(self, out_grad: ndl.Tensor, node: ndl.Tensor) -> ndl.Tensor:
        return out_grad * node.inputs[0] ** 2


print("softmax:", ndl.gradcheck(lambda a: ops.softmax(a), [np.random.randn(3, 4)], second=True))
try:
    ndl.gradcheck(lambda a: Cube()(a), [np.array([2.0])])
except AssertionError as error:
    print("Cube:", error)

# %% [markdown]
# ## Newton's method
#
# Gradient descent follows the slope, and zigzags in the valley; Newton's method steps to the minimum of the parabola that has
# the same slope and Hessian. `optim.Newton` finds that step by conjugate gradients on Hessian-vector products.

# %%
p = nn.Parameter(at)
newton = optim.Newton([p], lambda: rosenbrock(p))
newton_losses = [newton.step() for _ in range(40)]
q = nn.Parameter(at)
descent = optim.GradientDescent([q], lr=1e-3)
descent_losses = []
for _ in range(len(newton_losses)):
    descent.reset_grad()
    loss = rosenbrock(q)
    loss.backward()
    descent.step()
    descent_losses.append(loss.item())
print(
    f"after {len(newton_losses)} steps: Newton {newton_losses[-1]:.1e} at {np.round(p.numpy(), 4)}, descent {descent_losses[-1]:.3f}"
)

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 4))
axes.semilogy(np.maximum(newton_losses, 1e-20), label="Newton")
axes.semilogy(descent_losses, label="gradient descent")
axes.set_xlabel("step")
axes.set_ylabel("f")
axes.legend()
figure.tight_layout()
figure.savefig(PICTURE, dpi=120)
print(f"picture: {PICTURE}")

# %% [markdown]
# ## A gradient is a graph
#
# It traces and compiles like any other function:

# %%
exe = tcomp.compile(ndl.trace(ndl.grad(rosenbrock), [at]))
print(exe)
print("compiled gradient agrees:", np.allclose(exe(at), exact))
