"""What NVIDIA's tools say of kernels; how their texts are read."""

import shutil
from collections import Counter

import pytest

import tcomp
from tcomp.codegen.cuda import nvcc
from tcomp.errors import TargetError
from tcomp.target import CudaTarget, Target

SASS = """
\t.section\t.text.k_1_relu,"ax",@progbits
.text.k_1_relu:
        /*0000*/                   LDC R1, c[0x0][0x37c] ;
        /*0090*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*00a0*/              @!P0 LDG.E R4, desc[UR4][R2.64] ;
        /*00b0*/                   LDG.E.U16 R4, desc[UR4][R2.64] ;
        /*00c0*/                   STG.E.64 desc[UR4][R2.64], R4 ;
\t.section\t.text.k_2_sum,"ax",@progbits
        /*0090*/                   STG.E.128 desc[UR4][R2.64], R4 ;
        /*00a0*/                   LDSM.16.M88.4 R4, [R2] ;
"""
TOLD = """
ptxas info    : Compiling entry function 'k_1_relu' for 'sm_80'
ptxas info    : Function properties for k_1_relu
    0 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 83 registers, used 1 barriers, 45056 bytes smem, 376 bytes cmem[0]
ptxas info    : Compiling entry function 'k_2_sum' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, 376 bytes cmem[0]
"""


def has(name: str) -> bool:
    try:
        return bool(nvcc.tool(name))
    except TargetError:
        return False


def test_widths_of_accesses_in_sass() -> None:
    assert nvcc.access_widths(SASS) == {"k_1_relu": Counter({16: 1, 4: 1, 2: 1, 8: 1}), "k_2_sum": Counter({16: 1})}


def test_what_the_assembler_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvcc, "_compiled", lambda *_: (b"", TOLD))
    assert nvcc.resources("", "sm_80") == {
        "k_1_relu": nvcc.Resources(83, 12, 45056), "k_2_sum": nvcc.Resources(12, 0, 0)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "share"),
    [
        (256, 32, 0, 1.0),
        (256, 33, 0, 0.75),  # 40 registers are given: 6 blocks
        (256, 32, 100_000, 0.125),
        (32, 16, 0, 0.5),  # 32 blocks
        (1024, 64, 0, 0.5),
    ],
)
def test_occupancy(threads: int, registers: int, shared: int, share: float) -> None:
    """By hand, of an SM of 2048 threads, 65536 registers and 164 KiB."""
    target = Target.parse("cuda -arch=sm_80")
    assert isinstance(target, CudaTarget)
    assert nvcc.occupancy(target, threads, registers, shared) == share


@pytest.mark.skipif(not (has("nvcc") and has("nvdisasm")), reason="nvcc and nvdisasm are not installed")
def test_products_move_16_bytes_at_once_by_matrix_instructions() -> None:
    g = tcomp.GraphBuilder()
    exe = tcomp.compile(g.build(g.matmul(g.input("x", (512, 512), "float16"), g.input("w", (512, 512), "float16"))), target="cuda -arch=sm_80")  # fmt: skip
    text = exe.ir("sass")
    assert "HMMA.16816.F32" in text and "LDSM.16.M88.4" in text and " 0 bytes spilled" in text
    (widths,) = nvcc.access_widths(text).values()
    assert widths[16] and not widths[4] + widths[2] + widths[1]


def test_without_the_tools_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(nvcc.sys, "path", [])
    with pytest.raises(TargetError, match="there is no nvcc to ask"):
        nvcc.tool("nvcc")
