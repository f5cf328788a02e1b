"""Shared fixtures: a cache folder of the test run's own, seeded random numbers."""

import os
import tempfile

import numpy as np
import pytest

# one folder a test process, so that runs neither see nor leave anything in the user's cache
os.environ["TCOMP_CACHE_DIR"] = tempfile.mkdtemp(prefix="tcomp-test-cache-")

# tests run side by side already
os.environ.setdefault("TCOMP_WORKERS", "0")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1234)
