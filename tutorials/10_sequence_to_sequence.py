# %% [markdown]
# # 10. From one sequence to another
#
# People write a day in many ways: "7 March 1987", "Mar 7, 87", "07.03.1987". An encoder reads such a text, a decoder writes the
# day as 1987-03-07, letter by letter, and attention tells it where in the text to look (D. Bahdanau et al., 2014).

# %%
import datetime
import os
import time

import numpy as np

import frontend as ndl
import tcomp
from frontend import nn, ops, optim, train
from frontend.data import Dictionary

STEPS = int(os.environ.get("TUTORIAL_STEPS", "1200"))
PICTURE = os.environ.get("TUTORIAL_PICTURE", "sequence_to_sequence.png")
READ, WRITE, BATCH, WIDTH = 20, 10, 64, 64
ndl.init.seed(0)

# %% [markdown]
# ## The data
#
# Every day of a hundred years in one of nine ways; a tenth of the days is kept for the test. "#" fills up a text, "^" starts the answer.

# %%
FORMS = (
    "%d %B %Y",
    "%B %d, %Y",
    "%d %b %y",
    "%b %d, %y",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%Y %b %d",
    "%a %d %b %Y",
    "%d-%m-%Y",
)
first = datetime.date(1950, 1, 1)
days = [first + datetime.timedelta(n) for n in range(100 * 365)]
letters = Dictionary(
    ["#", "^", *sorted({c for d in days[:400] for f in FORMS for c in d.strftime(f)} | set("-0123456789"))]
)
rng = np.random.default_rng(0)
rng.shuffle(days)
kept, learned = days[: len(days) // 10], days[len(days) // 10 :]


def pairs(source: list[datetime.date], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts (READ, count), the answers as the decoder sees them (WRITE, count), and as it should write them."""
    chosen = [source[i] for i in rng.integers(0, len(source), count)]
    texts = [d.strftime(FORMS[rng.integers(len(FORMS))])[:READ].ljust(READ, "#") for d in chosen]
    answers = [d.isoformat() for d in chosen]
    text, answer = (np.stack([letters.encode(t) for t in many], axis=1) for many in (texts, answers))
    begin = np.full((1, count), letters.encode("^")[0])
    return text, np.concatenate([begin, answer[:-1]]), answer


text, seen, answer = pairs(learned, 3)
for n in range(3):
    print(f"{''.join(letters.decode(text[:, n])):22s} -> {''.join(letters.decode(answer[:, n]))}")

# %% [markdown]
# ## The model
#
# A GRU reads in both directions. Another one writes: its states are the queries, the encoder's results are keys and values of
# attention. While it learns, the decoder sees the right letters so far ("teacher forcing"), so all its steps are computed at once.


# %%
class Translator(nn.Module):
    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.read_letters = nn.Embedding(symbols, width)
        self.write_letters = nn.Embedding(symbols, width)
        self.encoder = nn.GRU(width, width // 2, bidirectional=True)
        self.decoder = nn.GRU(width, width)
        self.join = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, symbols)

    def forward(self, text: ndl.Tensor, seen: ndl.Tensor) -> tuple[ndl.Tensor, ndl.Tensor]:
        """Logits (written, n, symbols), and where each step looked (n, written, read)."""
        read, ends = self.encoder(self.read_letters(text))
        start = ops.reshape(ops.permute(ends, (1, 0, 2)), (1, text.shape[1], WIDTH))
        written, _ = self.decoder(self.write_letters(seen), start)
        keys, queries = (ops.permute(x, (1, 0, 2)) for x in (read, written))
        weights = ops.attention_weights(queries, keys)
        found = ops.permute(ops.matmul(weights, keys), (1, 0, 2))
        return self.head(ops.tanh(self.join(ops.concat([written, found], -1)))), weights


def loss_of(model: nn.Module, text: ndl.Tensor, seen: ndl.Tensor, answer: ndl.Tensor) -> ndl.Tensor:
    return nn.SoftmaxLoss()(model(text, seen)[0], answer)


model = Translator(len(letters), WIDTH)
print(f"{sum(p.size for p in model.parameters()):,} parameters")
optimizer = optim.Adam(model.parameters(), 4e-3)
start = time.perf_counter()
step = train.compile_step(model, loss_of, optimizer, pairs(learned, BATCH), clip_norm=1.0)
print(f"compiled in {time.perf_counter() - start:.1f} s")

# %%
losses = []
start, decay = time.perf_counter(), optim.cosine(STEPS, STEPS // 10, 0.02)
for number in range(STEPS):
    optimizer.lr = 4e-3 * decay(number)
    losses.append(step(*pairs(learned, BATCH)))
    if number % max(1, STEPS // 6) == 0:
        print(f"step {number:5d}  loss {losses[-1]:.3f}")
print(f"{1e3 * (time.perf_counter() - start) / STEPS:.1f} ms a step")

# %% [markdown]
# ## Test
#
# Nobody tells the decoder now: what it wrote is what it sees next. A day counts only where all ten letters are right.

# %%
model.eval()
TESTED = 256
text, seen, answer = pairs(kept, TESTED)
exe = tcomp.compile(ndl.trace(model, [text, seen]))
own = np.zeros_like(seen)
own[0] = seen[0]
for place in range(WRITE):
    logits, weights = exe(text, own)
    if place + 1 < WRITE:
        own[place + 1] = logits[place].argmax(-1)
written = logits.argmax(-1)
right = float((written == answer).all(axis=0).mean())
for n in range(5):
    print(f"{''.join(letters.decode(text[:, n])):22s} -> {''.join(letters.decode(written[:, n]))}")
print(f"{100 * right:.1f} % of the days that it never saw are right")
print(
    f"{100 * float((written == answer).mean()):.1f} % of their letters are right, by chance {100 / len(letters):.1f} %"
)

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

figure, (left, below) = plt.subplots(1, 2, figsize=(10, 4))
left.semilogy(losses, lw=0.6)
left.set_xlabel("step")
left.set_ylabel("nats a letter")
below.imshow(weights[0], cmap="Greys")
below.set_xticks(range(READ), letters.decode(text[:, 0]))
below.set_yticks(range(WRITE), letters.decode(written[:, 0]))
below.set_title("where each letter was looked up")
figure.tight_layout()
figure.savefig(PICTURE, dpi=120)
print(f"picture: {PICTURE}")
