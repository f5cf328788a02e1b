"""Shared fixtures: a cache folder of the test run's own, seeded random numbers."""

import gc
import os
import random
import tempfile
from collections import defaultdict

import numpy as np
import pytest

# one folder a test process, so that runs neither see nor leave anything in the user's cache
os.environ["TCOMP_CACHE_DIR"] = tempfile.mkdtemp(prefix="tcomp-test-cache-")

# tests run side by side already
os.environ.setdefault("TCOMP_WORKERS", "0")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1234)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `drawn(share)`, that share of its cases is left to `make test`, the others are slow; the same ones each time."""
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("drawn"):
            groups[item.nodeid.split("[")[0]].append(item)
    for name, cases in groups.items():
        share = cases[0].get_closest_marker("drawn").args[0]
        kept = set(random.Random(name).sample(range(len(cases)), max(1, round(share * len(cases)))))
        for number, item in enumerate(cases):
            if number not in kept:
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Thousands of tests stay to the end: the collector need not look at them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
