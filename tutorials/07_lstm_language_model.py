# %% [markdown]
# # 7. A recurrent language model
#
# An LSTM reads the help texts that every Python carries, letter by letter, and learns to guess the next one. It is trained by
# truncated back-propagation through time: the text is cut into short pieces, gradients stop at their ends, and the state is
# carried over.

# %%
import os
import time

import numpy as np

import frontend as ndl
import tcomp
from frontend import nn, optim, train
from frontend.data import Dictionary, batchify, get_batch, python_topics
from frontend.models import LanguageModel

STEPS = int(os.environ.get("TUTORIAL_STEPS", "600"))
PICTURE = os.environ.get("TUTORIAL_PICTURE", "lstm.png")
BPTT, BATCH, HIDDEN = 35, 32, 192
ndl.init.seed(0)

# %% [markdown]
# ## Text
#
# The last tenth is kept for the test. A model that only knows how often each letter stands in the text (a unigram model) loses
# the text's entropy: the mark to beat.

# %%
text = python_topics()
letters = Dictionary(sorted(set(text)))
numbers = letters.encode(text)
cut = len(numbers) * 9 // 10
learned, kept = numbers[:cut], numbers[cut:]
share = np.bincount(learned, minlength=len(letters)) + 1.0
unigram = float(-np.log(share / share.sum())[kept].mean())
print(f"{len(text):,} letters, {len(letters)} of them different; a unigram model loses {unigram:.3f} nats a letter")

# %% [markdown]
# ## The step
#
# The loss function returns the state behind the last letter, too, cut off from the graph; each step hands it to the next.


# %%
def loss_of(model: nn.Module, x: ndl.Tensor, h: ndl.Tensor, c: ndl.Tensor, y: ndl.Tensor) -> tuple:
    logits, (h, c) = model(x, (h, c))
    return nn.SoftmaxLoss()(logits, y), h.detach(), c.detach()


model = LanguageModel(len(letters), 48, HIDDEN, kind="lstm")
optimizer = optim.Adam(model.parameters(), 4e-3)
columns = batchify(learned, BATCH)
zeros = np.zeros((1, BATCH, HIDDEN), "float32")


def piece(i: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = get_batch(columns, i, BPTT)
    return x.numpy(), y.numpy().reshape(x.shape)


x, y = piece(0)
start = time.perf_counter()
step = train.compile_step(model, loss_of, optimizer, (x, zeros, zeros, y))
print(f"compiled in {time.perf_counter() - start:.1f} s")

# %%
losses: list[float] = []
h = c = zeros
start, decay = time.perf_counter(), optim.cosine(STEPS, STEPS // 20)
for number in range(STEPS):
    place = number * BPTT % (len(columns) - BPTT - 1)
    x, y = piece(place)
    optimizer.lr = 4e-3 * decay(number)
    loss, h, c = step(x, h, c, y)
    losses.append(loss)
    if number % max(1, STEPS // 6) == 0:
        print(f"step {number:5d}  loss {loss:.3f}")
print(f"{1e3 * (time.perf_counter() - start) / STEPS:.1f} ms a step")

# %% [markdown]
# ## Test
#
# On text that it has not seen, in one native call for each piece.

# %%
model.eval()
test_columns = batchify(kept, BATCH)
x, y = get_batch(test_columns, 0, BPTT)
exe = tcomp.compile(ndl.trace(lambda x, h, c: model(x, (h, c)), [x.numpy(), zeros, zeros]))
h = c = zeros
total = count = 0.0
for i in range(0, len(test_columns) - BPTT - 1, BPTT):
    x, y = get_batch(test_columns, i, BPTT)
    logits, h, c = (np.array(a) for a in exe(x.numpy(), h, c))
    wide = logits.reshape(-1, len(letters)).astype(np.float64)
    chosen = wide[np.arange(len(wide)), y.numpy()]
    total += float((np.log(np.exp(wide - wide.max(1, keepdims=True)).sum(1)) + wide.max(1) - chosen).sum())
    count += len(wide)
tested = total / count
print(f"test loss {tested:.3f}, {unigram - tested:.3f} nats a letter below the unigram model's {unigram:.3f}")

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 4))
axes.plot(losses, lw=0.6, label="training")
axes.axhline(unigram, color="black", ls="--", label="unigram model")
axes.axhline(tested, color="tab:red", ls=":", label="test")
axes.set_xlabel("step")
axes.set_ylabel("nats a letter")
axes.legend()
figure.tight_layout()
figure.savefig(PICTURE, dpi=120)
print(f"picture: {PICTURE}")
