"""Exported models: how large they are, how fast they load and run beside the Executable that they came from, and whether results agree.

python -m benchmarks.exports [--models digits_cnn,resnet18] [--formats shared,python,object,c,wasm,chromium] [--threads 1] [--foreign] [--web FOLDER]

Every side is a program of its own, which loads the model, writes its results to files, says how long loading took, and then, asked for N
calls, says how long one took; sides take turns. `python` is tcomp.load; `chromium`, in a browser, runs what `wasm` wrote. --foreign adds shared libraries for aarch64 and riscv64 under
QEMU (results alone: an emulator's times say nothing). --web names a folder in which `npm install onnxruntime-web` was run.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import frontend as ndl
import tcomp
from frontend.models import digits_cnn
from tcomp.cli.bench import relative_error
from tcomp.export.wasm import TARGET as WASM
from tcomp.runtime.executable import Executable

from . import zoo
from .browser import Browser, served

OUT = Path(__file__).parent / "out"
MODELS = ("digits_cnn", "resnet18", "minilm_32", "lstm_100", "ocr_recogniser")
FORMATS = ("shared", "python", "object", "c", "wasm", "chromium")
FOREIGN = ("aarch64", "riscv64")
_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "model.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* program THREADS WEIGHTS|- BYTES...: sizes of inputs, then of results */
int main(int argc, char **argv) {
  const void *inputs[MODEL_NUM_INPUTS + 1];
  void *outputs[MODEL_NUM_OUTPUTS];
  char name[64];
  double start = now(), error = -1;
  model_context *model;
  int code = model_init(&model, strcmp(argv[2], "-") ? argv[2] : NULL, atoi(argv[1]));
  double loaded = now();
  if (!code) code = model_selftest(model, &error);
  for (int i = 0; i < argc - 3; i++) {
    size_t size = strtoull(argv[3 + i], 0, 10);
    char *data = aligned_alloc(64, (size + 64) / 64 * 64);
    if (i >= MODEL_NUM_INPUTS) {
      outputs[i - MODEL_NUM_INPUTS] = data;
      continue;
    }
    snprintf(name, sizeof name, "in%d.bin", i);
    FILE *f = fopen(name, "rb");
    if (fread(data, 1, size, f) != size) return 1;
    fclose(f);
    inputs[i] = data;
  }
  void *workspace = aligned_alloc(64, (model_workspace_bytes(model) + 64) / 64 * 64);
  double first = now();
  if (!code) code = model_run(model, inputs, outputs, workspace);
  first = now() - first;
  for (int i = 0; i < MODEL_NUM_OUTPUTS; i++) {
    snprintf(name, sizeof name, "%s_out%d.bin", argv[0] + 2, i);
    FILE *f = fopen(name, "wb");
    fwrite(outputs[i], 1, strtoull(argv[3 + MODEL_NUM_INPUTS + i], 0, 10), f);
    fclose(f);
  }
  printf("{\"load_ms\": %.3f, \"first_ms\": %.3f, \"selftest\": %.3g, \"code\": %d}\n", 1e3 * (loaded - start), 1e3 * first, error, code);
  fflush(stdout);
  for (int calls; scanf("%d", &calls) == 1; fflush(stdout)) {
    for (int i = 0; i < calls / 4 + 2; i++) model_run(model, inputs, outputs, workspace);
    start = now();
    for (int i = 0; i < calls; i++) model_run(model, inputs, outputs, workspace);
    printf("%.9g\n", (now() - start) / calls);
  }
  model_free(model);
  return 0;
}
"""
_PYTHON = r"""
import sys, time
import numpy as np
import tcomp
what, file, dims, threads = sys.argv[1:5]
inputs = [np.load(f"in{i}.npy") for i in range(int(sys.argv[5]))]
start = time.perf_counter()
if what == "executable":
    exe = tcomp.compile(file, inputs, num_threads=int(threads)) if file.endswith(".onnx") else __import__("benchmarks.exports").exports.digits(int(threads))
else:
    exe = tcomp.load(file, num_threads=int(threads))
loaded = time.perf_counter() - start
start = time.perf_counter()
found = exe(*inputs)
first = time.perf_counter() - start
for i, a in enumerate(found if isinstance(found, tuple) else (found,)):
    a.tofile(f"{what}_out{i}.bin")
print('{"load_ms": %.3f, "first_ms": %.3f}' % (1e3 * loaded, 1e3 * first), flush=True)
out = tuple(np.empty_like(a) for a in found) if isinstance(found, tuple) else np.empty_like(found)
for line in sys.stdin:
    calls = int(line)
    for _ in range(calls // 4 + 2):
        exe(*inputs, out=out)
    start = time.perf_counter()
    for _ in range(calls):
        exe(*inputs, out=out)
    print((time.perf_counter() - start) / calls, flush=True)
"""
_NODE = r"""
import fs from "node:fs";
import readline from "node:readline";
const kinds = { float32: Float32Array, int64: BigInt64Array };
const shapes = JSON.parse(fs.readFileSync("inputs.json"));
const read = (i, kind) => new kinds[kind](Uint8Array.from(fs.readFileSync(`in${i}.bin`)).buffer);
let start = performance.now(), run, told = {};
if (process.argv[2] === "wasm") {
  const { load } = await import(process.cwd() + "/model.mjs");
  const model = await load();
  told.load_ms = performance.now() - start;
  told.selftest = model.selftest();
  const inputs = Object.fromEntries(shapes.map((s, i) => [s.name, read(i, s.dtype)]));
  run = async () => Object.values(model.run(inputs));
} else {
  const { createRequire } = await import("node:module");
  const ort = createRequire(process.argv[3] + "/node_modules/")("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(process.argv[4], { executionProviders: ["wasm"] });
  told.load_ms = performance.now() - start;
  const feeds = Object.fromEntries(shapes.map((s, i) => [s.name, new ort.Tensor(s.dtype, read(i, s.dtype), s.shape)]));
  run = async () => Object.values(await session.run(feeds)).map((t) => t.data);
}
start = performance.now();
const found = await run();
told.first_ms = performance.now() - start;
found.forEach((a, i) => fs.writeFileSync(`${process.argv[2]}_out${i}.bin`, new Uint8Array(a.buffer, a.byteOffset, a.byteLength)));
console.log(JSON.stringify(told));
for await (const line of readline.createInterface({ input: process.stdin })) {
  const calls = Number(line);
  for (let i = 0; i < calls / 4 + 2; i++) await run();
  start = performance.now();
  for (let i = 0; i < calls; i++) await run();
  console.log((performance.now() - start) / 1e3 / calls);
}
"""


