"""LLVM text -> optimised object code, for a CPU."""

from __future__ import annotations

import threading
from typing import Any

import llvmlite.binding as llvm

from ...errors import InternalError

_CALLS_THROUGH_TABLE = '\n!llvm.module.flags = !{!0}\n!0 = !{i32 7, !"RtLibUseGOT", i32 1}\n'
"""Calls that LLVM makes of its own (memcpy) go through the table of addresses, as the loader wants it."""

_ready = threading.Lock()
_initialised = False


def _initialise() -> None:
    global _initialised
    with _ready:
        if not _initialised:
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
            _initialised = True


def target_machine(triple: str, cpu: str, features: str) -> Any:
    """An LLVM target machine.

    Args:
        triple: such as x86_64-unknown-linux-gnu; cpu: LLVM's name; features: "+avx2,-avx512f" and so on.
    """
    _initialise()
    target = llvm.Target.from_triple(triple)
    # the default code model is the large one, which costs an indirect call for each external function
    return target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="default")


def optimise(text: str, machine: Any) -> Any:
    """Parse, verify and optimise a module.

    Raises:
        InternalError: the text is no valid module; that is our defect.
    """
    _initialise()
    try:
        module = llvm.parse_assembly(text + _CALLS_THROUGH_TABLE, llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise InternalError("the generated LLVM IR is not valid", why=str(error)) from error
    for function in module.functions:
        if function.is_declaration and not function.name.startswith("llvm."):
            function.add_function_attribute("nonlazybind")
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = False  # vectors are explicit
    options.slp_vectorization = False
    options.loop_unrolling = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def emit_object(text: str, machine: Any) -> bytes:
    """Object code of a module."""
    return machine.emit_object(optimise(text, machine))


def emit_assembly(text: str, machine: Any) -> str:
    """Assembly of a module."""
    return machine.emit_assembly(optimise(text, machine))
