"""The C interface of an exported model: its header, and the tables above interface.c."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path

from ..dtype import dtype
from ..memory import ALIGN
from ..runtime.arguments import Spec
from ..runtime.artifact import ABI
from ..runtime.program import ENTRY
from ..target.cpu import features_of
from ..version import __version__
from .artifact import TOLERANCES, Artifact, Variant, golden_arrays, static_shape
from .cpuid import FeatureBit, feature_bits
from .state import State
from .weights import hash64, offsets

CODES = ("OK", "BAD_ARGUMENT", "NO_MEMORY", "CPU_TOO_OLD", "BAD_INDEX", "WRONG_RESULTS", "BAD_WEIGHTS", "BAD_STATE")
"""What functions return, from 0 on."""
KINDS = ("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32", "float64")  # fmt: skip
_NO_MATH = "#define HUGE_VAL __builtin_inf()\n#define sqrt __builtin_sqrt"
_STATE = """
/* What the model keeps from run to run, written to a safetensors file, whole or not at all, and read again; then, nothing is changed where the
 * file is not one of this model. A context that keeps something serves one thread at a time. */
int @name@_save(const @name@_context *context, const char *path);
int @name@_restore(@name@_context *context, const char *path);

/* Where a tensor of that lies, by its name in the file; NULL for none. What there is:
@kept@
 */
void *@name@_state(@name@_context *context, const char *name);

/* Their names, counted from 0, and their bytes; NULL behind the last. */
const char *@name@_kept(int i, size_t *bytes);
"""
_FOLDER = Path(__file__).parent


def header(artifact: Artifact) -> str:
    """The C header."""
    words = {
        "name": artifact.name, "NAME": artifact.name.upper(), "version": __version__, "abi": ABI, "target": ", ".join(str(v.target) for v in artifact.variants),
        "inputs": _listed(given(artifact)), "outputs": _listed(taken(artifact)),
        "num_inputs": len(given(artifact)), "num_outputs": len(taken(artifact)), "state": _state_text(artifact),
        "workspace_bytes": max(v.program.arena_bytes for v in artifact.variants),
        "weights": "NULL, as the weights are inside" if not artifact.weights.file else f"of {artifact.name}.safetensors, written with this file",
    }  # fmt: skip
    text = (_FOLDER / "interface.h").read_text(encoding="utf-8")
    return filled(text, words)


def filled(text: str, words: Mapping[str, object]) -> str:
    """A text with @word@ replaced by its value: in one pass, as values hold names that a model's author chose."""
    return re.sub(r"@(\w+)@", lambda found: str(words[found[1]]), text)


def source(artifact: Artifact, system: str, code: str = "") -> str:
    """The C source around a model's code: its tables, numbers.c, and its interface.

    Args:
        system: the file that says how a system's memory and threads are used: linux.c, portable.c, or wasm.c, which is an interface of its own.
        code: kernels and entries in C, if they are.
    """
    own = _NO_MATH if system == "wasm.c" else f'#include "{artifact.name}.h"\n#include <math.h>'
    parts = [own, "#include <stddef.h>\n#include <stdint.h>", *_tables(artifact, bool(code)), _text("numbers.c")]
    if code:
        parts += [_text(system), code, _variants(artifact)]
    else:
        parts += [*_declared(artifact), _variants(artifact), _text(system)]
    if system != "wasm.c":
        parts += [
            _text("interface.c"),
            *([*_state_tables(artifact.state), _text("state.c")] if artifact.state.kept else []),
        ]
    return "\n".join(parts)


def _text(file: str) -> str:
    return (_FOLDER / file).read_text(encoding="utf-8")


def _tables(artifact: Artifact, has_code: bool) -> list[str]:
    """What the interface needs to know of a model."""
    p, w = artifact.program, artifact.weights
    arrays = golden_arrays(artifact)
    golden, _ = offsets([a.nbytes for a in arrays])
    kept = {k.input: k.place for k in artifact.state.kept} | {
        len(p.inputs) + k.result: k.place for k in artifact.state.kept if k.result >= 0
    }
    rows = [
        f"{{{prod(static_shape(s))}, {nbytes_of(s)}, {at}, {kept.get(i, -1)}, {s.dtype.upper()}, {TOLERANCES.get(s.dtype, 0.0)!r}}}"
        for i, (s, at) in enumerate(zip((*p.inputs, *p.outputs), golden))
    ]
    checks = [f"{{{c.input}, {c.low}, {c.high}}}" for c in p.checks]
    bits = [b for v in artifact.variants for b in _bits(v)]  # a compiler of C makes code for its own machine
    features = [f"{{{b.leaf:#x}u, {b.subleaf}, {b.register}, {b.bit}, {b.state:#x}u}}" for b in bits]
    places = [str(at) for row in w.places for at in row]
    least = ", ".join(b.name for b in _bits(artifact.variants[-1])) or "none"
    return [
        f"#define JOIN_(a, b) a##_##b\n#define JOIN(a, b) JOIN_(a, b)\n#define API(word) JOIN({artifact.name}, word)",
        f"#define FEATURE_NAMES {_quoted(least)}",
        f"#define DESCRIPTION {_quoted(description(artifact))}",
        f"enum {{ ABI_VERSION = {ABI}, ALIGN = {ALIGN}, NUM_INPUTS = {len(p.inputs)}, NUM_OUTPUTS = {len(p.outputs)}, NUM_CHECKS = {len(checks)},",
        f"       NUM_VARIANTS = {len(artifact.variants)}, MAX_CONSTANTS = {max(map(len, w.places)) - 1} }};",
        f"enum {{ NUM_GIVEN = {len(given(artifact))}, NUM_TAKEN = {len(taken(artifact))} }};",
        f"static const size_t STATE_BYTES = {artifact.state.nbytes}, STATE_PLACE = {w.places[0][-1]};",
        f"enum {{ {', '.join(CODES)} }};",
        f"enum {{ {', '.join(k.upper() for k in KINDS)} }};",
        f"static const uint64_t WEIGHTS_FILE_BYTES = {len(w.file)}u, WEIGHTS_HASH = {hash64(w.file):#x}u, WEIGHTS_START = {w.file_start}u;",
        "typedef struct { int64_t size, bytes, golden, kept; int kind; double tolerance; } Array;",
        "typedef struct { int input; int64_t low, high; } Check;",
        "typedef struct { unsigned leaf, subleaf, reg, bit, state; } Feature;",
        "/* code for one kind of CPU: (inputs and results, constants, workspace, extents) -> OK or NO_MEMORY */",
        "typedef int32_t (*Entry)(void *const *, const void *const *, void *, const int64_t *);",
        "typedef struct { Entry entry; size_t workspace_bytes; int first_constant, num_constants, first_feature, num_features; } Variant;",
        _table("Array", "ARRAYS", rows),
        _table("Check", "CHECKS", checks or ["{0, 0, 0}"]),
        "" if has_code else _table("Feature", "FEATURES", features or ["{0, 0, 0, 0, 0}"]),
        _table("int64_t", "CONSTANT_OFFSETS", places or ["0"]),
        f"extern const {'uint64_t' if has_code else 'unsigned char'} {artifact.name}_weights[], {artifact.name}_golden[];",
    ]


