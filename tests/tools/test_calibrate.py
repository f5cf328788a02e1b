"""Measuring the constants of the cost model."""

from dataclasses import fields

import pytest

from tcomp.target import CostModel
from tcomp.tools.calibrate import calibrate


@pytest.mark.slow
def test_measured_constants_are_those_of_a_cpu() -> None:
    rows = {row.name: row for row in calibrate()}
    assert list(rows) == [f.name for f in fields(CostModel)]
    measured = {name: row.measured for name, row in rows.items() if row.measured is not None}
    assert 2 <= measured["fma_latency"] <= 12  # known CPUs: 3 to 6 cycles; others may run meanwhile
    assert measured["far_bytes"] < measured["near_bytes"]
    assert all(value > 0 for value in measured.values()) and len(measured) >= 7