_PAGE = r"""
(async () => {
  const { load, inputs } = await import("/model.mjs");
  const start = performance.now(), model = await load(), told = { load_ms: performance.now() - start, selftest: model.selftest() };
  const kinds = { float32: Float32Array, int64: BigInt64Array };
  const given = {};
  for (const [i, s] of inputs.entries()) given[s.name] = new kinds[s.dtype](await (await fetch(`/in${i}.bin`)).arrayBuffer());
  const first = performance.now(), found = model.run(given);
  told.first_ms = performance.now() - first;
  told.results = Object.values(found).map((a) => Array.from(a));
  globalThis.turn = (calls) => {
    for (let i = 0; i < calls / 4 + 2; i++) model.run(given);
    const start = performance.now();
    for (let i = 0; i < calls; i++) model.run(given);
    return (performance.now() - start) / 1e3 / calls;
  };
  return told;
})()
"""


def digits(threads: int = 1) -> Executable:
    """The digits CNN of frontend.models, batch 1, with random weights that are the same each time."""
    ndl.init.seed(0)
    model = digits_cnn()
    model.eval()
    found: Executable = tcomp.compile(model, [np.zeros((1, 1, 8, 8), np.float32)], num_threads=threads)
    return found


@dataclass
class Side:
    """A program that runs a model.

    Attributes:
        name: also of the files of its results. nbytes: of the files that it needs besides itself.
    """

    name: str
    command: list[str]
    nbytes: int = 0
    process: Any = None
    told: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def start(self, folder: Path) -> None:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
        self.process = subprocess.Popen(self.command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)  # fmt: skip
        self.told = json.loads(self.process.stdout.readline() or '{"code": "ended"}')
        if self.told.get("code"):
            raise SystemExit(f"{self.name}: {self.told}")

    def turn(self, calls: int) -> float:
        """Seconds of a call."""
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Page(Side):
    """The WebAssembly module in Chromium."""

    def start(self, folder: Path) -> None:
        self._server = served(folder)
        self._browser = Browser(f"{self._server.__enter__()}/page.html", folder / "profile")
        self.told = self._browser.value(_PAGE)
        for i, values in enumerate(self.told.pop("results")):
            np.asarray(values, np.float32).tofile(folder / f"{self.name}_out{i}.bin")

    def turn(self, calls: int) -> float:
        return float(self._browser.value(f"turn({calls})"))

    def close(self) -> None:
        self._browser.close()
        self._server.__exit__(None, None, None)


