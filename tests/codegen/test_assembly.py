"""What is read from assembly, and what an executable tells of its kernels."""

import numpy as np

import tcomp
from tcomp.codegen.assembly import assembly_facts
from tcomp.ops import GraphBuilder

TEXT = """
	vmovups	(%rax), %zmm1
	vfmadd231ps	(%rax,%rcx), %zmm1, %zmm2
	vmovups	%zmm2, 64(%rsp)                 # 64-byte Spill
	vaddps	64(%rsp), %zmm3, %zmm3          # 64-byte Folded Reload
	movq	%rdi, 8(%rsp)                   # 8-byte Spill
	vaddss	%xmm1, %xmm2, %xmm3
	vaddps	%xmm1, %xmm2, %xmm3
"""


def test_instructions_are_counted_by_width() -> None:
    facts = assembly_facts(TEXT)
    assert facts.vectors == {512: 4, 128: 1} and facts.width == 512
    assert (facts.multiply_adds, facts.spills, facts.reloads) == (1, 1, 1)
    assert "4 instructions on 512-bit vectors" in str(facts) and "1 spills, 1 reloads" in str(facts)
    assert str(assembly_facts("addq %rax, %rbx")) == "no vector instructions"
    assert assembly_facts("fmla v0.4s, v1.4s, v2.4s // x").vectors == {128: 1}


def test_an_executable_explains_its_kernels(rng: np.random.Generator) -> None:
    g = GraphBuilder()
    w = rng.standard_normal((40, 37)).astype("float32")
    module = g.build(g.softmax(g.matmul(g.input("x", (24, 40)), g.constant(w))))
    exe = tcomp.compile(module, target="llvm -mcpu=skylake-avx512 -num-cores=1")
    text = exe.explain()
    product, rows = text.split("\n\n")
    assert "rule: tiled reduction" in product and "rule: rows" in rows
    assert "22.9 % of its operations fill up tiles and borders" in product  # 37 columns in panels of 48
    assert "512-bit vectors" in product and "no spills" in product and "vector registers" in product
    assert exe.explain(exe.program.kernels[0].name) == product


def test_a_load_is_not_masked_by_edges_of_other_axes() -> None:
    """Columns past the edge must not turn the scalars of the other operand, which lie apart, into gathers."""
    g = GraphBuilder()
    module = g.build(g.matmul(g.input("x", (250, 100)), g.input("y", (100, 37))))
    text = tcomp.compile(module, target="llvm -mcpu=skylake-avx512 -num-cores=8").ir("llvm")
    assert "masked.load" in text and "gather" not in text
