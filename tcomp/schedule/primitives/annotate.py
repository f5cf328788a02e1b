"""Primitives that say how a loop runs, pragmas, and free annotations."""

from __future__ import annotations

from math import prod
from typing import Any

from ...analysis.dependence import carried, private_buffers
from ...analysis.regions import blocks_under, loops_around
from ...config import config
from ...ir.arith import simplify
from ...ir.expr import Call, Const, Var, const
from ...ir.node import walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import as_int, free_vars
from ...ir.stmt import Attrs, For, LoopKind, walk_statements
from .base import BlockRef, Primitive, Refusal, replace, top_statement
from .patterns import own_chain, starts_neutral

MAX_LANES = 1024
MAX_UNROLL = 4096
LANES_TOGETHER = 8
"""Lanes of an instruction, when counting: those of float32 in AVX2."""
CALL_COST = 16
"""Instructions of an elementary function, when counting."""
MAX_THREADS = 1024
PLAIN = ("serial", "unrolled")
THREADS = tuple(f"{kind}.{axis}" for kind in ("blockIdx", "threadIdx", "vthread") for axis in "xyz")
PRAGMAS = ("auto_unroll_max_step", "double_buffer", "prefetch", "prefetch_next")


def _reduction_of(s: For) -> tuple[Any, str] | None:
    for block in blocks_under(s.body):
        for it in block.iters:
            if it.kind == "reduce" and s.var in free_vars(it.binding):
                return block, it.var.name
    return None


def _independent(func: PrimFunc, loop: Var, verb: str, hint: str) -> Refusal | None:
    """Refuse where the iterations of the loop are not independent."""
    s = func.loops[loop]
    what = f"cannot {verb} loop {loop.name}"
    if s.kind == "bound":
        return Refusal(what, f"it is bound to {s.thread}", {s: s.thread})
    conflict = carried(func, s)
    if conflict is None:
        return None
    reduction = _reduction_of(s)
    if reduction is not None:
        block, _ = reduction
        return Refusal(
            f"{what} of block {block.name}",
            f"it carries a reduction: {conflict.text}",
            {s: f"reduction axis of {block.name}"},
            hint,
        )
    return Refusal(what, conflict.text, {s: "its iterations depend on one another", conflict.sink: "here"}, hint)


def _inside_vectors(func: PrimFunc, s: For, what: str) -> Refusal | None:
    vector = next((x for x in loops_around(func, s) if x.kind == "vectorized"), None)
    return None if vector is None else Refusal(what, "it runs inside a vectorized loop", {vector: "vectorized"})


def check_parallel(func: PrimFunc, loop: Var) -> Refusal | None:
    refusal = _independent(func, loop, "parallelize", "parallelize a loop over a spatial axis")
    return refusal or _inside_vectors(func, func.loops[loop], f"cannot parallelize loop {loop.name}")


def check_vectorize(func: PrimFunc, loop: Var) -> Refusal | None:
    s = func.loops[loop]
    what = f"cannot vectorize loop {loop.name}"
    if not isinstance(s.extent, Const):
        return Refusal(what, "its extent is symbolic", {s: "unknown extent"}, "split it by the vector width first")
    if s.extent.value > MAX_LANES:
        return Refusal(
            what,
            f"{s.extent.value} lanes are more than {MAX_LANES}",
            {s: "too wide"},
            f"split({loop.name}, [None, 16])",
        )
    inner = next((x for x in walk_statements(s.body) if isinstance(x, For) and x.kind not in PLAIN), None)
    outer = next((x for x in loops_around(func, s) if x.kind == "vectorized"), None)
    other = inner if inner is not None else outer
    if other is not None:
        return Refusal(what, f"{other.kind} loop {other.var.name} is nested with it", {s: "this", other: other.kind})
    opaque = next((b for b in blocks_under(s.body) if "tensor_intrin" in b.annotations), None)
    if opaque is not None:
        return Refusal(what, f"block {opaque.name} is tensorized: it brings its own vectors", {opaque: "tensorized"})
    ring = next((b for b in private_buffers(func, s) if b.reused), None)
    if ring is not None:
        return Refusal(
            what, f"its lanes would share {ring.name}, whose elements are overwritten as loops go on", {s: "this"}
        )
    hint = "vectorize a loop over a spatial axis"
    refusal = _independent(func, loop, "vectorize", hint)
    reduction = _reduction_of(s)
    if refusal is None and reduction is not None:
        # at most one iteration does anything, but lanes that add to one element have no vector form
        return Refusal(what, f"it runs over a reduce axis of block {reduction[0].name}", {s: "reduction axis"}, hint)
    return refusal or _too_much_code(func, s, "vectorized", what)


