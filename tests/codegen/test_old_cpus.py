"""CPUs without F16C convert 16-bit floats by integer arithmetic, those without FMA multiply in float64; code that this CPU cannot run is refused, not run."""

import math

import numpy as np
import pytest

import tcomp
from tcomp.errors import TargetError
from tcomp.ops import GraphBuilder
from tcomp.target import Target

OLD = ["x86-64", "x86-64-v2", "nehalem", "sandybridge"]


def cast(cpu: str, source: str, to: str, shape: tuple) -> tcomp.Executable:
    g = GraphBuilder()
    return tcomp.compile(g.build(g.cast(g.input("x", shape, source), dtype=to)), target=f"llvm -mcpu={cpu}")


@pytest.mark.parametrize("cpu", OLD)
def test_every_half_becomes_its_float(cpu: str) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    got = cast(cpu, "float16", "float32", x.shape)(x)
    assert np.array_equal(got, x.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(got), np.signbit(x))


@pytest.mark.parametrize("source", ["float32", "float64", "int32"])
@pytest.mark.parametrize("cpu", OLD)
def test_numbers_become_the_nearest_half(cpu: str, source: str, rng: np.random.Generator) -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middles = (halves[1:] + halves[:-1]) / 2
    tiny = np.float64(2.0**-60)
    x = np.concatenate([halves, middles, middles * (1 + tiny), middles * (1 - 2**-50), rng.standard_normal(999) * 1e-4,
                        [65519.0, 65520.0, 65536.0, 1e30, np.inf, np.nan, 2.0**-25, 2.0**-26, 0.0]])  # fmt: skip
    x = np.concatenate([x, -x])
    if source == "int32":
        x = np.arange(-70000, 70000)
    x = x.astype(source)
    with np.errstate(over="ignore"):
        want = x.astype(np.float16)
    got = cast(cpu, source, "float16", x.shape)(x)
    assert np.array_equal(got, want, equal_nan=True) and np.array_equal(np.signbit(got), np.signbit(want))


@pytest.mark.parametrize("cpu", OLD)
def test_products_of_halves(cpu: str, rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal(s).astype("float16") for s in ((17, 33), (33, 20)))
    g = GraphBuilder()
    module = g.build(g.relu(g.matmul(g.input("a", a.shape, "float16"), g.input("b", b.shape, "float16"))))
    want = np.maximum(a.astype("float64") @ b, 0)
    got = tcomp.compile(module, target=f"llvm -mcpu={cpu}")(a, b)
    assert np.linalg.norm(got - want) <= 2**-11 * np.linalg.norm(want)


@pytest.mark.parametrize("cpu", OLD)
@pytest.mark.parametrize(
    ("name", "count"), [("exp", 1003), ("log", 1003), ("tanh", 1003), ("erf", 1003), ("sin", 1003), ("exp", 400_003)]
)
def test_functions_stay_vectors_without_fused_multiply_adds(
    name: str, count: int, cpu: str, rng: np.random.Generator
) -> None:
    """No call of fmaf for each lane, in loops that run on all cores neither; as accurate as ever."""
    x = rng.uniform(0.01, 9, count).astype("float32")
    g = GraphBuilder()
    exe = tcomp.compile(g.build(g.op(name, g.input("x", x.shape))), target=f"llvm -mcpu={cpu} -num-cores=2")
    assert "fmaf" not in exe.ir("asm") and ("tcomp_parallel_for" in exe.ir("asm")) == (count > 9999)
    wide = x.astype("float64")
    want = np.vectorize(math.erf)(wide) if name == "erf" else getattr(np, name)(wide)
    assert (np.abs(exe(x) - want) <= 4 * np.spacing(np.abs(want).astype("float32"))).all()


def test_code_for_a_cpu_that_this_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from tcomp.target import cpu as target

    real = target.llvm.get_host_cpu_features()

    class Without:
        def get_host_cpu_features(self) -> dict:
            return {k: v and not k.startswith("avx512") for k, v in real.items()}

        def __getattr__(self, name: str) -> object:
            return getattr(real_llvm, name)

    real_llvm = target.llvm
    monkeypatch.setattr(target, "llvm", Without())
    assert "avx512f" in Target.parse("llvm -mcpu=sapphirerapids").missing_here()
    assert not Target.parse("llvm -mcpu=x86-64").missing_here()
    g = GraphBuilder()
    module = g.build(g.exp(g.input("x", (8,))))
    exe = tcomp.compile(module, target="llvm -mcpu=sapphirerapids")
    with pytest.raises(TargetError, match="this CPU cannot run the compiled code.*avx512f"):
        exe(np.ones(8, "float32"))
    with pytest.raises(TargetError, match="cannot run"):
        exe.profile(np.ones(8, "float32"))
    assert "exp" in exe.ir("graph") and exe.ir("asm")
