# %% [markdown]
# # 4. Four ways to convolve
#
# One layer, 3 x 3 over 56 x 56 x 64 to 64 channels as in the first stage of ResNet, computed in four ways: directly, as a
# matrix product over gathered columns (im2col), in a layout of blocked channels, and by Winograd's minimal filtering. Each way
# is a tensor expression and a few lines of schedule; nothing here is built into the compiler.

# %%
import os

import numpy as np

import tcomp
from tcomp import te
from tcomp.schedule import library

SIZE = 56 if int(os.environ.get("TUTORIAL_SIZE", "56")) == 56 else 16
REPEAT = int(os.environ.get("TUTORIAL_REPEAT", "60"))
H = W = SIZE
CI = CO = 64
target = tcomp.Target.parse("cpu")
LANES = target.lanes(4)
FLOPS = 2 * H * W * CI * CO * 9

rng = np.random.default_rng(0)
x = rng.standard_normal((H, W, CI)).astype("float32")
w = rng.standard_normal((3, 3, CI, CO)).astype("float32")
padded = np.pad(x.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
reference = sum(
    np.tensordot(padded[i : i + H, j : j + W], w[i, j].astype(np.float64), 1) for i in range(3) for j in range(3)
)
runs: dict[str, tuple] = {}


def measure(name: str, sch: tcomp.Schedule, *inputs: np.ndarray, back=lambda y: y) -> None:
    """Compile, check against float64, time. GFLOP/s count the operations of the direct way, so that they compare."""
    exe = tcomp.compile(sch, num_threads=target.num_cores)
    error = np.sqrt(np.square(back(exe(*inputs)) - reference).sum() / np.square(reference).sum())
    assert error < 1e-5, error
    best = exe.time(*inputs, repeat=REPEAT, warmup=3).best
    runs[name] = exe, inputs
    print(f"{name:<10} {1e3 * best:7.3f} ms  {FLOPS / best / 1e9:7.1f} GFLOP/s   error {error:.1e}")


def padding(X: te.Tensor) -> te.Tensor:
    """The image with a border of zeros."""
    inside = lambda y, z: (y >= 1) & (y <= H) & (z >= 1) & (z <= W)
    return te.compute((H + 2, W + 2, CI), lambda y, z, c: te.select(inside(y, z), X[y - 1, z - 1, c], 0.0), name="pad")


X, F = te.placeholder((H, W, CI), name="X"), te.placeholder((3, 3, CI, CO), name="F")
ry, rx, rc = te.reduce_axis(3, "ry"), te.reduce_axis(3, "rx"), te.reduce_axis(CI, "rc")

# %% [markdown]
# ## Direct
#
# A register tile of some pixels of a row and some vectors of channels; the padded rows that a row of tiles reads are copied first.

# %%
P = padding(X)
Y = te.compute(
    (H, W, CO), lambda y, z, o: te.sum(P[y + ry, z + rx, rc] * F[ry, rx, rc, o], axis=[ry, rx, rc]), name="Y"
)
func = te.create_prim_func([X, F, Y], "direct")

VECTORS = 4 if target.num_registers >= 32 else 2
PIXELS = (target.num_registers - VECTORS - 1) // VECTORS  # sums, one row of weights, one pixel fit the registers


def direct() -> tcomp.Schedule:
    sch = tcomp.Schedule(func)
    tile = library.register_tile(sch, "Y", [PIXELS], VECTORS, LANES, last_outside=False)
    sch.compute_at("pad", tile.outer[0])
    library.vectorize_innermost(sch, "pad", LANES, 1)
    sch.parallel(tile.outer[0])
    return sch


measure("direct", direct(), x, w)

# %% [markdown]
# ## im2col
#
# Each pixel's window becomes a row of a matrix; then the layer is a matrix product. The matrix would be nine times the image:
# `compute_at` makes only the rows at hand.

# %%
P = padding(X)
G = te.compute(
    (H * W, 9 * CI),
    lambda p, k: P[p // W + k // (3 * CI), p % W + k // CI % 3, k % CI],
    name="columns",
)
K = te.placeholder((9 * CI, CO), name="K")
k = te.reduce_axis(9 * CI, "k")
Y2 = te.compute((H * W, CO), lambda p, o: te.sum(G[p, k] * K[k, o], axis=k), name="Y")
func2 = te.create_prim_func([X, K, Y2], "im2col")


def im2col() -> tcomp.Schedule:
    sch = tcomp.Schedule(func2)
    sch.compute_inline("pad")
    write = sch.cache_write("Y", 0, "local")
    pixels, _ = sch.get_loops(write)
    block, _ = sch.split(pixels, [None, W])  # a row of the image at a time
    _, inner, channels = sch.get_loops(write)
    tiles, rows = sch.split(inner, [None, PIXELS])
    column, vector, lane = sch.split(channels, [None, VECTORS, LANES])
    sch.reorder(block, column, tiles, rows, vector, lane)
    sch.compute_at("Y", tiles)
    library.accumulate_tile(sch, "Y", 3, VECTORS, LANES)
    library.unroll_and_vectorize(sch, [rows, vector, lane])
    sch.compute_at("columns", block)
    library.vectorize_innermost(sch, "columns", LANES, 1)
    sch.parallel(block)
    return sch


measure("im2col", im2col(), x, w.reshape(9 * CI, CO), back=lambda y: y.reshape(H, W, CO))

# %% [markdown]
# ## Blocked channels
#
# Channels in groups of one vector, image and weights alike, as vendor libraries keep them between layers: every load of the
# inner loops is one whole vector of neighbours.

# %%
XB = te.placeholder((CI // LANES, H, W, LANES), name="X")
FB = te.placeholder((CO // LANES, CI // LANES, 3, 3, LANES, LANES), name="F")
rb, rl = te.reduce_axis(CI // LANES, "rb"), te.reduce_axis(LANES, "rl")
PB = te.compute(
    (CI // LANES, H + 2, W + 2, LANES),
    lambda b, y, z, c: te.select((y >= 1) & (y <= H) & (z >= 1) & (z <= W), XB[b, y - 1, z - 1, c], 0.0),
    name="pad",
)
YB = te.compute(
    (CO // LANES, H, W, LANES),
    lambda o, y, z, c: te.sum(PB[rb, y + ry, z + rx, rl] * FB[o, rb, ry, rx, rl, c], axis=[rb, ry, rx, rl]),
    name="Y",
)
func3 = te.create_prim_func([XB, FB, YB], "blocked")


def blocked() -> tcomp.Schedule:
    sch = tcomp.Schedule(func3)
    write = sch.cache_write("Y", 0, "local")
    o, y, z, lane = sch.get_loops(write)
    group, o1 = sch.split(o, [None, VECTORS])
    z0, z1 = sch.split(z, [None, PIXELS])
    sch.reorder(y, group, z0, z1, o1, lane)
    sch.compute_at("Y", z0)
    loops = sch.get_loops("Y")
    sums, (co, cz, clane) = loops[-4:], loops[3:6]
    sch.reorder(*sums, cz, co, clane)
    init = sch.decompose_reduction("Y", sums[0])
    for tile in ([cz, co, clane], sch.get_loops(init)[3:], [z1, o1, lane]):
        library.unroll_and_vectorize(sch, tile)
    sch.compute_at("pad", y)
    library.vectorize_innermost(sch, "pad", LANES, 1)
    sch.parallel(y)
    return sch


block = lambda a: np.ascontiguousarray(a.reshape(H, W, CI // LANES, LANES).transpose(2, 0, 1, 3))
w_blocked = np.ascontiguousarray(w.reshape(3, 3, CI // LANES, LANES, CO // LANES, LANES).transpose(4, 2, 0, 1, 3, 5))
measure("blocked", blocked(), block(x), w_blocked, back=lambda y: y.transpose(1, 2, 0, 3).reshape(H, W, CO))

# %% [markdown]
# ## Winograd
#
# F(4 x 4, 3 x 3): 36 products give 16 outputs, where the direct way takes 144 (Winograd 1980; Lavin, Gray, CVPR 2016). The
# image's tiles and the weights are transformed (B^T d B, G g G^T), multiplied point by point, summed over the channels, which
# is 36 matrix products, and transformed back (A^T m A). The weights' transform belongs to the model, not to its run. The
# rounding error is larger than the direct way's, by about a factor of ten.
#
# The transforms are linear combinations with few terms. `combine` writes one for each value of an index; when the loop over the
# index is unrolled, only that one is left.

# %%
BT = [
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
]
GT = np.array(
    [(1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)]
)  # fmt: skip
AT = [(1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)]
TH = TW = SIZE // 4


def combine(index, table: list[tuple[int, ...]], term):
    """The sum of table[index][n] * term(n) over n."""
    sums = []
    for row in table:
        terms = [term(n) if c == 1 else term(n) * float(c) for n, c in enumerate(row) if c]
        sums.append(sum(terms[1:], terms[0]))
    result = sums[-1]
    for n in range(len(sums) - 2, -1, -1):
        result = te.select(te.equal(index, n), sums[n], result)
    return result


P = padding(X)
U = te.placeholder((6, 6, CI, CO), name="U")
D = te.compute((6, 6, TH, TW, CI), lambda a, j, t, s, c: combine(a, BT, lambda n: P[t * 4 + n, s * 4 + j, c]), name="D")
V = te.compute((6, 6, TH, TW, CI), lambda a, b, t, s, c: combine(b, BT, lambda n: D[a, n, t, s, c]), name="V")
c = te.reduce_axis(CI, "c")
M = te.compute((6, 6, TH, TW, CO), lambda a, b, t, s, o: te.sum(V[a, b, t, s, c] * U[a, b, c, o], axis=c), name="M")
Z = te.compute((4, 6, TH, TW, CO), lambda p, b, t, s, o: combine(p, AT, lambda n: M[n, b, t, s, o]), name="Z")
YW = te.compute((H, W, CO), lambda y, z, o: combine(z % 4, AT, lambda n: Z[y % 4, n, y // 4, z // 4, o]), name="Y")
func4 = te.create_prim_func([X, U, YW], "winograd")


def winograd() -> tcomp.Schedule:
    sch = tcomp.Schedule(func4)
    y, z, o = sch.get_loops("Y")
    row, p = sch.split(y, [None, 4])
    tile, q = sch.split(z, [None, 4])
    group, lane = sch.split(o, [None, LANES])
    sch.reorder(row, tile, group, p, q, lane)
    sch.compute_at("Z", group)
    library.unroll_and_vectorize(sch, [p, q, lane])
    library.unroll_and_vectorize(sch, sch.get_loops("Z")[3:])
    # the 36 products of a row of tiles, each over all channels
    sch.compute_at("M", row)
    columns = 2
    _, a, b, s, co, ci = sch.get_loops("M")
    half, vector, mlane = sch.split(co, [None, columns, LANES])
    s0, s1 = sch.split(s, [None, min(TW, 14)])
    sch.reorder(a, b, half, s0, ci, s1, vector, mlane)
    init = sch.decompose_reduction("M", ci)
    library.unroll_and_vectorize(sch, [s1, vector, mlane])
    library.unroll_and_vectorize(sch, sch.get_loops(init)[-3:])
    # the transforms of the image, a vector of channels at a time
    sch.compute_at("V", row)
    _, va, vb, vs, vc = sch.get_loops("V")
    channels, vlane = sch.split(vc, [None, LANES])
    sch.reorder(vs, channels, va, vb, vlane)
    sch.compute_at("D", channels)
    library.unroll_and_vectorize(sch, [va, vb, vlane])
    library.unroll_and_vectorize(sch, sch.get_loops("D")[3:])
    sch.compute_at("pad", row)
    library.vectorize_innermost(sch, "pad", LANES, 1)
    sch.parallel(row)
    return sch


u = np.einsum("ai,ijco,bj->abco", GT, w.astype(np.float64), GT).astype("float32")
sch = winograd()
print(sch)
measure("winograd", sch, x, u)

# %% [markdown]
# ## What each way is worth
#
# In turns, so that all see the same machine; the medians of many turns.

# %%
turns: dict[str, list[float]] = {name: [] for name in runs}
for _ in range(20):
    for name, (exe, inputs) in runs.items():
        turns[name].append(exe.time(*inputs, repeat=max(REPEAT // 10, 1), warmup=1).best)
medians = {name: float(np.median(seconds)) for name, seconds in turns.items()}
print()
for name, seconds in medians.items():
    print(f"{name:<10} {1e3 * seconds:7.3f} ms   {medians['direct'] / seconds:5.2f} times as fast as direct")
print(f"winograd is {medians['direct'] / medians['winograd']:.2f} times faster than direct")
