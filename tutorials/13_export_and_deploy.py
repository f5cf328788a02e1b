# %% [markdown]
# # 13. Export and deploy
#
# A compiled model leaves: as a shared library for C programs and for bare Python, as an object file for CMake, as C source, for another
# architecture, as a web page. A training step leaves as well. docs/deploy.md describes the interface.

# %%
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import frontend as ndl
import tcomp
from frontend import nn, optim, train
from frontend.data import DataLoader, DigitsDataset
from frontend.models import digits_cnn

EPOCHS = int(os.environ.get("TUTORIAL_EPOCHS", "20"))
HERE = Path(__file__).parent / "deploy" if "__file__" in globals() else Path("tutorials/deploy")
out = Path(tempfile.mkdtemp(prefix="tcomp-deploy-"))
ndl.init.seed(0)


def run(*words: object, **how: object) -> str:
    """A command's output, in the folder of the exported files."""
    return subprocess.run(list(map(str, words)), cwd=out, check=True, stdout=subprocess.PIPE, **how).stdout.decode()


# %% [markdown]
# ## A model
#
# The digits CNN of the other tutorials, trained for a moment.

# %%
training, test = DigitsDataset(train=True), DigitsDataset(train=False)
model = digits_cnn()
optimizer = optim.AdamW(model.parameters(), 6e-3, weight_decay=0.1)
loader = DataLoader(training, 64, shuffle=True, drop_last=True, seed=0)
step = train.compile_step(model, nn.SoftmaxLoss(), optimizer, next(loader.batches(0)))
train.fit(step, loader, EPOCHS)
images, labels = (np.stack(x) for x in zip(*(test[i] for i in range(40))))
images = images.astype(np.float32)
exe = tcomp.compile(model.eval(), [images[:1]])
print("read:   ", "".join(str(exe(x[None])[0].argmax()) for x in images))
print("written:", "".join(map(str, labels)))

# %% [markdown]
# ## A shared library
#
# One file, weights inside, and a header. It holds code for this CPU and for older ones; which of them runs is decided when it starts.

# %%
for file in exe.export(out / "libdigits.so", name="digits"):
    print(f"{file.name}: {file.stat().st_size:,} bytes")

# %% [markdown]
# A C program needs nothing but these two. `digits_init` makes a context (it refuses a CPU that is too old), `digits_run` runs the model.

# %%
print((HERE / "main.c").read_text())
run("cc", "-O2", "-o", "main", HERE / "main.c", "-I.", "-L.", "-ldigits", "-Wl,-rpath,$ORIGIN")
print("C reads:", run("./main", input=images.tobytes()))

# %% [markdown]
# Bare Python loads it, too; NumPy is all that this needs.

# %%
BARE = """
import sys, time
for name in ("llvmlite", "networkx", "islpy", "typer", "rich"):
    sys.modules[name] = None
import numpy as np
start = time.perf_counter()
import tcomp
exe = tcomp.load("libdigits.so")
x = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape(-1, 1, 1, 8, 8)
print("".join(str(exe(i)[0].argmax()) for i in x), f"after {time.perf_counter() - start:.3f} s")
"""
env = {**os.environ, "PYTHONPATH": str(Path(tcomp.__file__).parents[1])}
print("bare Python reads:", run(sys.executable, "-c", BARE, input=images.tobytes(), env=env))

# %% [markdown]
# The file tells what it is, and what takes its bytes (`tcomp inspect`, `tcomp size`); `tcomp verify` runs the example that it holds.

# %%
print(run(sys.executable, "-m", "tcomp.cli", "inspect", "libdigits.so", env=env))
print(run(sys.executable, "-m", "tcomp.cli", "size", "libdigits.so", "--top", "3", env=env))
print(run(sys.executable, "-m", "tcomp.cli", "verify", "libdigits.so", env=env))

# %% [markdown]
# ## An object file, with CMake
#
# For a program that should be one file. Several models can be linked together: all names begin with the model's.

# %%
print((HERE / "CMakeLists.txt").read_text())
if shutil.which("cmake") and shutil.which("objcopy"):
    exe.export(out / "digits.o", format="object")
    run("cmake", "-S", HERE, "-B", "build", f"-DMODEL_FOLDER={out}", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", "build")
    print("CMake's program reads:", run("build/recognise", input=images.tobytes()))
else:
    print("no cmake here")

# %% [markdown]
# ## C source
#
# For compilers that LLVM does not serve: the schedules, written in C99, with GCC's vectors where the compiler has them. And to read: this is what
# became of a layer.

# %%
exe.export(out / "digits.c", format="c")
run("cc", "-O3", "-march=native", "-w", "-o", "from_source", HERE / "main.c", "digits.c", "digits_data.c", "-I.", "-lm")
print("the C source reads:", run("./from_source", input=images.tobytes()))
kernel = exe.program.kernels[-1].name
print("\n".join(exe.ir("c", kernel).splitlines()[:16]))

# %% [markdown]
# ## Another architecture
#
# The same model for a small board with an ARM core; QEMU stands for the board.

# %%
arm = tcomp.compile(model, [images[:1]], target="llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a76")
if shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64"):
    (out / "arm").mkdir()
    arm.export(out / "arm" / "libdigits.so", name="digits")
    run(
        "aarch64-linux-gnu-gcc",
        "-O2",
        "-o",
        "arm/main",
        HERE / "main.c",
        "-Iarm",
        "-Larm",
        "-ldigits",
        "-Wl,-rpath,$ORIGIN",
    )
    print("ARM reads:", run("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "arm/main", input=images.tobytes()))
else:
    print("no cross compiler, or no QEMU here: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user")

# %% [markdown]
# ## Training without Python
#
# `step.export` writes the whole step: forward, backward, optimizer. It keeps parameters, moments and the count of steps, saves them to a
# safetensors file, and goes on from there, whatever ended it. `step.export_model` writes the model with parameters that can be set.

# %%
ndl.init.seed(0)
fresh = digits_cnn()
step = train.compile_step(
    fresh, nn.SoftmaxLoss(), optim.AdamW(fresh.parameters(), 6e-3, weight_decay=0.1), next(loader.batches(0))
)
step.export(out / "libstep.so", name="step")
step.export_model(out / "libnet.so", [images[:1]], name="net")
for name, found in (("train", training), ("test", test)):
    x, y = zip(*(found[i] for i in range(len(found))))
    np.stack(x).astype(np.float32).tofile(out / f"{name}_x.bin")
    np.asarray(y, np.int64).tofile(out / f"{name}_y.bin")
run("cc", "-O2", "-o", "train", HERE / "train.c", "-I.", "-L.", "-lstep", "-lnet", "-Wl,-rpath,$ORIGIN", "-lm")
start = time.perf_counter()
told = run("./train", ".", EPOCHS).splitlines()
print(
    f"{len(told) - 1} steps in C, {time.perf_counter() - start:.1f} s: loss {told[0].split()[1]} -> {told[-2].split()[1]}; {told[-1]}"
)
step.load(out / "state.safetensors")
print(f"Python goes on from step {step.steps}")

# %% [markdown]
# ## A web page
#
# `make web` (it needs the package ziglang: `pip install "tcomp[deploy]"`) trains the network, compiles it to WebAssembly and puts it into a
# page that recognises digits while you draw: tutorials/web, a picture of it is docs/images/digits.png.

# %%
shutil.rmtree(out)
