"""A program with its constants and its object code, as one run of bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import dtype
from ..errors import TcompError
from ..memory import ALIGN
from .program import Program

Part = bytes | np.ndarray


def dump(program: Program, objects: Sequence[bytes], notes: Mapping[str, Any]) -> list[Part]:
    """The bytes, in parts that follow one another. Constants begin at cache lines, if the first part does.

    Args:
        notes: what else is to be known when it is loaded, as JSON holds it.
    """
    described = {"program": program.to_json(), "objects": [len(o) for o in objects], "notes": notes}
    head = json.dumps(described).encode()
    parts: list[Part] = [len(head).to_bytes(8, "little"), head, *objects]
    at = 8 + len(head) + sum(map(len, objects))
    for c in program.constants:
        parts += [bytes(-at % ALIGN), np.ascontiguousarray(c).reshape(-1).view(np.uint8)]
        at += -at % ALIGN + c.nbytes
    return parts


def load(data: np.ndarray) -> tuple[Program, list[bytes], dict[str, Any]]:
    """What `dump` wrote: the program, whose constants lie in `data`, the objects, the notes.

    Args:
        data: uint8[n]; nobody may write to it any more.

    Raises:
        TcompError: it is damaged.
    """
    try:
        head = int.from_bytes(data[:8].tobytes(), "little")
        described = json.loads(data[8 : 8 + head].tobytes())
        at, objects = 8 + head, []
        for size in described["objects"]:
            objects.append(data[at : at + size].tobytes())
            at += size
        constants = []
        for c in json.loads(described["program"])["constants"]:
            kind = np.dtype(dtype(c["dtype"]).numpy)
            at += -at % ALIGN
            size = int(np.prod(c["shape"], dtype=np.int64)) * kind.itemsize
            constants.append(data[at : at + size].view(kind).reshape(c["shape"]))
            at += size
        if at != len(data):
            raise ValueError(f"{len(data)} bytes, expected {at}")
        return Program.from_json(described["program"], constants), objects, described["notes"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TcompError("cannot read the compiled model", why=f"{type(error).__name__}: {error}") from error
