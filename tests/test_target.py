"""Targets: detected, or given as text."""

import pytest

from tcomp.backends import backend_of
from tcomp.errors import TargetError
from tcomp.ops import GraphBuilder
from tcomp.passes import FUSE, GRAPH, LOWER
from tcomp.target import Target
from tcomp.target.families import family, name_of_host, names


def test_this_machine() -> None:
    t = Target.parse("cpu")
    assert t.vector_bytes in (16, 32, 64) and t.num_registers in (16, 32) and t.fma_ports in (1, 2)
    assert 8 << 10 <= t.l1_bytes <= t.l2_bytes and t.l2_cores >= 1 and t.l3_cores >= 1 and t.num_cores >= 1
    assert Target.parse("llvm -mcpu=native") == t


@pytest.mark.parametrize("name", names("x86_64"))
def test_a_host_that_has_what_its_name_tells_keeps_it(name: str) -> None:
    assert name_of_host("x86_64", name, family("x86_64", name).features | {"adx", "gfni"}) == name
    assert (
        name_of_host("x86_64", name, frozenset({"sse2"})) == name
    )  # masked: the name still tells its caches and ports


def test_a_host_that_has_more_than_its_name_tells_is_another_cpu() -> None:
    server = family("x86_64", "sapphirerapids").features
    assert name_of_host("x86_64", "rocketlake", server) == "sapphirerapids"
    assert name_of_host("x86_64", "rocketlake", server | {"prefetchi"}) == "graniterapids"
    assert name_of_host("x86_64", "haswell", family("x86_64", "znver4").features) == "znver4"
    assert name_of_host("x86_64", "haswell", family("x86_64", "gracemont").features) == "alderlake"
    assert name_of_host("x86_64", "brand-new", server) == "brand-new"
    assert name_of_host("sparc", "brand-new", server) == "brand-new"


def test_everything_can_be_given_as_text() -> None:
    t = Target.parse("llvm -mcpu=haswell -num-cores=4 -fma-ports=1 -l1=48K -l2=2M -l3=33554432 -l2-cores=2 -l3-cores=4")
    assert (t.vector_bytes, t.num_registers, t.fma_ports, t.num_cores) == (32, 16, 1, 4)
    assert (t.l1_bytes, t.l2_bytes, t.l3_bytes, t.l2_cores, t.l3_cores) == (48 << 10, 2 << 20, 32 << 20, 2, 4)
    assert (
        t.l2_bytes_per_core == 1 << 20
        and Target.parse("llvm -l2=1M -l2-cores=2 -num-cores=1").l2_bytes_per_core == 1 << 20
    )


@pytest.mark.parametrize(
    ("text", "lanes", "registers", "ports"),
    [
        ("llvm -mcpu=skylake-avx512", 16, 32, 2), ("llvm -mcpu=znver4", 16, 32, 1), ("llvm -mcpu=x86-64", 4, 16, 2),
        ("llvm -mcpu=znver4 -mattr=-avx512f", 8, 16, 2), ("llvm -mtriple=aarch64-unknown-linux-gnu", 4, 32, 2),
    ],
)  # fmt: skip
def test_known_cpus(text: str, lanes: int, registers: int, ports: int) -> None:
    t = Target.parse(text)
    assert (t.lanes(4), t.num_registers, t.fma_ports) == (lanes, registers, ports)


@pytest.mark.parametrize(
    ("arch", "width"), [("x86_64", 16), ("x86_64", 32), ("x86_64", 64), ("aarch64", 16), ("riscv64", 16)]
)
def test_a_cpu_that_nobody_has_listed_starts_two_multiply_adds_a_cycle(arch: str, width: int) -> None:
    known = family(arch, "brand-new")
    assert known.fma_ports(width) == 2 and known.l1 > 0 and known.l2 > 0


@pytest.mark.parametrize(
    ("cpu", "ports"),
    [
        ("znver1", 1),
        ("znver3", 2),
        ("znver5", 2),
        ("icelake-client", 1),
        ("icelake-server", 2),
        ("sierraforest", 1),
        ("graniterapids-d", 2),
    ],
)
def test_multiply_adds_of_listed_cpus(cpu: str, ports: int) -> None:
    assert Target.parse(f"llvm -mtriple=x86_64-unknown-linux-gnu -mcpu={cpu}").fma_ports == ports


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("llvm -l2=big", "bytes"), ("llvm -num-cores=0", "1 to 256"), ("llvm -fma-ports=two", "1 to 256"),
        ("llvm -cache=1M", "unknown option"), ("gpu", "unknown target"), ("cuda -arch=sm_20", "unknown architecture"), ("cuda -device=first", "number, or emulator"), ("cuda -l2=none", "positive"), ("cuda -cores=3", "unknown option"),
        ("llvm -mcpu=pentium", "unknown CPU"), ("llvm -mtriple=pdp11", "triple"),
    ],
)  # fmt: skip
def test_bad_targets_are_refused(text: str, why: str) -> None:
    with pytest.raises(TargetError, match=why):
        Target.parse(text)


def test_code_for_another_architecture() -> None:
    g = GraphBuilder()
    module = LOWER.run(FUSE.run(GRAPH.run(g.build(g.relu(g.matmul(g.input("a", (40, 33)), g.input("b", (33, 50))))))))
    (func,) = (f for name, f in module.functions.items() if name != "main")
    target = Target.parse("llvm -mtriple=aarch64-unknown-linux-gnu -mcpu=neoverse-n1 -num-cores=4")
    assert "fmla" in backend_of(target).kernel(func).assembly()
