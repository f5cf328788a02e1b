"""tcomp verify, replay, size: files that tcomp exported; and what `inspect` tells of them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..compiler import compile
from ..dtype import dtype
from ..errors import TcompError
from ..export.provenance import differences
from ..progress import terminal_bar
from ..runtime.artifact import TEXT_ENDING, WASM_START, find_section, read_manifest, selftest
from ..target import Target
from . import models

ArtifactFile = Annotated[Path, typer.Argument(help="what tcomp exported; of C source, NAME_manifest.json")]


def is_artifact(file: Path) -> bool:
    """Whether a file may be one that tcomp exported, by its first bytes."""
    try:
        with open(file, "rb") as f:
            start = f.read(8)
    except OSError:
        return False
    return start.startswith(b"\x7fELF") or start == WASM_START or file.name.endswith(TEXT_ENDING)


def verify_artifact(
    file: Annotated[Path, typer.Argument(help="a shared library that tcomp exported")],
    as_json: models.AsJson = False,
) -> None:
    """Run the self-test of an exported model: results on stored inputs, beside those stored at export."""
    error = selftest(file)
    if as_json:
        print(json.dumps({"file": str(file), "error": error}))
        return
    print(f"{file}: the results differ by {error:.1e} from those stored at export")


def replay_artifact(
    file: ArtifactFile,
    model: Annotated[Path, typer.Argument(help="the model that it was made from")],
    as_json: models.AsJson = False,
) -> None:
    """Make an exported model again from its source, and compare all bytes."""
    told = read_manifest(file)
    found = _replayed(file, told, model, as_json)
    if as_json:
        print(json.dumps({"file": str(file), "equal": not found, "differences": found}, indent=1))
    else:
        print(f"{file} is equal to what {model} gives now" if not found else f"{file} is not what {model} gives now:")
        for line in found:
            print(f"  {line}")
    if found:
        raise typer.Exit(1)


def _replayed(file: Path, told: Mapping[str, Any], model: Path, quiet: bool) -> list[str]:
    """What is different, a line each."""
    try:
        source, how = told["source"], dict(told["options"])
        targets = [Target.parse(v["options"]) for v in told["variants"]]
        if "file" not in source:
            raise TcompError(f"cannot replay {file}", why=f"it was exported from a {source['made of']} in memory")
        try:
            with open(model, "rb") as f:
                now = hashlib.file_digest(f, "sha256").hexdigest()
        except OSError as error:
            raise TcompError(f"cannot read {model}", why=error.strerror or str(error)) from error
        found = [f"the model: its SHA-256 is {now}, was {source['sha256']}"] if now != source["sha256"] else []
        format, weights, shapes, portable = (how.pop(k) for k in ("format", "weights", "shapes", "portable"))
        targets = targets[:-1] if portable else targets
        with terminal_bar(f"compiling {model.name}") as note:
            exe = compile(str(model), target=targets, shapes=shapes, progress=None if quiet else note, **how)
    except (KeyError, TypeError) as error:
        raise TcompError(f"the manifest of {file} is damaged", why=f"{type(error).__name__}: {error}") from error
    with tempfile.TemporaryDirectory() as scratch:
        name = file.name.removesuffix(TEXT_ENDING) + ".c" if file.name.endswith(TEXT_ENDING) else file.name
        made = exe.export(Path(scratch) / name, format, told["name"], weights, portable=portable)
        again = next(f for f in made if f.name == file.name)
        found += [line for line in differences(told, read_manifest(again)) if not line.startswith("source")]
        for f in made:
            had = file.with_name(f.name)
            if not had.is_file():
                found.append(f"{f.name} is missing")
            elif had.read_bytes() != f.read_bytes():
                found.append(f"the bytes of {f.name}")
    return found


def size_artifact(
    file: ArtifactFile,
    top: Annotated[int, typer.Option(help="how many of the largest kernels and weights to list")] = 8,
    as_json: models.AsJson = False,
) -> None:
    """What takes the bytes of an exported model."""
    parts = sizes_of(file, read_manifest(file))
    if as_json:
        print(json.dumps(parts, indent=1))
        return
    table = Table("what", "bytes", "%", title=f"{file.name}: {parts['total']:,} bytes, files beside it included")
    for part in ("weights", "code", "example", "manifest", "other"):
        rows = sorted(parts[part].items(), key=lambda x: -x[1])
        total = sum(parts[part].values())
        table.add_row(part, f"{total:,}", f"{100 * total / parts['total']:.1f}", style="bold")
        for name, count in rows[:top] if len(rows) > 1 else ():
            table.add_row(f"  {name}", f"{count:,}", f"{100 * count / parts['total']:.1f}")
        if len(rows) > top:
            rest = sum(count for _, count in rows[top:])
            table.add_row(f"  {len(rows) - top} others", f"{rest:,}", f"{100 * rest / parts['total']:.1f}")
    Console(markup=False).print(table)


def sizes_of(file: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes of the parts of an artifact, by name; of weights that several codes share, once."""
    beside = [file.with_name(told["weights"])] if told["weights"] else []
    if file.name.endswith(TEXT_ENDING):
        stem = file.name.removesuffix(TEXT_ENDING)
        beside += [file.with_name(f"{stem}.c"), file.with_name(f"{stem}_data.c")]
    total = sum(f.stat().st_size for f in (file, *beside) if f.is_file())
    weights: dict[str, int] = {}
    code: dict[str, int] = {}
    for v in told["variants"]:
        program = json.loads(v["program"])
        for c, mark in zip(program["constants"], v["constants"]):
            weights[f"{c['dtype']}{c['shape']} {mark[:6]}"] = _bytes_of(c)
        which = (
            ""
            if len(told["variants"]) == 1
            else f" for {v['target'].split(' -num-cores')[0].removeprefix('cpu -mcpu=')}"
        )
        code |= {f"{name}{which}": k["bytes"] for name, k in v["kernels"].items()}
    first = json.loads(told["variants"][0]["program"])
    example = {s["name"]: _bytes_of(s) for s in (*first["inputs"], *first["outputs"])}
    parts: dict[str, Any] = {"weights": weights, "code": code, "example": example}
    if file.name.endswith(TEXT_ENDING):  # as text, of which nobody knows which part is what
        parts = {"weights": {told["weights"]: beside[0].stat().st_size}} if told["weights"] else {"weights": {}}
        parts |= {"code": {f.name: f.stat().st_size for f in beside if f.suffix == ".c"}, "example": {}}
    counted = sum(sum(p.values()) for p in parts.values())
    manifest = {"manifest": _manifest_bytes(file)}
    other = {"entry, interface, threads, tables": total - counted - manifest["manifest"]}
    return {"total": total, **parts, "manifest": manifest, "other": other}


