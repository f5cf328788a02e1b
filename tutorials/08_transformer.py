# %% [markdown]
# # 8. A small transformer that writes
#
# A decoder of a few layers, like GPT, learns the help texts that every Python carries, letter by letter; then it writes some.

# %%
import os
import time

import numpy as np

import frontend as ndl
import tcomp
from frontend import nn, optim, train
from frontend.data import Dictionary, python_topics
from frontend.models import LanguageModel

STEPS = int(os.environ.get("TUTORIAL_STEPS", "500"))
PICTURE = os.environ.get("TUTORIAL_PICTURE", "transformer.png")
CONTEXT, BATCH, WIDTH, LAYERS = 64, 16, 128, 3
ndl.init.seed(0)

# %%
text = python_topics()
letters = Dictionary(sorted(set(text)))
numbers = letters.encode(text)
cut = len(numbers) * 9 // 10
learned, kept = numbers[:cut], numbers[cut:]
share = np.bincount(learned, minlength=len(letters)) + 1.0
unigram = float(-np.log(share / share.sum())[kept].mean())
print(f"{len(text):,} letters; a unigram model loses {unigram:.3f} nats a letter")

# %% [markdown]
# ## The model
#
# Learned positions, causal attention, layers normalised before each part. Its sequences are (steps, batch).

# %%
model = LanguageModel(
    len(letters),
    WIDTH,
    4 * WIDTH,
    LAYERS,
    "transformer",
    num_head=4,
    dim_head=WIDTH // 4,
    dropout=0.05,
    sequence_len=CONTEXT,
)
print(f"{sum(p.size for p in model.parameters()):,} parameters")
for p in (model.embedding.weight, model.body.positions.embedding.weight):
    p.data = p.data * 0.1  # the course's tables start from N(0, 1), too loud beside the layers


def pieces(source: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random pieces of the text, and what follows each letter: (steps, batch)."""
    starts = rng.integers(0, len(source) - CONTEXT - 1, BATCH)
    rows = np.stack([source[s : s + CONTEXT + 1] for s in starts], axis=1)
    return rows[:-1], rows[1:]


def loss_of(model: nn.Module, x: ndl.Tensor, y: ndl.Tensor) -> ndl.Tensor:
    return nn.SoftmaxLoss()(model(x)[0], y)


rng = np.random.default_rng(0)
optimizer = optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
start = time.perf_counter()
step = train.compile_step(model, loss_of, optimizer, pieces(learned, rng))
print(f"compiled in {time.perf_counter() - start:.1f} s")

# %%
losses = []
start, decay = time.perf_counter(), optim.cosine(STEPS, STEPS // 10, 0.05)
for number in range(STEPS):
    optimizer.lr = 2e-3 * decay(number)
    losses.append(step(*pieces(learned, rng)))
    if number % max(1, STEPS // 6) == 0:
        print(f"step {number:5d}  loss {losses[-1]:.3f}")
print(f"{1e3 * (time.perf_counter() - start) / STEPS:.1f} ms a step")

# %% [markdown]
# ## Test

# %%
model.eval()
x, y = pieces(kept, rng)
exe = tcomp.compile(ndl.trace(lambda x: model(x)[0], [x]))
tested = []
for _ in range(20):
    x, y = pieces(kept, rng)
    logits = exe(x).astype(np.float64)
    top = logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(logits, y[..., None], -1)
    tested.append(float((np.log(np.exp(logits - top).sum(-1, keepdims=True)) + top - chosen).mean()))
test_loss = float(np.mean(tested))
print(f"test loss {test_loss:.3f}, {unigram - test_loss:.3f} nats a letter below the unigram model's {unigram:.3f}")

# %% [markdown]
# ## Let it write
#
# The model for one sequence, compiled; each new letter is drawn from its softmax, slightly sharpened.

# %%
one = tcomp.compile(ndl.trace(lambda x: model(x)[0], [x[:, :1]]))
written = list(letters.encode("The class statement"))
while len(written) < 300:
    window = np.zeros((CONTEXT, 1), np.int64)
    recent = written[-CONTEXT:]
    window[: len(recent), 0] = recent
    last = one(window)[len(recent) - 1, 0].astype(np.float64) / 0.7
    chance = np.exp(last - last.max())
    written.append(int(rng.choice(len(letters), p=chance / chance.sum())))
print("sample:", "".join(letters.decode(written)))

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 4))
axes.plot(losses, lw=0.6, label="training")
axes.axhline(unigram, color="black", ls="--", label="unigram model")
axes.axhline(test_loss, color="tab:red", ls=":", label="test")
axes.set_xlabel("step")
axes.set_ylabel("nats a letter")
axes.legend()
figure.tight_layout()
figure.savefig(PICTURE, dpi=120)
print(f"picture: {PICTURE}")
