"""Exported shared libraries: called from C and from Python, damaged, and on CPUs that are too old."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
import safetensors.numpy
from exported_models import MODELS, cnn
from typer.testing import CliRunner

import tcomp
from tcomp import cli
from tcomp.errors import InputError, TargetError, TcompError, UnsupportedError
from tcomp.export.cpuid import FEATURE_BITS, feature_bits
from tcomp.runtime.artifact import selftest
from tcomp.runtime.manifest import find_section, read_manifest, sealed

CC = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler")
MAIN = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "net.h"

static int calls;
static void serial(int64_t n, net_loop_body body, void *argument, void *user) {
  ++*(int *)user;
  for (int64_t i = 0; i < n; i++) body(argument, i, i + 1);
}

/* net IN... OUT...: raw arrays; an argument is FILE:BYTES */
static char *bytes_of(char *word, size_t *size) {
  char *colon = word;
  while (*colon != ':') colon++;
  *colon = 0;
  *size = strtoull(colon + 1, 0, 10);
  char *data = malloc(*size);
  FILE *f = fopen(word, "rb");
  if (f) *size = fread(data, 1, *size, f), fclose(f);
  return data;
}

int main(int argc, char **argv) {
  const void *inputs[NET_NUM_INPUTS + 1];
  void *outputs[NET_NUM_OUTPUTS];
  char *names[NET_NUM_OUTPUTS];
  size_t size, sizes[NET_NUM_OUTPUTS];
  net_context *net;
  if (argc != 1 + NET_NUM_INPUTS + NET_NUM_OUTPUTS) return 100;
  int code = net_init(&net, NULL, 2);
  double error = -1;
  if (!code) code = net_selftest(net, &error);
  printf("%s %g %d\n", net_error_text(code), error, net_abi_version());
  if (code) return code;
  for (int i = 0; i < NET_NUM_INPUTS; i++) inputs[i] = bytes_of(argv[1 + i], &size);
  for (int i = 0; i < NET_NUM_OUTPUTS; i++) {
    names[i] = argv[1 + NET_NUM_INPUTS + i];
    outputs[i] = bytes_of(names[i], &sizes[i]);
  }
  if (getenv("SERIAL")) net_set_parallel_for(serial, &calls);
  void *workspace = aligned_alloc(64, (net_workspace_bytes(net) + 64) / 64 * 64);
  if (net_run(net, inputs, outputs, (char *)workspace + 1) != NET_BAD_ARGUMENT) return 101;
  if (net_run(NULL, inputs, outputs, workspace) != NET_BAD_ARGUMENT) return 102;
  code = net_run(net, inputs, outputs, getenv("TAKE") ? NULL : workspace);
  printf("%s, %d loops\n", net_error_text(code), calls);
  for (int i = 0; i < NET_NUM_OUTPUTS && !code; i++) {
    FILE *f = fopen(names[i], "wb");
    fwrite(outputs[i], 1, sizes[i], f);
    fclose(f);
  }
  net_free(net);
  return code;
}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[tcomp.Executable, Path]]:
    """Each model's executable, and the folder with net.so, net.h and a program that calls them."""
    made = {}
    for key, (model, x) in MODELS.items():
        folder = tmp_path_factory.mktemp(key)
        exe = tcomp.compile(model, [x])
        assert exe.export(folder / "net.so") == (folder / "net.so", folder / "net.h")
        build(CC, folder)
        made[key] = exe, folder
    return made


def build(compiler: str, folder: Path, write: bool = True) -> None:
    """The C program, in a folder that has net.so."""
    if write:
        (folder / "main.c").write_text(MAIN)
    words = [
        "-std=c11",
        "-D_GNU_SOURCE",
        "-Wall",
        "-Wextra",
        "-Werror",
        "main.c",
        "./net.so",
        "-Wl,-rpath,$ORIGIN",
        "-o",
        "main",
    ]
    subprocess.run([compiler, *words], cwd=folder, check=True)