def check_unroll(func: PrimFunc, loop: Var) -> Refusal | None:
    s = func.loops[loop]
    what = f"cannot unroll loop {loop.name}"
    if s.kind == "bound":
        return Refusal(what, f"it is bound to {s.thread}", {s: s.thread})
    if not isinstance(s.extent, Const):
        return Refusal(what, "its extent is symbolic", {s: "unknown extent"}, "split it by a constant first")
    if s.extent.value > MAX_UNROLL:
        return Refusal(what, f"{s.extent.value} copies are more than {MAX_UNROLL}", {s: "too long"}, "split it first")
    return _too_much_code(func, s, "unrolled", what)


def _too_much_code(func: PrimFunc, loop: For, kind: str, what: str) -> Refusal | None:
    """Refuse a loop that would make a block into more instructions than LLVM compiles in a few seconds."""
    limit = config().code_limit
    for b in blocks_under(loop):
        copies = lanes = 1
        around = loops_around(func, b)
        for s in around:
            size = as_int(s.extent, 1)
            made = kind if s is loop else s.kind
            copies *= size if made == "unrolled" else 1
            lanes *= size if made == "vectorized" else 1
        calls = sum(isinstance(e, Call) for e in walk(b.body))
        count = copies * -(-lanes // LANES_TOGETHER) * (1 + CALL_COST * calls)
        if count > limit:
            why = f"block {b.name} would become {count} instructions or more, above {limit}"
            hint = "unroll fewer loops or shorter ones; TCOMP_CODE_LIMIT raises the limit"
            return Refusal(what, why, {loop: "this loop", b: f"{copies} copies"}, hint)
    return None


def _set_kind(kind: LoopKind) -> Any:
    def apply(func: PrimFunc, loop: Var) -> tuple[PrimFunc, None]:
        s = func.loops[loop]
        return replace(func, s, with_fields(s, kind=kind)), None

    apply.__doc__ = f"""for i in range(n): X(i)    becomes    for i in {kind}: range(n): X(i)

    >>> sch = add(8)
    >>> (i,) = sch.get_loops("B")
    >>> sch.{_VERB[kind]}(i)
    >>> sch.show()
    def add(A: float32[8], out B: float32[8]):
      for i in {kind}: range(8):
        block B(vi over 8 = i):
          B[vi] = A[vi] + 1.0
    """
    return apply


_VERB = {"parallel": "parallel", "vectorized": "vectorize", "unrolled": "unroll"}


def check_bind(func: PrimFunc, loop: Var, thread: str) -> Refusal | None:
    s = func.loops[loop]
    what = f"cannot bind loop {loop.name} to {thread}"
    if thread not in THREADS:
        return Refusal(what, "there is no such index", {s: "this loop"}, f"one of {', '.join(THREADS)}")
    if s.kind == "bound":
        return Refusal(what, f"it is already bound to {s.thread}", {s: s.thread})
    is_thread = thread.startswith("threadIdx")
    if is_thread and not isinstance(s.extent, Const):
        return Refusal(what, "the number of threads must be constant", {s: "symbolic"}, "split it by a constant first")
    nested = [*loops_around(func, s), *(x for x in walk_statements(s.body) if isinstance(x, For))]
    for x in nested:
        if x.thread == thread:
            return Refusal(what, f"loop {x.var.name}, nested with it, is {thread} already", {x: thread, s: "this loop"})
        if x.kind == "vectorized" and x in loops_around(func, s):
            return Refusal(what, f"it runs inside the vectorized loop {x.var.name}", {x: x.kind})
    refusal = _launch(func, s, thread, what)
    if refusal is not None:
        return refusal
    if is_thread and crosses_threads(func, s):
        return None
    return _independent(func, loop, f"bind to {thread}", "bind a loop over a spatial axis, or rfactor first")


def _launch(func: PrimFunc, s: For, thread: str, what: str) -> Refusal | None:
    """Loops of one kernel (one statement of the top level) that share an index must agree on its range."""
    kernel = top_statement(func, s)
    threads = {thread: s.extent} if thread.startswith("threadIdx") else {}
    for x in walk_statements(kernel):
        if isinstance(x, For) and x.thread == thread and simplify(x.extent - s.extent) != const(0):
            return Refusal(what, f"loop {x.var.name} of another extent has that index too", {x: thread, s: "this loop"})
        if isinstance(x, For) and x.thread.startswith("threadIdx"):
            threads[x.thread] = x.extent
    count = prod(as_int(e, 1) for e in threads.values())
    if count > MAX_THREADS:
        return Refusal(
            what, f"{count} threads in a block are more than {MAX_THREADS}", {s: "this loop"}, "split it first"
        )
    return None


def crosses_threads(func: PrimFunc, s: For) -> bool:
    """Whether the loop is a reduction that threads can do together: one block alone, its combination known."""
    blocks = blocks_under(s.body)
    if len(blocks) != 1 or not starts_neutral(blocks[0]):
        return False
    b = blocks[0]
    spatial = {v for it in b.spatial for v in free_vars(it.binding)}
    return s in own_chain(func, b) and s.var not in spatial and _reduction_of(s) is not None


def apply_bind(func: PrimFunc, loop: Var, thread: str) -> tuple[PrimFunc, None]:
    """for i in range(n): X(i)    becomes    for i in threadIdx.x: range(n): X(i)

    Each iteration is a thread (threadIdx), a block of threads (blockIdx), or interleaved work of one thread (vthread). A
    reduce loop bound to threadIdx is a cross-thread reduction: the threads combine what each has. Generated code for a CPU
    runs bound loops one iteration after another, so that a GPU schedule can be checked anywhere.

    >>> sch = add(256)
    >>> (i,) = sch.get_loops("B")
    >>> i_0, i_1 = sch.split(i, [None, 64])
    >>> sch.bind(i_0, "blockIdx.x")
    >>> sch.bind(i_1, "threadIdx.x")
    >>> sch.show()
    def add(A: float32[256], out B: float32[256]):
      for i_0 in blockIdx.x: range(4):
        for i_1 in threadIdx.x: range(64):
          block B(vi over 256 = i_0 * 64 + i_1):
            B[vi] = A[vi] + 1.0
    """
    s = func.loops[loop]
    return replace(func, s, with_fields(s, kind="bound", thread=thread)), None


def check_annotate(func: PrimFunc, target: Var | BlockRef, key: str, value: Any) -> Refusal | None:
    what = f"cannot annotate with {key!r}"
    if not isinstance(key, str) or not key.isidentifier():
        return Refusal(what, "a key is an identifier")
    if key.startswith("pragma_"):
        return Refusal(
            what, "that is what pragma leaves behind", hint=f"pragma(loop, {key.removeprefix('pragma_')!r}, value)"
        )
    if key == "tensor_intrin":
        return Refusal(what, "that is what tensorize leaves behind", hint="tensorize")
    if not isinstance(value, (bool, int, float, str)):
        return Refusal(what, f"a value is a bool, number or string, got {type(value).__name__}")
    return None


def _place(func: PrimFunc, target: Var | BlockRef) -> Any:
    return func.blocks[target.name] if isinstance(target, BlockRef) else func.loops[target]


def apply_annotate(func: PrimFunc, target: Var | BlockRef, key: str, value: Any) -> tuple[PrimFunc, None]:
    """Attach `key=value` to a loop or block, for the code generator or for people.

    >>> sch = add(10)
    >>> sch.annotate("B", "note", "hot")
    >>> sch.show()
    def add(A: float32[10], out B: float32[10]):
      for i in range(10):
        block B(vi over 10 = i):  # note=hot
          B[vi] = A[vi] + 1.0
    """
    s = _place(func, target)
    return replace(func, s, with_fields(s, annotations=s.annotations.with_(**{key: value}))), None


def check_unannotate(func: PrimFunc, target: Var | BlockRef, key: str) -> Refusal | None:
    s = _place(func, target)
    if key in s.annotations and key != "tensor_intrin":
        return None
    names = ", ".join(s.annotations) or "none"
    return Refusal(f"cannot remove annotation {key!r}", f"its annotations are: {names}", {s: "here"})


def apply_unannotate(func: PrimFunc, target: Var | BlockRef, key: str) -> tuple[PrimFunc, None]:
    """Remove what `annotate` or `pragma` attached.

    >>> sch = add(10)
    >>> sch.annotate("B", "note", "hot")
    >>> sch.unannotate("B", "note")
    >>> sch.show()
    def add(A: float32[10], out B: float32[10]):
      for i in range(10):
        block B(vi over 10 = i):
          B[vi] = A[vi] + 1.0
    """
    s = _place(func, target)
    kept = Attrs.of({k: v for k, v in s.annotations.items() if k != key})
    return replace(func, s, with_fields(s, annotations=kept)), None


def check_pragma(func: PrimFunc, loop: Var, name: str, value: int) -> Refusal | None:
    s = func.loops[loop]
    what = f"cannot attach pragma {name}={value!r} to loop {loop.name}"
    if name not in PRAGMAS:
        return Refusal(what, "there is no such pragma", {s: "this loop"}, f"one of {', '.join(PRAGMAS)}")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_UNROLL:
        return Refusal(what, f"its value is an integer from 0 to {MAX_UNROLL}", {s: "this loop"})
    if s.kind in ("vectorized", "unrolled"):
        return Refusal(what, f"the loop is {s.kind}: there is none left when code is made", {s: s.kind})
    return None


def apply_pragma(func: PrimFunc, loop: Var, name: str, value: int) -> tuple[PrimFunc, None]:
    """Tell the code generator how to treat a loop.

    auto_unroll_max_step=n: loops inside it whose copies come to at most n statements are unrolled. prefetch=d: what an
    iteration loads is asked for d iterations ahead: all lines of what moves by a cache line or more in an iteration; where nothing
    does, the first element of each operand. prefetch_next=n: where n runs of the loop, which the variable f of a loop around it counts,
    read the same, at a place that f // n decides, each run brings a share of what the n runs after them will read into L2. double_buffer=1,
    for a GPU: what an iteration brings to shared memory is loaded while the one before it computes.

    >>> sch = add(10)
    >>> (i,) = sch.get_loops("B")
    >>> sch.pragma(i, "prefetch", 4)
    >>> sch.show()
    def add(A: float32[10], out B: float32[10]):
      for i in range(10):  # pragma_prefetch=4
        block B(vi over 10 = i):
          B[vi] = A[vi] + 1.0
    """
    return apply_annotate(func, loop, f"pragma_{name}", value)


PARALLEL = Primitive("parallel", check_parallel, _set_kind("parallel"))
VECTORIZE = Primitive("vectorize", check_vectorize, _set_kind("vectorized"))
UNROLL = Primitive("unroll", check_unroll, _set_kind("unrolled"))
BIND = Primitive("bind", check_bind, apply_bind)
ANNOTATE = Primitive("annotate", check_annotate, apply_annotate)
UNANNOTATE = Primitive("unannotate", check_unannotate, apply_unannotate)
PRAGMA = Primitive("pragma", check_pragma, apply_pragma)
