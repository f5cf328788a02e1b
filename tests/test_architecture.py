"""The house's own test: which room may import which, and how large things may grow."""

import ast
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "errors": set(),
    "lazy": {"errors"},
    "version": set(),
    "memory": {"errors"},
    "config": {"errors"},
    "dtype": {"errors", "lazy"},
    "ir": {"errors", "dtype", "config"},
    "te": {"analysis", "ir", "errors", "dtype"},
    "ops": {"ir", "te", "errors", "dtype", "memory"},
    "analysis": {"ir", "lazy", "errors"},
    "passes": {"ops", "analysis", "ir", "te", "errors", "config", "dtype", "lazy", "memory"},
    "importers": {"dtype", "errors", "ir", "lazy", "ops"},
    "progress": {"lazy"},
    "specialized": {"dtype", "errors", "importers", "progress", "runtime"},
    "runtime": {"errors", "dtype", "config", "lazy", "memory"},
    "target": {"errors", "lazy", "runtime"},
    "schedule": {"ir", "analysis", "config", "dtype", "errors", "lazy", "target"},
    "codegen": {"ir", "analysis", "errors", "dtype", "config", "lazy", "memory", "runtime", "target"},
    "backends": {"codegen", "config", "dtype", "errors", "ir", "lazy", "passes", "runtime", "target"},
    "assemble": {"codegen", "errors", "ir", "passes", "runtime"},
    "stages": {"codegen", "errors", "ir", "memory"},
    "remembered": {"backends", "codegen", "config", "errors", "runtime"},
    "export": {"codegen", "dtype", "errors", "lazy", "memory", "runtime", "target", "version"},
    "tuner": {
        "backends",
        "codegen",
        "dtype",
        "errors",
        "ir",
        "memory",
        "ops",
        "runtime",
        "schedule",
        "target",
        "version",
    },
    "tuning": {
        "backends",
        "compiler",
        "driver",
        "errors",
        "importers",
        "ir",
        "memory",
        "ops",
        "passes",
        "runtime",
        "schedule",
        "target",
        "tuner",
    },
    "driver": {
        "assemble",
        "backends",
        "codegen",
        "config",
        "errors",
        "ir",
        "lazy",
        "memory",
        "passes",
        "runtime",
        "schedule",
        "stages",
        "target",
    },
    "compiler": {
        "backends",
        "config",
        "driver",
        "errors",
        "export",
        "importers",
        "lazy",
        "remembered",
        "runtime",
        "schedule",
        "specialized",
        "target",
        "tuner",
    },
    "cli": {
        "codegen",
        "compiler",
        "dtype",
        "errors",
        "export",
        "importers",
        "ir",
        "ops",
        "passes",
        "progress",
        "runtime",
        "schedule",
        "target",
        "version",
        "tuner",
        "tuning",
    },
    "tools": {
        "analysis",
        "driver",
        "tuner",
        "backends",
        "codegen",
        "compiler",
        "config",
        "dtype",
        "errors",
        "importers",
        "ir",
        "memory",
        "ops",
        "passes",
        "schedule",
        "target",
        "te",
    },
}
"""Arrows between the rooms of tcomp, imports inside functions counted too."""

FILES = sorted(p for folder in ("tcomp", "frontend", "benchmarks") for p in (ROOT / folder).rglob("*.py"))
MAX_LINES, MAX_FUNCTION = 500, 60
LOCAL_IMPORTS = {
    "sklearn",
    "scipy",
    "torch",
    "jax",
    "optax",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "openvino",
    "torchvision",
    "tvm",
    "timm",
    "transformers",
    "pycuda",
}
"""Optional packages that may be imported inside functions."""


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "tcomp").with_suffix("").parts
    return parts[0]


def imported_rooms(path: Path) -> set[str]:
    """The rooms of tcomp that a file imports."""
    rooms = set()
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            full = (*base, *(node.module.split(".") if node.module else ()))
            targets = [full] if len(full) > 1 else [(*full, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        rooms |= {t[1] for t in targets if t[0] == "tcomp" and len(t) > 1}
    return rooms


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.is_relative_to(ROOT / "tcomp")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_rooms_import_only_what_they_may(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        room = "lazy" if path.parent == ROOT / "tcomp" else room
        assert imported_rooms(path) <= {"lazy", "version"}
        return
    rooms = imported_rooms(path) - {room}
    assert rooms <= ALLOWED[room], f"{room} may not import {sorted(rooms - ALLOWED[room])}"


def test_no_circle_between_rooms() -> None:
    order: list[str] = []
    left = dict(ALLOWED)
    while left:
        free = [r for r, needs in left.items() if needs <= set(order)]
        assert free, f"a circle among {sorted(left)}"
        order += free
        for r in free:
            del left[r]


def imported_files(path: Path) -> set[Path]:
    """The files of this repository that a file imports, imports inside functions counted too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            full = (*base, *(node.module.split(".") if node.module else ()))
            candidates = [((*full, a.name), full) for a in node.names]
        elif isinstance(node, ast.Import):
            candidates = [(tuple(a.name.split(".")),) for a in node.names]
        else:
            continue
        for names in candidates:
            places = [
                p for n in names for p in (ROOT.joinpath(*n).with_suffix(".py"), ROOT.joinpath(*n, "__init__.py"))
            ]
            found.update([p for p in places if p.is_file()][:1])
    return found - {path}


@pytest.mark.parametrize("top", ["tcomp", "frontend", "benchmarks"])
def test_no_circle_between_files(top: str) -> None:
    graph = nx.DiGraph((p, q) for p in (ROOT / top).rglob("*.py") for q in imported_files(p))
    circles = [
        sorted(str(p.relative_to(ROOT)) for p in c) for c in nx.strongly_connected_components(graph) if len(c) > 1
    ]
    assert not circles


def test_tcomp_never_imports_the_frontend() -> None:
    for path in FILES:
        if path.is_relative_to(ROOT / "tcomp"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert all(n.split(".")[0] != "frontend" for n in names), path


def test_frontend_uses_the_public_face_only() -> None:
    for path in FILES:
        if path.is_relative_to(ROOT / "frontend"):
            assert not imported_rooms(path), f"{path} imports {imported_rooms(path)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= MAX_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body_start = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.lineno
            assert node.end_lineno - body_start < MAX_FUNCTION, f"{node.name} is too long"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_star_and_no_local_imports(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert all(a.name != "*" for a in node.names)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for inner in ast.walk(node):
                if isinstance(inner, (ast.Import, ast.ImportFrom)):
                    name = inner.module if isinstance(inner, ast.ImportFrom) else inner.names[0].name
                    assert (name or "").split(".")[0] in LOCAL_IMPORTS, f"{node.name} imports {name}"
