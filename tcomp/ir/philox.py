"""Counter-based random numbers: Philox4x32-10 of J. Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.

A block of four words is a function of a counter and a key, so that any element of a random tensor can be computed on its
own, on any thread, again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
BUMPS = 0x9E3779B9, 0xBB67AE85
"""What the words of the key grow by from round to round."""


def rounds(
    counter: Sequence[Any],
    key: Sequence[Any],
    multiply: Callable[[Any, int], tuple[Any, Any]],
    xor: Callable[[Any, Any], Any],
    bump: Callable[[Any, int], Any],
) -> tuple[Any, ...]:
    """The four words of a block, over whatever stands for 32-bit words.

    Args:
        counter: four words; key: two.
        multiply: (word, constant) -> (high, low) word of the product; bump: (word, constant) -> their sum, modulo 2^32.
    """
    (a, b, c, d), (k, m) = counter, key
    for number in range(ROUNDS):
        if number:
            k, m = bump(k, BUMPS[0]), bump(m, BUMPS[1])
        (high0, low0), (high1, low1) = multiply(a, MULTIPLIERS[0]), multiply(c, MULTIPLIERS[1])
        a, b, c, d = xor(xor(high1, b), k), low1, xor(xor(high0, d), m), low0
    return a, b, c, d


def philox(*words: Any) -> tuple[np.ndarray, ...]:
    """The four words of blocks, in NumPy.

    Args:
        words: four of the counter, two of the key: uint32 arrays, broadcast.
    """
    wide = np.broadcast_arrays(*(np.asarray(w, np.uint32) for w in words))

    def multiply(a: np.ndarray, constant: int) -> tuple[np.ndarray, np.ndarray]:
        product = a.astype(np.uint64) * np.uint64(constant)
        return (product >> np.uint64(32)).astype(np.uint32), product.astype(np.uint32)

    def bump(k: np.ndarray, constant: int) -> np.ndarray:
        return (k.astype(np.uint64) + np.uint64(constant)).astype(np.uint32)

    return rounds(wide[:4], wide[4:], multiply, np.bitwise_xor, bump)