def race(sides: list[Side], seconds: float) -> None:
    """Turn by turn; a turn takes about 20 ms or one call."""
    once = {s.name: max(min(s.turn(1), s.turn(1)), 1e-6) for s in sides}  # clocks of browsers are coarse
    rounds = max(5, min(60, int(seconds * len(sides) / sum(max(t * 2.5, 0.03) for t in once.values()))))
    for number in range(rounds):
        first = number % len(sides)
        for s in sides[first:] + sides[:first]:
            time.sleep(0.005)  # threads of the last one go to sleep
            s.seconds.append(s.turn(max(1, min(400, int(0.02 / once[s.name])))))


class Case:
    """One model in a folder with its artifacts."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.folder, self.threads = folder, threads
        if name == "digits_cnn":
            self.source, self.inputs = "digits", [np.random.default_rng(0).random((1, 1, 8, 8), np.float32)]
        else:
            file, self.inputs = zoo.exported(name, 1)
            self.source = str(file)
        self.exe = self.compiled("cpu")
        for i, a in enumerate(self.inputs):
            a.tofile(folder / f"in{i}.bin")
            np.save(folder / f"in{i}.npy", a)
        told = [
            {"name": s.name, "shape": list(a.shape), "dtype": a.dtype.name}
            for s, a in zip(self.exe.inputs, self.inputs)
        ]
        (folder / "inputs.json").write_text(json.dumps(told))
        (folder / "main.c").write_text(_C)
        (folder / "main.mjs").write_text(_NODE)
        found = self.exe(*self.inputs)
        self.want = found if isinstance(found, tuple) else (found,)
        self.sizes = [str(a.nbytes) for a in (*self.inputs, *self.want)]

    def compiled(self, target: str, winograd: bool = True) -> Executable:
        if self.source == "digits":
            ndl.init.seed(0)
            model = digits_cnn()
            model.eval()
            return tcomp.compile(model, self.inputs, target, num_threads=self.threads, winograd=winograd)
        return tcomp.compile(self.source, self.inputs, target, num_threads=self.threads, winograd=winograd)

    def executable(self) -> Side:
        return Side("executable", self._python("executable", self.source), 0)

    def side(self, kind: str) -> Side:
        """Export it, and build the program around it."""
        threads = str(self.threads)
        if kind == "chromium":
            (self.folder / "page.html").write_text("<!doctype html>")
            return Page("chromium", [])
        if kind == "wasm":
            files = self.compiled(WASM, False).export(self.folder / "model.wasm", format="wasm")
            return Side("wasm", [_node(), "main.mjs", "wasm"], _bytes(files))
        if kind == "python":
            files = self.exe.export(self.folder / "loaded.so", name="loaded")
            return Side("loaded", self._python("loaded", "loaded.so"), _bytes(files))
        where = self.folder / kind
        where.mkdir()
        (where / "main.c").write_text(_C)
        foreign = kind in FOREIGN
        exe = self.compiled(f"llvm -mtriple={kind}-linux-gnu") if foreign else self.exe
        form = "shared" if foreign else kind
        files = exe.export(where / {"shared": "libmodel.so", "object": "model.o", "c": "model.c"}[form], form, "model")
        parts = {
            "shared": ["-L.", "-lmodel", "-Wl,-rpath,$ORIGIN"],
            "object": ["model.o", "-lpthread"],
            "c": ["model.c", "model_data.c"],
        }
        options = ["-O3", "-march=native", "-fopenmp"] if kind == "c" else ["-O2"]
        cc = f"{kind}-linux-gnu-gcc" if foreign else "gcc"
        begin = time.perf_counter()
        subprocess.run([cc, *options, "-o", "program", "main.c", *parts[form], "-lm"], cwd=where, check=True)
        built = time.perf_counter() - begin
        for f in self.folder.glob("in*.bin"):
            (where / f.name).symlink_to(f)
        weights = next((f.name for f in files if f.suffix == ".safetensors"), "-")
        emulated = [f"qemu-{kind}", "-L", f"/usr/{kind}-linux-gnu"] if foreign else []
        command = [
            "/bin/sh",
            "-c",
            'cd "$0" && exec "$@"',
            str(where),
            *emulated,
            "./program",
            threads,
            weights,
            *self.sizes,
        ]
        side = Side(kind, command, _bytes(f for f in files if f.suffix != ".h"))
        side.told["build_s"] = built
        return side

    def _python(self, what: str, file: str) -> list[str]:
        return [sys.executable, "-c", _PYTHON, what, file, "-", str(self.threads), str(len(self.inputs))]

    def error(self, side: Side) -> tuple[float, bool]:
        """The relative difference of a side's results from the Executable's, and whether their bits are equal."""
        where = self.folder / side.name if (self.folder / side.name).is_dir() else self.folder
        stem = "program" if where is not self.folder else side.name
        got = [np.fromfile(where / f"{stem}_out{i}.bin", a.dtype).reshape(a.shape) for i, a in enumerate(self.want)]
        return max(relative_error(g, w) for g, w in zip(got, self.want)), all(map(np.array_equal, got, self.want))


def _bytes(files: Any) -> int:
    return sum(f.stat().st_size for f in files)


def _node() -> str:
    return shutil.which("node") or "node"


def run_model(name: str, kinds: list[str], threads: int, seconds: float, web: str) -> list[dict[str, Any]]:
    """A row for each side."""
    with tempfile.TemporaryDirectory() as scratch:
        case = Case(name, Path(scratch), threads)
        sides = [case.executable(), *(case.side(k) for k in kinds)]
        if web and threads == 1 and case.source.endswith(".onnx"):
            sides.append(Side("web", [_node(), "main.mjs", "web", str(Path(web).resolve()), case.source]))
        for s in sides:
            s.start(case.folder)
        errors = {s.name: case.error(s) for s in sides}
        race([s for s in sides if s.name not in FOREIGN], seconds)
        for s in sides:
            s.close()
    whole = sides[0].seconds
    rows = []
    for s in sides:
        ratio = statistics.median(a / b for a, b in zip(whole, s.seconds)) if s.seconds else None
        rows.append({
            "model": name, "threads": threads, "side": s.name, "bytes": s.nbytes, **s.told, "ms": 1e3 * statistics.median(s.seconds) if s.seconds else None,
            "executable/this": ratio, "error": errors[s.name][0], "equal bits": errors[s.name][1],
        })  # fmt: skip
    return rows


def main(
    models: str = ",".join(MODELS),
    formats: str = ",".join(FORMATS),
    threads: str = "1",
    seconds: Annotated[float, typer.Option(help="for each side, about")] = 3.0,
    foreign: Annotated[bool, typer.Option(help="aarch64 and riscv64, too, under QEMU")] = False,
    web: Annotated[str, typer.Option(help="a folder with onnxruntime-web")] = "",
) -> None:
    """Race exported models against the Executable."""
    console, found = Console(width=150), []
    kinds = [*(f for f in formats.split(",") if f), *(FOREIGN if foreign else ())]
    table = Table(
        "model", "threads", "side", "MiB", "load ms", "first ms", "ms", "Executable / this", "difference", title=_cpu()
    )
    for name in models.split(","):
        for count in map(int, threads.split(",")):
            chosen = [k for k in kinds if count == 1 or k not in ("wasm", "chromium", *FOREIGN)]
            for r in run_model(name, chosen, count, seconds, web):
                found.append(r)
                difference = "bits equal" if r["equal bits"] else f"{r['error']:.1e}"
                cells = [f"{r['bytes'] / 2**20:.2f}", f"{r['load_ms']:.1f}", f"{r['first_ms']:.2f}"]
                times = ["", ""] if r["ms"] is None else [f"{r['ms']:.3f}", f"{r['executable/this']:.2f}"]
                table.add_row(name, str(count), r["side"], *cells, *times, difference)
                console.print(json.dumps(r), soft_wrap=True)
    OUT.mkdir(exist_ok=True)
    (OUT / "exports.json").write_text(json.dumps({"cpu": _cpu(), "rows": found}, indent=1))
    console.print(table)


def _cpu() -> str:
    return str(tcomp.Target.parse("cpu"))


if __name__ == "__main__":
    typer.run(main)