def _state_tables(state: State) -> list[str]:
    header, place = state.header()
    rows = [f"{{{_quoted(k.name)}, {_quoted(told)}, {k.place}, {k.array.nbytes}}}" for k, told in state.by_name()]
    pieces = "\n".join(_quoted(header[i : i + 80].decode("latin-1")) for i in range(8, len(header), 80))
    length = "".join(f"\\{b:03o}" for b in header[:8])
    return [
        "typedef struct { const char *name, *told; int64_t place, bytes; } Kept;",
        _table("Kept", "KEPT", rows),
        f"enum {{ NUM_KEPT = {len(rows)}, CHECKSUM_PLACE = {place} }};",
        f'static const char STATE_HEADER[] = "{length}"\n{pieces};',
    ]


def given(artifact: Artifact) -> tuple[Spec, ...]:
    """The inputs that a caller gives."""
    kept = {k.input for k in artifact.state.kept}
    return tuple(s for i, s in enumerate(artifact.program.inputs) if i not in kept)


def taken(artifact: Artifact) -> tuple[Spec, ...]:
    """The results that a caller gets."""
    kept = {k.result for k in artifact.state.kept}
    return tuple(s for i, s in enumerate(artifact.program.outputs) if i not in kept)


def nbytes_of(s: Spec) -> int:
    return prod(static_shape(s)) * dtype(s.dtype).itemsize


def entry_name(number: int) -> str:
    """The entry function of a variant."""
    return f"{ENTRY}_{number}"


def _declared(artifact: Artifact) -> list[str]:
    """The entries that come from elsewhere."""
    told = "(void *const *args, const void *const *constants, void *workspace, const int64_t *dims);"
    return [f"int32_t {entry_name(i)}{told}" for i in range(len(artifact.variants))]


def _variants(artifact: Artifact) -> str:
    """The table of variants."""
    rows, constants, features = [], 0, 0
    for i, v in enumerate(artifact.variants):
        counts = len(v.program.constants), len(_bits(v))
        rows.append(f"{{{entry_name(i)}, {v.program.arena_bytes}, {constants}, {counts[0]}, {features}, {counts[1]}}}")
        constants, features = constants + counts[0] + 1, features + counts[1]  # the state stands behind the constants
    return _table("Variant", "VARIANTS", rows)


def _bits(v: Variant) -> tuple[FeatureBit, ...]:
    """What a CPU must have."""
    t = v.target
    return feature_bits(features_of(t.triple, t.cpu, t.features)) if t.triple.startswith("x86_64") else ()


def description(artifact: Artifact) -> str:
    """Names, shapes and dtypes, as JSON."""
    inputs, outputs = (
        [{"name": s.name, "shape": static_shape(s), "dtype": dtype(s.dtype).name} for s in specs]
        for specs in (given(artifact), taken(artifact))
    )
    told = {
        "abi": ABI,
        "name": artifact.name,
        "tcomp": __version__,
        "targets": [str(v.target) for v in artifact.variants],
        "inputs": inputs,
        "outputs": outputs,
    }
    return json.dumps(told)


def _state_text(artifact: Artifact) -> str:
    if not artifact.state.kept:
        return ""
    names = "\n".join(
        f" *   {_comment(str(artifact.program.inputs[k.input]))} as {_comment(repr(k.name))}"
        for k in artifact.state.kept
    )
    return filled(_STATE, {"name": artifact.name, "kept": names})


def _listed(specs: tuple[Spec, ...]) -> str:
    return "\n".join(f" *   {i}: {_comment(str(s))}" for i, s in enumerate(specs)) or " *   none"


def _comment(text: str) -> str:
    """On one line, and with nothing that ends a comment: names are a model's own."""
    plain = text if text.isprintable() else text.encode("unicode_escape").decode()
    return plain.replace("*/", "* /")


def _table(kind: str, name: str, rows: list[str]) -> str:
    return f"static const {kind} {name}[] = {{{', '.join(rows)}}};"


def _quoted(text: str) -> str:
    """A C string literal; a trigraph cannot arise."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?") + '"'
