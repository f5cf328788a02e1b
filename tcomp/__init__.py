"""tcomp: a tensor compiler with a schedule language.

    import tcomp
    exe = tcomp.compile(model, [x])   # a frontend Module, an IRModule, a PrimFunc, a Schedule
    y = exe(x)

Names are resolved when first used, so that importing tcomp costs next to nothing.
"""

from .lazy import lazy_attributes
from .version import __version__

_PUBLIC = {
    "compile": ".compiler",
    "workspace_bytes": ".compiler",
    "Executable": ".runtime.executable",
    "GraphBuilder": ".ops",
    "IRModule": ".ir",
    "PrimFunc": ".ir",
    "Schedule": ".schedule",
    "Target": ".target",
    "TcompError": ".errors",
    "TuneReport": ".tuner.report",
    "UnsupportedError": ".errors",
    "Trace": ".schedule",
    "dtype": ".dtype",
    "evaluate": ".ops.reference",
    "importers": ".",
    "load": ".runtime.artifact",
    "te": ".",
    "tune": ".tuning",
}

__getattr__, __dir__ = lazy_attributes(__name__, _PUBLIC)
__all__ = [*_PUBLIC, "__version__"]
