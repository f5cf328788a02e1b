"""LLVM text -> optimised object code, for a CPU."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite.binding.newpassmanagers import NewPassManager

from ...errors import InternalError

_CALLS_THROUGH_TABLE = '\n!llvm.module.flags = !{!0}\n!0 = !{i32 7, !"RtLibUseGOT", i32 1}\n'
"""Calls that LLVM makes of its own (memcpy) go through the table of addresses, as the loader wants it."""

_ready = threading.Lock()
_initialised = False


@dataclass(frozen=True, slots=True)
class Machine:
    """What LLVM generates code for.

    Attributes:
        triple: such as x86_64-unknown-linux-gnu; cpu: LLVM's name; features: "+avx2,-avx512f" and so on.
    """

    triple: str
    cpu: str
    features: str

    @property
    def reloc(self) -> str:
        """Code may lie anywhere, but for WebAssembly, whose modules have an address space of their own."""
        return "static" if self.triple.startswith("wasm") else "pic"

    @property
    def abi(self) -> str:
        """How arguments are passed, where the triple does not say it: RISC-V code for Linux passes them in registers of doubles."""
        return "lp64d" if self.triple.startswith("riscv64") else ""


BUILDER_USES = 32
"""Modules for which a builder of passes serves. Each that is made leaks a kilobyte, and each use makes the next one slower."""


class _Workshop:
    """LLVM's target machine, and the builder of its passes."""

    def __init__(self, machine: Machine) -> None:
        # the default code model is the large one, which costs an indirect call for each external function
        self.target = llvm.Target.from_triple(machine.triple).create_target_machine(
            cpu=machine.cpu,
            features=machine.features,
            opt=3,
            reloc=machine.reloc,
            codemodel="default",
            abiname=machine.abi,
        )
        self._builder: Any = None
        self._uses = 0

    def _fresh_builder(self) -> Any:
        if self._builder is None or self._uses == BUILDER_USES:
            if self._builder is not None:
                self._builder.close()
            options = llvm.create_pipeline_tuning_options(speed_level=3)
            options.loop_vectorization = False  # vectors are explicit
            options.slp_vectorization = False
            options.loop_unrolling = True
            self._builder, self._uses = llvm.create_pass_builder(self.target, options), 0
            options.close()
        self._uses += 1
        return self._builder

    def run_passes(self, module: Any) -> None:
        builder = self._fresh_builder()
        passes = builder.getModulePassManager()  # a run uses them up
        try:
            passes.run(module, builder)
        finally:
            # llvmlite's own class hides the method that frees the passes behind one that does nothing
            NewPassManager._dispose(passes)
            passes.detach()


_idle: dict[Machine, deque[_Workshop]] = {}
"""Workshops that wait for the next module; one thread at a time uses one."""


@contextmanager
def _workshop(machine: Machine) -> Iterator[_Workshop]:
    _initialise()
    waiting = _idle.setdefault(machine, deque())
    try:
        found = waiting.pop()
    except IndexError:  # all are at work
        found = _Workshop(machine)
    try:
        yield found
    finally:
        waiting.append(found)


def _initialise() -> None:
    global _initialised
    with _ready:
        if not _initialised:
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
            _initialised = True


def _optimise(text: str, shop: _Workshop) -> Any:
    """Parse, verify and optimise a module.

    Raises:
        InternalError: the text is no valid module; that is our defect.
    """
    try:
        module = llvm.parse_assembly(text + _CALLS_THROUGH_TABLE, llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise InternalError("the generated LLVM IR is not valid", why=str(error)) from error
    for function in module.functions:
        if function.is_declaration and not function.name.startswith("llvm."):
            function.add_function_attribute("nonlazybind")
    module.triple = shop.target.triple
    module.data_layout = str(shop.target.target_data)
    shop.run_passes(module)
    return module


def emit_object(text: str, machine: Machine) -> bytes:
    """Object code of a module."""
    with _workshop(machine) as shop, _optimise(text, shop) as module:
        return shop.target.emit_object(module)


def emit_assembly(text: str, machine: Machine) -> str:
    """Assembly of a module."""
    with _workshop(machine) as shop, _optimise(text, shop) as module:
        return shop.target.emit_assembly(module)
