"""The operators by name, for code that operators are made of: Tensor's methods, and gradients, which are operators again.

The table is filled by `frontend.ops`, which imports all of them; who is imported by operators takes the table instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Operators:
    """Functions and classes of operators, as attributes."""

    def fill(self, table: Mapping[str, Any]) -> None:
        """Take up the public names of a module."""
        self.__dict__.update({k: v for k, v in table.items() if not k.startswith("_")})

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"frontend has no operator {name!r}")


ops = Operators()