def call(
    folder: Path, arrays: list[np.ndarray], results: list[np.ndarray], emulator: tuple[str, ...] = (), **env: str
) -> tuple[str, int]:
    """Run the C program; results are filled in."""
    words = []
    for kind, group in (("in", arrays), ("out", results)):
        for i, a in enumerate(group):
            np.ascontiguousarray(a).tofile(folder / f"{kind}{i}")
            words.append(f"{kind}{i}:{a.nbytes}")
    done = subprocess.run(
        [*emulator, "./main", *words], cwd=folder, capture_output=True, text=True, env={**os.environ, **env}
    )
    for i, r in enumerate(results):
        r[...] = np.fromfile(folder / f"out{i}", r.dtype).reshape(r.shape)
    return done.stdout, done.returncode


@pytest.mark.parametrize("key", MODELS)
@pytest.mark.parametrize("env", [{}, {"SERIAL": "1"}, {"TAKE": "1"}], ids=["pool", "own loop", "own memory"])
def test_c_gets_the_same_results(key: str, env: dict[str, str], exported: dict) -> None:
    exe, folder = exported[key]
    x = MODELS[key][1]
    want = exe(x)
    got = np.zeros_like(want)
    told, code = call(folder, [x], [got], **env)
    assert code == 0 and np.array_equal(got, want)
    first, second = told.splitlines()
    words, error, version = first.rsplit(" ", 2)
    assert words == "no error" and float(error) <= 1e-6 and version == "1"
    assert ("SERIAL" in env and key == "cnn") == (int(second.split(", ")[1].split()[0]) > 0)


@pytest.mark.parametrize(("arch", "cpu"), [("aarch64", " -mcpu=cortex-a76"), ("riscv64", "")])
@pytest.mark.parametrize("key", MODELS)
def test_other_machines_get_the_same_results(key: str, arch: str, cpu: str, exported: dict, tmp_path: Path) -> None:
    """Linked by a cross compiler, run by QEMU."""
    compiler, emulator = shutil.which(f"{arch}-linux-gnu-gcc"), shutil.which(f"qemu-{arch}")
    if compiler is None or emulator is None:
        pytest.skip(f"no cross compiler or no emulator for {arch}")
    model, x = MODELS[key]
    exe = tcomp.compile(model, [x], target=f"llvm -mtriple={arch}-linux-gnu{cpu}")
    with pytest.raises(TargetError, match=arch):
        exe(x)
    exe.export(tmp_path / "net.so")
    build(compiler, tmp_path)
    want = exported[key][0](x)
    got = np.zeros_like(want)
    told, code = call(tmp_path, [x], [got], emulator=(emulator, "-L", f"/usr/{arch}-linux-gnu"))
    assert code == 0, told
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want) and got.any()
    with pytest.raises(TcompError):
        tcomp.load(tmp_path / "net.so")


def test_an_index_out_of_range_is_told_before_anything_is_written(exported: dict) -> None:
    exe, folder = exported["words"]
    x = MODELS["words"][1].copy()
    x[3, 1] = 40
    got = np.full_like(exe(MODELS["words"][1]), 7)
    told, code = call(folder, [x], [got])
    assert code == 4 and "out of range" in told and (got == 7).all()


@pytest.mark.parametrize("key", MODELS)
def test_python_loads_it(key: str, exported: dict) -> None:
    exe, folder = exported[key]
    x = MODELS[key][1]
    loaded = tcomp.load(folder / "net.so")
    assert np.array_equal(loaded(x), exe(x)) and str(loaded.inputs[0]) == str(exe.inputs[0])
    assert list(loaded.named(x)) == list(exe.named(x)) and loaded.memory == exe.memory
    with pytest.raises(InputError):
        loaded(x[:1])
    if key == "words":
        with pytest.raises(InputError, match="40"):
            loaded(np.full_like(x, 40))
    for refused in (lambda: loaded.ir("llvm"), lambda: loaded.export(folder / "again.so")):
        with pytest.raises(TcompError, match="loaded from an exported file"):
            refused()


