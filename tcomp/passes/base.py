"""What a pass is, and how a pipeline of them runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..config import config
from ..errors import InternalError, TcompError, VerifyError
from ..ir.equal import structural_equal
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ir.repro import write_reproducer
from ..ir.verify import verify


class Pass(Protocol):
    """A transformation of a module's entry, and of what that calls. Its fields are its options; it never changes its input. A pipeline
    runs it on the bodies of scans and conds first, each as the entry.

    Attributes:
        requires: facts that must hold before; ensures: facts that hold after.
    """

    requires: ClassVar[frozenset[str]]
    ensures: ClassVar[frozenset[str]]

    def run(self, module: IRModule) -> IRModule: ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Passes in order; whether their requirements are met is checked when the pipeline is made.

    Raises:
        InternalError: a pass requires a fact that nothing before it establishes.
    """

    passes: tuple[Pass, ...]
    given: frozenset[str] = frozenset({"typed"})

    def __post_init__(self) -> None:
        facts = set(self.given)
        for p in self.passes:
            missing = p.requires - facts
            if missing:
                raise InternalError(
                    f"pass {type(p).__name__} requires {sorted(missing)}, which nothing before it ensures"
                )
            facts |= p.ensures

    def run(self, module: IRModule, observe: Callable[[str, IRModule], None] | None = None) -> IRModule:
        """Run all passes.

        Args:
            observe: called with each pass's name and the module after it.

        Raises:
            InternalError: a pass failed; the error names it and the file that replays it.
        """
        settings = config()
        for p in self.passes:
            before, name = module, type(p).__name__
            try:
                for f in module.graphs:
                    module = p.run(module.entered_at(f.name)).entered_at(before.entry)
                if module is not before and settings.verify >= 1:
                    verify(module)
                module = _with_facts(module, p.ensures)
            except TcompError as error:
                if not isinstance(error, (InternalError, VerifyError)):
                    raise
                raise _failed(name, before, error) from error
            except Exception as error:
                raise _failed(name, before, error) from error
            if settings.dump and not structural_equal(before, module):
                write_reproducer(name, module, settings.dump)
            if observe is not None:
                observe(name, module)
        return module


def _with_facts(module: IRModule, facts: frozenset[str]) -> IRModule:
    if facts <= module.facts:
        return module
    return with_fields(module, facts=module.facts | facts)


def _failed(name: str, module: IRModule, error: Exception) -> InternalError:
    script = write_reproducer(f"before_{name}", module)
    return InternalError(
        f"pass {name} failed",
        why=f"{type(error).__name__}: {error}",
        hint=f"python -m tcomp.tools opt {script} --passes {name}   # replays it",
    )
