"""tcomp verify, replay, size: files that tcomp exported; and what `inspect` tells of them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..compiler import compile
from ..errors import TcompError
from ..export.interface import nbytes_of
from ..export.provenance import differences, source_of_file
from ..progress import terminal_bar
from ..runtime.artifact import selftest
from ..runtime.manifest import TEXT_ENDING, WASM_START, find_section, program_of, read_manifest
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


def verify_artifact(file: ArtifactFile, as_json: models.AsJson = False) -> None:
    """Compare an exported file, and those beside it, with what was exported; of a shared library, run the self-test: results on stored inputs,
    beside those stored at export. Other formats are run by a program's or a page's own selftest."""
    told = read_manifest(file)
    for name, digest in told["files"].items():
        other = file.with_name(Path(name).name)
        if other.is_file() and hashlib.sha256(other.read_bytes()).hexdigest() != digest:
            raise TcompError(f"{other} is not the file that was exported with {file.name}")
    error = selftest(file) if told["options"]["format"] == "shared" else None
    if as_json:
        print(json.dumps({"file": str(file), "error": error}))
    elif error is None:
        print(
            f"{file}: its bytes, and those of the files beside it, are what was exported; NAME_selftest runs the example"
        )
    else:
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
    source, how = told["source"], told["options"]
    if "file" not in source:
        raise TcompError(f"cannot replay {file}", why=f"it was exported from a {source['made of']} in memory")
    now = source_of_file(model)["sha256"]
    found = [f"the model: its SHA-256 is {now}, was {source['sha256']}"] if now != source["sha256"] else []
    targets = [Target.parse(v["options"]) for v in told["variants"]]
    with terminal_bar(f"compiling {model.name}") as note:
        exe = compile(
            str(model), target=targets[:-1] if how["portable"] else targets, shapes=how["shapes"], winograd=how["winograd"],
            check_indices=how["check_indices"], denormals=how["denormals"], database="", progress=None if quiet else note,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        name = file.name.removesuffix(TEXT_ENDING) + ".c" if file.name.endswith(TEXT_ENDING) else file.name
        made = exe.export(Path(scratch) / name, how["format"], told["name"], how["weights"], portable=how["portable"])
        again = next((f for f in made if f.name == file.name), None)
        if again is None:
            return [*found, f"the name: {file.name} is none of {', '.join(f.name for f in made)}"]
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
    for number, v in enumerate(told["variants"]):
        for c, mark in zip(program_of(told, number).constants, v["constants"]):
            weights[f"{c.dtype}{list(c.shape)} {mark[:6]}"] = c.nbytes
        cpu = v["target"].split(" -num-cores")[0].removeprefix("cpu -mcpu=")
        which = "" if len(told["variants"]) == 1 else f" for {cpu}"
        code |= {f"{name}{which}": k["bytes"] for name, k in v["kernels"].items()}
    first = program_of(told)
    example = {s.name: nbytes_of(s) for s in (*first.inputs, *first.outputs)}
    parts: dict[str, Any] = {"weights": weights, "code": code, "example": example}
    if file.name.endswith(TEXT_ENDING):  # as text, of which nobody knows which part is what
        sizes = {f.name: f.stat().st_size for f in beside if f.is_file()}
        parts = {"weights": {n: size for n, size in sizes.items() if not n.endswith(".c")}, "example": {}}
        parts["code"] = {n: size for n, size in sizes.items() if n.endswith(".c")}
    counted = sum(sum(p.values()) for p in parts.values())
    manifest = {"manifest": _manifest_bytes(file)}
    other = {"entry, interface, threads, tables": total - counted - manifest["manifest"]}
    return {"total": total, **parts, "manifest": manifest, "other": other}


def _manifest_bytes(file: Path) -> int:
    if file.name.endswith(TEXT_ENDING):
        return file.stat().st_size
    return find_section(memoryview(file.read_bytes()))[1]


def show_artifact(file: Path, kernels: bool, as_json: bool) -> None:
    """What an exported model is, and how it was made."""
    told = read_manifest(file)
    if as_json:
        print(json.dumps(told, indent=1))
        return
    program = program_of(told)
    source = told["source"]
    table = Table("what", "value", title=file.name)
    table.add_row("name", f"{told['name']}, by tcomp {told['tcomp']}, interface version {told['abi']}")
    table.add_row("made from", f"{source['file']}, SHA-256 {source['sha256']}" if "file" in source else f"a {source['made of']} in memory")  # fmt: skip
    table.add_row("options", ", ".join(f"{k} {v}" for k, v in told["options"].items() if k != "shapes"))
    table.add_row("code for", "\n".join(v["target"] for v in told["variants"]))
    for key, specs in (("inputs", program.inputs), ("outputs", program.outputs)):
        table.add_row(key, "\n".join(map(str, specs)))
    if told["state"]:
        table.add_row("keeps", ", ".join(told["state"]))
    constants = sum(c.nbytes for c in program.constants)
    table.add_row("weights", f"{constants / 2**20:.1f} MiB, {told['weights'] or 'inside'}")
    table.add_row("workspace", f"{program.arena_bytes:,} bytes")
    table.add_row("kernels", str(len(told["variants"][0]["kernels"])))
    console = Console(markup=False)
    console.print(table)
    for name, k in told["variants"][0]["kernels"].items() if kernels else ():
        console.print(f"\n# {name}: rule {k['rule']}, {k['bytes']:,} bytes of code\n{k['schedule']}")
