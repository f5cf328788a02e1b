"""The schedule language."""

from .primitives import BlockRef, Refusal
from .schedule import Schedule
from .trace import Trace

__all__ = ["BlockRef", "Refusal", "Schedule", "Trace"]