def test_python_needs_no_compiler_to_load_it(exported: dict) -> None:
    _, folder = exported["cnn"]
    code = (
        "import sys, numpy as np, tcomp\n"
        "exe = tcomp.load('net.so')\n"
        "exe(np.zeros((2, 3, 32, 32), 'float32'))\n"
        "print(sorted({'llvmlite', 'networkx', 'islpy', 'typer', 'rich', 'ml_dtypes', 'safetensors'} & sys.modules.keys()))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(tcomp.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "[]", done.stderr


def test_compiling_without_the_compiler_names_what_is_missing() -> None:
    code = (
        "import sys\n"
        "for name in ('llvmlite', 'networkx', 'islpy'):\n    sys.modules[name] = None\n"
        "import tcomp\n"
        "try:\n    tcomp.compile('model.onnx')\nexcept ImportError as e:\n    print(type(e).__name__, e)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(tcomp.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.startswith("MissingPackageError this needs the package llvmlite"), done.stderr


def test_a_child_process_can_run_it(exported: dict) -> None:
    """The pool's threads are not there after a fork; the first run finds that out."""
    exe, folder = exported["cnn"]
    x = MODELS["cnn"][1]
    loaded = tcomp.load(folder / "net.so", num_threads=2)
    want = loaded(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(loaded(x), want) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and np.array_equal(loaded(x), want)


def test_the_same_model_gives_the_same_bytes(exported: dict, tmp_path: Path) -> None:
    exe, folder = exported["cnn"]
    (tmp_path / "sub").mkdir()
    exe.export(tmp_path / "sub" / "net.so")
    for name in ("net.so", "net.h"):
        assert (tmp_path / "sub" / name).read_bytes() == (folder / name).read_bytes()


def test_it_exports_its_own_names_alone(exported: dict) -> None:
    _, folder = exported["cnn"]
    listed = subprocess.run(["nm", "-D", "--defined-only", folder / "net.so"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no nm")
    assert all(line.split()[-1].startswith("net_") for line in listed.stdout.splitlines())


def test_other_weights_fail_the_self_test(exported: dict, tmp_path: Path) -> None:
    """One flipped bit among the weights."""
    exe, folder = exported["cnn"]
    assert selftest(folder / "net.so") <= 1e-6
    whole = bytearray((folder / "net.so").read_bytes())
    at = whole.index(
        np.sort(np.concatenate([c.reshape(-1) for c in exe.program.constants if c.dtype == "float32"]))[-1:].tobytes()
    )
    whole[at + 3] ^= 0x40
    bad = tmp_path / "net.so"
    bad.write_bytes(whole)
    with pytest.raises(TcompError, match="not those that were exported"):
        selftest(bad)
    bad.write_bytes(sealed(bytes(whole)))
    with pytest.raises(TcompError, match="differ"):
        selftest(bad)


def test_the_command_compiles_and_verifies(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    values = [[helper.make_tensor_value_info(n, kind, ("rows", 4))] for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "soft", *values)
    file = tmp_path / "soft-max.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), file)
    told = CliRunner().invoke(cli.app, ["compile", str(file), "--dims", "rows=3", "-o", str(tmp_path / "out" / "here")])
    assert told.exit_code == 0 and "soft_max.so" in told.output and "soft_max.h" in told.output, told.output
    library = tmp_path / "out" / "here" / "soft_max.so"
    done = CliRunner().invoke(cli.app, ["verify", str(library), "--json"])
    assert json.loads(done.stdout)["error"] == 0
    assert tcomp.load(library)(np.ones((3, 4), "float32")).sum() == pytest.approx(3)


TWO = r"""
#include "one.h"
#include "two.h"

int main(void) {
  double error;
  one_context *one;
  two_context *two;
  if (one_init(&one, 0, 2) || two_init(&two, 0, 1)) return 1;
  if (one_selftest(one, &error) || two_selftest(two, &error)) return 2;
  one_free(one);
  two_free(two);
  return 0;
}
"""


def test_objects_of_several_models_link_into_one_program(tmp_path: Path) -> None:
    """Both have an entry, a pool and kernels of the same names."""
    if shutil.which("objcopy") is None:
        pytest.skip("no objcopy")
    model, x = MODELS["cnn"]
    exe = tcomp.compile(model, [x])
    for name in ("one", "two"):
        written = exe.export(tmp_path / f"{name}.o", format="object")
        assert [p.name for p in written] == [f"{name}.o", f"{name}.h", f"{name}.cmake"]
    (tmp_path / "main.c").write_text(TWO)
    words = ["-Wall", "-Wextra", "-Werror", "main.c", "one.o", "two.o", "-lm", "-lpthread", "-o", "main"]
    subprocess.run([CC, *words], cwd=tmp_path, check=True)
    assert subprocess.run(["./main"], cwd=tmp_path).returncode == 0
    assert read_manifest(tmp_path / "one.o")["name"] == "one"
    if shutil.which("cmake") is not None:
        text = "cmake_minimum_required(VERSION 3.13)\nproject(two C)\ninclude(one.cmake)\ninclude(two.cmake)\n"
        text += "add_executable(program main.c)\ntarget_link_libraries(program PRIVATE one two)\n"
        (tmp_path / "CMakeLists.txt").write_text(text)
        for words in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]):
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        assert subprocess.run(["build/program"], cwd=tmp_path).returncode == 0


def test_weights_beside_the_code(exported: dict, tmp_path: Path) -> None:
    """A safetensors file, mapped; a missing, cut, changed or foreign one is refused by C and by Python."""
    exe, folder = exported["cnn"]
    x = MODELS["cnn"][1]
    written = exe.export(tmp_path / "net.so", weights="beside")
    assert [p.name for p in written] == ["net.so", "net.h", "net.safetensors"]
    assert "net.safetensors" in (tmp_path / "net.h").read_text()
    held = safetensors.numpy.load_file(tmp_path / "net.safetensors")
    for i, c in enumerate(exe.program.constants):
        assert np.array_equal(held[f"weight{i}"], c)
    loaded = tcomp.load(tmp_path / "net.so")
    assert np.array_equal(loaded(x), exe(x)) and selftest(tmp_path / "net.so") <= 1e-6
    mapped = Path("/proc/self/maps").read_text()
    ranges = [line.split()[0].split("-") for line in mapped.splitlines() if line.endswith("net.safetensors")]
    for c in loaded._runner.constants:  # read where the file is mapped, not from a copy
        assert any(int(low, 16) <= c.ctypes.data < int(high, 16) for low, high in ranges)
    (tmp_path / "main.c").write_text(
        MAIN.replace("net_init(&net, NULL, 2)", 'net_init(&net, getenv("PLAIN") ? NULL : "net.safetensors", 2)')
    )
    build(CC, tmp_path, write=False)
    got = np.zeros_like(exe(x))
    assert call(tmp_path, [x], [got])[1] == 0 and np.array_equal(got, exe(x))
    assert call(tmp_path, [x], [got], PLAIN="1")[1] == 1
    weights = (tmp_path / "net.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    flipped = [bytearray(weights) for _ in range(40)]
    for data, at in zip(flipped, (0, 9, len(weights) - 1, *rng.integers(0, len(weights), 40))):
        data[at] ^= 1 << int(rng.integers(0, 8))
    for data in (b"", weights[:-1], weights + b"0", *flipped):
        (tmp_path / "other").write_bytes(data)
        os.replace(tmp_path / "other", tmp_path / "net.safetensors")  # the old one stays mapped
        with pytest.raises(TcompError, match="file of weights"):
            tcomp.load(tmp_path / "net.so")
    assert call(tmp_path, [x], [got])[1] == 6
    (tmp_path / "net.safetensors").unlink()
    with pytest.raises(TcompError, match="file of weights"):
        tcomp.load(tmp_path / "net.so")
    assert np.array_equal(loaded(x), exe(x))


def test_large_weights_go_beside_the_code(exported: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcomp.export.INSIDE_BYTES", 100)
    exe, _ = exported["words"]
    assert len(exe.export(tmp_path / "net.so")) == 3 and len(exe.export(tmp_path / "net.so", weights="inside")) == 2
    with pytest.raises(TcompError, match="inside"):
        exe.export(tmp_path / "net.so", weights="elsewhere")


def test_damaged_and_foreign_files_are_refused(exported: dict, tmp_path: Path) -> None:
    _, folder = exported["words"]
    whole = (folder / "net.so").read_bytes()
    start, nbytes = find_section(memoryview(whole))
    manifest = whole[start : start + nbytes]
    rng, flipped = np.random.default_rng(0), []
    for at in (*rng.integers(0, len(whole), 60), *range(64), *rng.integers(whole.index(manifest), len(whole), 20)):
        flipped.append(bytearray(whole))
        flipped[-1][at] ^= 1 << int(rng.integers(0, 8))
    for data in (b"", b"text", whole[:60], whole[:5000], whole[:-100], whole.replace(b".tcomp", b".other"),
                 whole.replace(manifest[:30], b"x" * 30), *flipped):  # fmt: skip
        bad = tmp_path / "bad.so"
        bad.write_bytes(data)
        with pytest.raises(TcompError, match="bad.so"):
            tcomp.load(bad)
    with pytest.raises(TcompError, match="missing.so"):
        tcomp.load(tmp_path / "missing.so")


def test_a_cpu_that_is_too_old_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit of CPUID that no CPU has stands for a missing feature."""
    if not tcomp.Target.parse("cpu").triple.startswith("x86_64"):
        pytest.skip("only x86-64 CPUs are asked")
    never = FEATURE_BITS["popcnt"].__class__("popcnt", 1, 0, 2, 31, 0x8000)
    monkeypatch.setitem(FEATURE_BITS, "popcnt", never)
    exe = tcomp.compile(cnn(), [MODELS["cnn"][1]], target="llvm -mcpu=x86-64-v2")
    exe.export(tmp_path / "net.so")
    with pytest.raises(TargetError, match="popcnt"):
        tcomp.load(tmp_path / "net.so")


CHOOSE = r"""
#include <stdio.h>
#include "net.h"

int main(void) {
  net_context *net;
  double error;
  int code = net_init(&net, NULL, 1);
  if (code) return printf("%s\n", net_error_text(code)), code;
  code = net_selftest(net, &error);
  printf("%d\n", net_variant(net));
  net_free(net);
  return code;
}
"""


def test_one_file_for_several_cpus(tmp_path: Path) -> None:
    """Each CPU gets the best code that it can run; one too old for all is told so."""
    if not tcomp.Target.parse("cpu").triple.startswith("x86_64"):
        pytest.skip("only x86-64 has levels")
    x = MODELS["cnn"][1]
    exe = tcomp.compile(cnn(), [x], target="llvm -mcpu=x86-64-v2,x86-64-v4,x86-64-v3")
    exe.export(tmp_path / "libnet.so", name="net")
    told = read_manifest(tmp_path / "libnet.so")["variants"]
    assert [v["target"].split()[1] for v in told] == [f"-mcpu=x86-64-v{n}" for n in (4, 3, 2)]
    loaded = tcomp.load(tmp_path / "libnet.so")
    assert np.array_equal(loaded(x), exe(x)) and selftest(tmp_path / "libnet.so") <= 1e-6
    here = llvmlite.binding.get_host_cpu_features()
    assert loaded.library.variant == (0 if here["avx512vl"] else 1 if here["avx2"] else 2)
    (tmp_path / "main.c").write_text(CHOOSE)
    words = ["main.c", "-L.", "-lnet", "-Wl,-rpath,$ORIGIN", "-o", "main"]
    subprocess.run([CC, *words], cwd=tmp_path, check=True)
    if shutil.which("qemu-x86_64") is None:
        pytest.skip("no qemu-x86_64")
    for cpu, wanted in (("Haswell-noTSX", "1"), ("Nehalem", "2"), ("core2duo", "")):
        done = subprocess.run(["qemu-x86_64", "-cpu", cpu, "./main"], cwd=tmp_path, capture_output=True, text=True)
        if wanted:
            assert (done.returncode, done.stdout.strip()) == (0, wanted), (cpu, done.stderr)
        else:
            assert done.returncode == 3 and "sse4.2" in done.stdout


def test_a_model_that_changed_since_is_refused(tmp_path: Path) -> None:
    """Code for another CPU would have other weights."""
    if not tcomp.Target.parse("cpu").triple.startswith("x86_64"):
        pytest.skip("only x86-64 has levels")
    model, x = cnn(), MODELS["cnn"][1]
    exe = tcomp.compile(model, [x])
    parameter = next(p for p in model.parameters() if p.ndim > 1)
    parameter.data = parameter * 1.5
    exe.export(tmp_path / "net.so", portable=False)
    with pytest.raises(TcompError, match="is not what it was"):
        exe.export(tmp_path / "net.so", portable=True)


def test_equal_code_for_several_cpus_is_there_once(tmp_path: Path) -> None:
    """Two CPUs that LLVM makes the same code for, and one apart."""
    if not tcomp.Target.parse("cpu").triple.startswith("x86_64"):
        pytest.skip("only x86-64 has levels")
    x = MODELS["cnn"][1]
    options = "-fma-ports=2 -l1=32K -l2=1M -l3=0 -l2-cores=1 -l3-cores=1"
    targets = [
        f"llvm -mcpu=x86-64-v3 {options}",
        f"llvm -mcpu=x86-64-v3 -mattr=+movbe {options}",
        "llvm -mcpu=x86-64-v2",
    ]
    exe = tcomp.compile(cnn(), [x], target=targets)
    exe.export(tmp_path / "net.so")
    first, second, third = (v["kernels"] for v in read_manifest(tmp_path / "net.so")["variants"])
    assert any(k["bytes"] for k in first.values()) and all(k["bytes"] for k in third.values())
    assert any(k["bytes"] == 0 for k in second.values())
    assert np.array_equal(tcomp.load(tmp_path / "net.so")(x), exe(x)) and selftest(tmp_path / "net.so") <= 1e-6


@pytest.mark.parametrize("arch", ["", "aarch64", "riscv64"])
def test_a_package_links_where_there_is_no_compiler(arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ziglang")
    monkeypatch.setattr("shutil.which", lambda *_: None)
    monkeypatch.delenv("CC", raising=False)
    target = f"llvm -mtriple={arch}-linux-gnu" if arch else "cpu"
    exe = tcomp.compile(cnn(), [MODELS["cnn"][1]], target=target)
    exe.export(tmp_path / "net.so")
    assert "clang" in read_manifest(tmp_path / "net.so")["compiler"]
    if not arch:
        assert selftest(tmp_path / "net.so") <= 1e-6
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(TcompError, match="cannot link"):
        exe.export(tmp_path / "again.so")


def test_nothing_ends_the_process(exported: dict) -> None:
    """No call of what would."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", exported["cnn"][1] / "net.so"], capture_output=True, text=True)  # fmt: skip
    if listed.returncode:
        pytest.skip("no nm")
    needed = {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()}
    assert "malloc" in needed and not needed & {"abort", "exit", "_exit", "__assert_fail", "raise", "kill"}


def test_cpp_can_use_the_header(exported: dict, tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    (tmp_path / "main.cpp").write_text(CHOOSE)
    words = [
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-I",
        exported["cnn"][1],
        "main.cpp",
        exported["cnn"][1] / "net.so",
    ]
    subprocess.run([compiler, *words, "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, env={**os.environ, "LD_LIBRARY_PATH": str(exported["cnn"][1])})
    assert done.returncode == 0


def test_code_for_this_cpu_comes_with_code_for_others(exported: dict) -> None:
    """Unless the caller named the CPU."""
    if not tcomp.Target.parse("cpu").triple.startswith("x86_64"):
        pytest.skip("only x86-64 has levels")
    told = read_manifest(exported["cnn"][1] / "net.so")["variants"]
    assert [v["target"].split()[1] for v in told][1:] == ["-mcpu=x86-64-v2"]
    assert len(tcomp.Target.parse_all("llvm -mcpu=native")) == 1


def test_features_that_code_may_use_are_asked_for() -> None:
    names = [b.name for b in feature_bits(["avx2", "aes", "sse4.2", "fma"])]
    assert names == ["avx2", "fma", "sse4.2"]


def test_features_are_where_the_table_says(tmp_path: Path) -> None:
    """CPUID's bits, read in C, beside what LLVM found on this machine."""
    if not tcomp.Target.parse("cpu").triple.startswith("x86_64"):
        pytest.skip("only x86-64 CPUs are asked")
    rows = ", ".join(f"{{{b.leaf}u, {b.subleaf}, {b.register}, {b.bit}}}" for b in FEATURE_BITS.values())
    (tmp_path / "main.c").write_text(
        f"""#include <cpuid.h>
        #include <stdio.h>
        static const unsigned table[][4] = {{{rows}}};
        int main(void) {{
          for (unsigned i = 0; i < sizeof table / sizeof *table; i++) {{
            unsigned r[4] = {{0}};
            __get_cpuid_count(table[i][0], table[i][1], r, r + 1, r + 2, r + 3);
            printf("%u", r[table[i][2]] >> table[i][3] & 1);
          }}
        }}"""
    )
    subprocess.run([CC, "main.c", "-o", "main"], cwd=tmp_path, check=True)
    told = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    here = llvmlite.binding.get_host_cpu_features()
    assert dict(zip(FEATURE_BITS, told)) == {name: str(int(here[name])) for name in FEATURE_BITS}


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"path": "net.so", "format": "exe"}, TcompError, "shared"),
        ({"path": "1net.so"}, TcompError, "name an exported model"),
        ({"path": "net.so", "name": "int"}, TcompError, "name an exported model"),
        ({"path": "nowhere/net.so"}, TcompError, "cannot write"),
    ],
)
def test_mistakes_are_told(arguments: dict, error: type, match: str, exported: dict, tmp_path: Path) -> None:
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises(error, match=match):
        exported["cnn"][0].export(**arguments)
    assert not list(tmp_path.iterdir())


def test_a_failing_compiler_is_quoted(exported: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command, match in (("false", "failed"), ("no-such-compiler", "cannot run")):
        monkeypatch.setenv("CC", command)
        with pytest.raises(TcompError, match=match):
            exported["cnn"][0].export(tmp_path / "net.so")
    assert not list(tmp_path.iterdir())


def test_symbolic_extents_and_updates_are_refused(tmp_path: Path) -> None:
    g = tcomp.GraphBuilder()
    x = g.input("x", (g.dim("n", max=8), 4))
    with pytest.raises(UnsupportedError, match="symbolic"):
        tcomp.compile(g.build(g.relu(x))).export(tmp_path / "net.so")
    with pytest.raises(UnsupportedError, match="reference"):
        tcomp.compile(cnn(), [MODELS["cnn"][1]], target="reference").export(tmp_path / "net.so")