def _manifest_bytes(file: Path) -> int:
    if file.name.endswith(TEXT_ENDING):
        return file.stat().st_size
    return find_section(memoryview(file.read_bytes()))[1]


def _bytes_of(described: Mapping[str, Any]) -> int:
    return prod(described["shape"]) * dtype(described["dtype"]).itemsize


def show_artifact(file: Path, kernels: bool, as_json: bool) -> None:
    """What an exported model is, and how it was made."""
    told = read_manifest(file)
    if as_json:
        print(json.dumps(told, indent=1))
        return
    program = json.loads(told["variants"][0]["program"])
    source = told["source"]
    table = Table("what", "value", title=file.name)
    table.add_row("name", f"{told['name']}, by tcomp {told['tcomp']}, interface version {told['abi']}")
    table.add_row("made from", f"{source['file']}, SHA-256 {source['sha256']}" if "file" in source else f"a {source['made of']} in memory")  # fmt: skip
    table.add_row("options", ", ".join(f"{k} {v}" for k, v in told["options"].items() if k != "shapes"))
    table.add_row("code for", "\n".join(v["target"] for v in told["variants"]))
    for key in ("inputs", "outputs"):
        table.add_row(key, "\n".join(f"{s['name']}: {s['dtype']}{s['shape']}" for s in program[key]))
    if told["state"]:
        table.add_row("keeps", ", ".join(told["state"]))
    constants = sum(map(_bytes_of, program["constants"]))
    table.add_row("weights", f"{constants / 2**20:.1f} MiB, {told['weights'] or 'inside'}")
    table.add_row("workspace", f"{program['arena_bytes']:,} bytes")
    table.add_row("kernels", str(len(told["variants"][0]["kernels"])))
    console = Console(markup=False)
    console.print(table)
    for name, k in told["variants"][0]["kernels"].items() if kernels else ():
        console.print(f"\n# {name}: rule {k['rule']}, {k['bytes']:,} bytes of code\n{k['schedule']}")
